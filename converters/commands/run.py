"""``edgeship-convert run``: a source and its data in, a bundle and a report out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.commands.console import number, progress, table, warn
from converters.errors import ConversionFailed, InvalidRequest
from converters.targets import PRECISIONS, TARGETS

if TYPE_CHECKING:
    from converters.pipeline import Outcome
    from converters.report import Report
    from converters.request import Request

__all__ = ["add", "run"]

NEEDED = ("source", "name", "release", "evaluation", "out")
RULE = ("target_risk", "delta", "deferral_share")
OPTIONAL = ("calibration", "confidence", "training", "targets", "precision", "max_accuracy_drop", "quantization",
            "search_seconds", "task", "fallback", *RULE, "profile", "first_axis", "signature", "peak_memory",
            "mlflow")  # fmt: skip


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "run",
        help="convert, quantize, measure and bundle a model",
        description="Convert, quantize, measure and bundle a model. Writes OUT/NAME-N.bundle, OUT/report.json, "
        "OUT/report.html and OUT/card.md, or nothing.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        help=".keras, SavedModel folder, .onnx, .pt2, .tflite, .mlpackage, .pkl (--trust-pickle) or an mlflow: URI",
    )
    parser.add_argument("--recipe", type=Path, help="TOML file with any of these options and the model's description")
    parser.add_argument("--name", help="the model's name: lower-case letters, digits, -")
    parser.add_argument("--release", type=int, help="a number that grows with every release")
    parser.add_argument("--calibration", help=".npz of real inputs, with label where there are any; int8 needs it")
    parser.add_argument("--evaluation", help=".npz, used once: what the gate decides on")
    parser.add_argument("--confidence", help="labelled .npz that temperature and threshold are chosen on")
    parser.add_argument("--training", help=".npz: ranges, telemetry reference, input guard (default: calibration)")
    parser.add_argument(
        "--edge-case", action="append", default=[], metavar="NAME=FILE", help="a labelled .npz to report by name"
    )
    parser.add_argument("--targets", type=_names, help=f"of {','.join(TARGETS)} (default: all)")
    parser.add_argument("--precision", type=_names, help=f"one or more of {','.join(PRECISIONS)} (default: int8)")
    parser.add_argument("--max-accuracy-drop", type=float, help="share that may be lost (default: 0.01)")
    parser.add_argument("--task", help="classification, binary, regression or detection, where the shapes cannot tell")
    parser.add_argument("--quantization", help="a quantization recipe by name, instead of the search over them")
    parser.add_argument("--search-seconds", type=float,
                        help="in each precision, until no more operators go back to float (default: 300)")  # fmt: skip
    parser.add_argument("--no-fallback", dest="fallback", action="store_false", default=None,
                        help="refuse what cannot hold the limit, instead of trying the next precision")  # fmt: skip
    parser.add_argument("--target-risk", type=float, help="share of trusted answers that may be wrong (default: 0.05)")
    parser.add_argument("--delta", type=float, help="the risk bound fails with at most this probability (default: 0.1)")
    parser.add_argument("--deferral-share", type=float, help="defer this share instead of bounding a risk")
    parser.add_argument("--profile", help="device whose budgets must hold: a name or a .toml file")
    parser.add_argument("--first-axis", help="name of the first axis, if its entries are not independent examples")
    parser.add_argument(
        "--signature", help="which signature of a SavedModel (default: serving_default, or the only one)"
    )
    parser.add_argument("--axis", action="append", default=[], metavar="NAME=SIZE",
                        help="give a dynamic axis of an ONNX model a size, as TFLite and Core ML need it")  # fmt: skip
    parser.add_argument("--trust-pickle", action="store_true", help="load a pickled source, which can run any code")
    parser.add_argument("--no-peak-memory", dest="peak_memory", action="store_false", default=None,
                        help="do not measure memory")  # fmt: skip
    parser.add_argument(
        "--mlflow", metavar="EXPERIMENT", help="log the run there, once the bundle is written; needs the package mlflow"
    )
    parser.add_argument("--out", help="folder to write, whole or not at all")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it holds anything")
    parser.add_argument("--json", action="store_true", help="print report.json instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0, 3 or 4, as `converters.cli` has them."""
    from converters.mlflow_log import check_mlflow
    from converters.pipeline import run as convert
    from converters.report import report_dict

    request = _request(arguments)
    if request.mlflow is not None:
        check_mlflow()
    with progress(quiet=arguments.json) as say:
        outcome = convert(request, say=say)
    shown = report_dict(outcome.report)
    if request.mlflow is not None:
        logged = _logged(outcome, request.mlflow)
        shown["mlflow"] = asdict(logged)
        if logged.error is not None:
            shown["warnings"] += [logged.error]
            warn(logged.error)
    if arguments.json:
        print(json.dumps(shown, indent=1))
    else:
        _show(outcome.report, outcome.out)
    return outcome.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What became of ``--mlflow``: the id of its ``run``, or an ``error``."""

    experiment: str
    run: str | None = None
    error: str | None = None


def _logged(outcome: Outcome, experiment: str) -> Logged:
    """The bundle is in its place already, so that a failure here is a warning: it must not look like no bundle."""
    from converters.mlflow_log import log_run

    try:
        return Logged(experiment=experiment, run=log_run(outcome, experiment))
    except ConversionFailed as error:
        return Logged(experiment=experiment, error=str(error))
    except KeyboardInterrupt:  # of a server that does not answer, most often
        return Logged(experiment=experiment, error=f"logging to MLflow was interrupted; {outcome.out} is complete")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _request(arguments: argparse.Namespace) -> Request:
    """The recipe, with what the command line says on top of it."""
    from converters.recipe_file import RecipeFile, read_recipe
    from converters.request import Description, Request
    from converters.stages.choosing import ConfidenceRule
    from edge_runtime.bundle import InvalidName, check_model, check_release

    recipe = RecipeFile(options={}, description=Description()) if arguments.recipe is None else read_recipe(
        arguments.recipe
    )  # fmt: skip
    options: dict[str, Any] = dict(recipe.options)
    for key in (*NEEDED, *OPTIONAL):
        given = getattr(arguments, key)
        if given is not None:
            options[key] = given
    missing = ["SOURCE" if key == "source" else f"--{key}" for key in NEEDED if key not in options]
    if missing:
        raise InvalidRequest(f"{', '.join(missing)} missing, on the command line and in a recipe")
    try:
        check_model(options["name"])
        check_release(options["release"])
    except InvalidName as error:  # which in a bundle is something else than wrong usage
        raise InvalidRequest(str(error)) from error
    rule = replace(ConfidenceRule(), **{key: options.pop(key) for key in RULE if key in options})
    if "precision" in options:
        options["precisions"] = options.pop("precision")
    options["out"] = Path(options["out"])
    return Request(
        **options,
        rule=rule,
        description=recipe.description,
        labels=recipe.labels,
        features=recipe.features,
        hybrid=recipe.hybrid,
        requirements=recipe.requirements,
        edge_cases={**(recipe.edge_cases or {}), **_edge_cases(arguments.edge_case)},
        axes={**(recipe.axes or {}), **axes_of(arguments.axis)},
        trust_pickle=arguments.trust_pickle,
        overwrite=arguments.overwrite,
    )


def _edge_cases(given: list[str]) -> Mapping[str, Path]:
    cases = {}
    for text in given:
        name, separator, file = text.partition("=")
        if not separator or not name or not file:
            raise InvalidRequest(f"--edge-case takes NAME=FILE, not {text!r}")
        cases[name] = Path(file)
    return cases


def axes_of(given: list[str]) -> Mapping[str, int]:
    """Sizes by axis name out of ``--axis NAME=SIZE``."""
    sizes = {}
    for text in given:
        name, _, size = text.rpartition("=")
        if not name or not size.isdecimal() or int(size) < 1:
            raise InvalidRequest(f"--axis takes NAME=SIZE with a size of 1 or more, not {text!r}")
        sizes[name] = int(size)
    return sizes


def _show(report: Report, out: Path) -> None:
    from converters.rows import cost_notes

    source = report.source
    print(
        f"{report.name} release {report.release}: {source.kind} source, {source.parameters:,} parameters, {report.task}"
    )
    rows = []
    for row in report.artifacts:
        share = None if row.bytes is None or not row.source_bytes else row.bytes / row.source_bytes
        rows.append(
            (
                f"{row.target} {row.precision}",
                row.status,
                number(row.bytes, ","),
                number(share, ".0%"),
                number(row.accuracy, ".4f"),
                number(row.source_accuracy, ".4f"),
                number(row.decision_agreement, ".4f"),
                number(row.p50_us, ".0f"),
            )
        )
    table(("artifact", "status", "bytes", "of fp32", report_metric(report), "source", "agreement", "p50 µs"), rows)
    for row in report.artifacts:
        if row.reason:
            print(f"{row.target} {row.asked}: {row.reason}")
        if row.status == "ok" and row.precision != "fp32":
            print(f"{row.target} {row.precision}, in float: {', '.join(row.float_operators) or 'nothing'}")
        for kept in row.kept_float:
            print(f"  {kept.unit} left in float: {kept.reason}")
        for note in cost_notes(row, report.artifacts):
            print(f"{row.target} {row.precision}: {note}")
    for text in report.absent:
        print(f"not in the bundle: {text}")
    for text in report.warnings:
        warn(text)
    if report.bundle is None:
        print(f"no bundle; the reasons are in {out / 'report.html'}")
    else:
        print(f"{out / report.bundle}  {report.bundle_bytes:,} bytes  sha256 {report.bundle_sha256}")


def report_metric(report: Report) -> str:
    """The heading over what accuracy means here."""
    return "R²" if any(row.metric == "r2" for row in report.artifacts) else "accuracy"
