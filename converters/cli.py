"""``edgeship-convert``: convert a trained model, pack a release, look into a bundle.

Exit codes: 0 done; 1 a named error, on stderr; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.targets import PRECISIONS, TARGETS
from edge_runtime.bundle.errors import EdgeshipError

if TYPE_CHECKING:
    from converters.report import Report

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except EdgeshipError as error:
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeship-convert", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    convert = commands.add_parser("convert", help="convert a Keras model and measure every artifact")
    convert.add_argument("--model", required=True, type=Path, help="a .keras file; first output: logits, no softmax")
    convert.add_argument("--evaluation", required=True, type=Path, help=".npz: one array for each input, and labels")
    convert.add_argument("--calibration", type=Path, help=".npz of real inputs; int8 needs it")
    convert.add_argument("--confidence", type=Path, help="labelled .npz to fit temperature and threshold on")
    convert.add_argument("--deferral-share", type=float, default=0.2, help="share of it to defer (default: 0.2)")
    convert.add_argument("--targets", type=_names, default=TARGETS, help=f"of {','.join(TARGETS)} (default: all)")
    convert.add_argument("--precisions", type=_names, default=PRECISIONS, help=f"of {','.join(PRECISIONS)}")
    convert.add_argument("--recipe", help="quantization recipe (default: static_wi8c_ai8_q99)")
    convert.add_argument("--name", help="stem of the files (default: the model's own name)")
    convert.add_argument("--first-axis", default="batch", help="name of the first axis, if it is not a batch")
    convert.add_argument("--out", required=True, type=Path, help="folder to write, whole or not at all")
    convert.add_argument("--overwrite", action="store_true", help="replace the folder if it holds anything")
    convert.add_argument("--json", action="store_true", help="print report.json instead of a table")
    convert.set_defaults(run=_convert)

    pack = commands.add_parser("pack", help="pack converted artifacts into an unsigned bundle")
    pack.add_argument("folder", type=Path, help="what convert wrote")
    pack.add_argument("--model", required=True, help="the model's name: lower-case letters, digits, -")
    pack.add_argument("--release", required=True, type=int, help="a number that grows with every release")
    pack.add_argument("--describe", required=True, type=Path, help="release.toml: owner, labels, dataset, features …")
    pack.add_argument("--training", required=True, type=Path, help=".npz: ranges and telemetry reference")
    pack.add_argument("--evaluation", required=True, type=Path, help=".npz: golden examples are chosen from it")
    pack.add_argument("--out", required=True, type=Path, help="folder for MODEL-RELEASE.bundle")
    pack.add_argument("--overwrite", action="store_true")
    pack.add_argument("--json", action="store_true")
    pack.set_defaults(run=_pack)

    inspect = commands.add_parser("inspect", help="show what a bundle holds, after checking every digest")
    inspect.add_argument("bundle", type=Path)
    inspect.add_argument("--json", action="store_true", help="print the manifest")
    inspect.set_defaults(run=_inspect)
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _say(text: str, done: int, total: int) -> None:
    print(f"[{done + 1}/{total}] {text}", file=sys.stderr, flush=True)


def _convert(arguments: argparse.Namespace) -> None:
    from converters.data import load_dataset
    from converters.pipeline import convert
    from converters.quantize.recipes import DEFAULT_RECIPE
    from converters.report import Report, report_dict
    from converters.sources.keras import KerasSource

    evaluation = load_dataset(arguments.evaluation)
    calibration = load_dataset(arguments.calibration) if arguments.calibration else None
    confidence = load_dataset(arguments.confidence) if arguments.confidence else None
    print(f"loading {arguments.model}", file=sys.stderr, flush=True)
    source = KerasSource(arguments.model, first_axis=arguments.first_axis, name=arguments.name or arguments.model.stem)
    artifacts = convert(
        source,
        calibration=calibration,
        evaluation=evaluation,
        confidence=confidence,
        deferral_share=arguments.deferral_share,
        targets=arguments.targets,
        precisions=arguments.precisions,
        recipe=arguments.recipe or DEFAULT_RECIPE,
        out=arguments.out,
        overwrite=arguments.overwrite,
        progress=_say,
    )
    report = Report.of(source, artifacts)
    if arguments.json:
        print(json.dumps(report_dict(report), indent=1))
    else:
        _show_report(report)


def _pack(arguments: argparse.Namespace) -> None:
    from converters.data import load_dataset
    from converters.describe import read_release_file
    from converters.package import pack
    from converters.report import read_report

    release_file = read_release_file(arguments.describe)
    packed = pack(
        read_report(arguments.folder),
        model=arguments.model,
        release=arguments.release,
        labels=release_file.labels,
        description=release_file.description,
        training=load_dataset(arguments.training),
        evaluation=load_dataset(arguments.evaluation),
        created=datetime.now(UTC),
        features=release_file.features,
        hybrid=release_file.hybrid,
        requirements=release_file.requirements,
        out=arguments.out,
        overwrite=arguments.overwrite,
        progress=_say,
    )
    if arguments.json:
        print(json.dumps({"bundle": str(packed.path), "bytes": packed.bytes, "sha256": packed.sha256}))
    else:
        print(f"{packed.path}  {packed.bytes:,} bytes  sha256 {packed.sha256}")


def _inspect(arguments: argparse.Namespace) -> None:
    from edge_runtime.bundle import open_bundle, write_manifest

    bundle = open_bundle(arguments.bundle)
    manifest = bundle.manifest
    if arguments.json:
        text = json.loads(write_manifest(manifest))
        print(json.dumps({"sha256": bundle.sha256, "signed": bool(bundle.tuf), "manifest": text}, indent=1))
        return
    print(f"{manifest.model} release {manifest.release} ({manifest.version}), made {manifest.created}")
    print(f"owner {manifest.owner}, {manifest.contact}; {'signed' if bundle.tuf else 'unsigned'}")
    for what, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        for spec in specs:
            print(f"{what} {spec.name}: {spec.dtype} {' × '.join(str(size) for size in spec.shape)}")
    print(f"labels: {', '.join(manifest.labels) or 'none'}")
    rows = [
        (
            f"{artifact.target} {artifact.precision}",
            f"{artifact.bytes:,}",
            _number(artifact.measured.accuracy, ".4f"),
            _number(artifact.measured.latency_p50_us, ".0f"),
            f"{artifact.golden.tolerance:g}",
            "" if artifact.confidence is None else f"{artifact.confidence.threshold:.3f}",
            ", ".join(artifact.float_operators),
        )
        for artifact in manifest.artifacts
    ]
    _table(("artifact", "bytes", "accuracy", "p50 µs", "tolerance", "τ", "left in float"), rows)
    print(f"sha256 {bundle.sha256}")


def _show_report(report: Report) -> None:
    rows = [
        (
            f"{artifact.target} {artifact.precision}",
            f"{artifact.bytes:,}",
            _number(artifact.accuracy, ".4f"),
            f"{artifact.agreement:.4f}",
            f"{artifact.max_abs_error:.2g}",
            _number(artifact.p50_us, ".0f"),
            f"{artifact.weight_share:.0%}",
        )
        for artifact in report.artifacts
    ]
    left = [
        (f"{artifact.target} {artifact.precision}", ", ".join(artifact.float_operators) or "nothing")
        for artifact in report.artifacts
        if artifact.precision == "int8"
    ]
    accuracy = _number(report.artifacts[0].source_accuracy, ".4f") or "not measured"
    print(f"{report.source}: {report.parameters:,} parameters, accuracy {accuracy} on {report.artifacts[0].rows} rows")
    headings = ("artifact", "bytes", "accuracy", "agreement", "max error", "p50 µs", "int8")
    _table(headings, rows)
    if left:  # a table of its own: beside the numbers, 80 columns leave no room for an operator's name
        _table(("artifact", "left in float"), left)
    for engine in dict.fromkeys(artifact.evaluated_with for artifact in report.artifacts):
        print(f"measured with {engine}")
    print(f"on {report.artifacts[0].machine}")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, no_wrap=heading != headings[-1], overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _number(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    raise SystemExit(main())
