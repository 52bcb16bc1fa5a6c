"""``edgeship-convert inspect``: what a bundle holds, for a person, after checking every digest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from converters.commands.console import number, table

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser("inspect", help="show what a bundle holds, after checking every digest")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--card", action="store_true", help="print the model card")
    parser.add_argument("--json", action="store_true", help="print the manifest")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns 0. Raises `BundleError` for a bundle that is not whole."""
    from edge_runtime.bundle import open_bundle, write_manifest
    from edge_runtime.errors import ArchiveError

    try:
        bundle = open_bundle(arguments.bundle)
    except ArchiveError as error:
        raise ArchiveError(f"{error}; give a whole bundle, the NAME-N.bundle that run wrote") from error
    manifest = bundle.manifest
    if arguments.json:
        text = json.loads(write_manifest(manifest))
        print(json.dumps({"sha256": bundle.sha256, "signed": bool(bundle.tuf), "manifest": text}, indent=1))
        return 0
    if arguments.card and manifest.card is not None:
        print(bundle.read(manifest.card.file).decode("utf-8"))
        return 0
    print(f"{manifest.model} release {manifest.release} ({manifest.version}), made {manifest.created}")
    print(f"owner {manifest.owner}, {manifest.contact}; {'signed' if bundle.tuf else 'unsigned'}")
    for what, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        for spec in specs:
            seen = "" if spec.range is None else f", range {spec.range[0]:g} to {spec.range[1]:g}"
            print(f"{what} {spec.name}: {spec.dtype} {' × '.join(str(size) for size in spec.shape)}{seen}")
    print(f"labels: {', '.join(manifest.labels) or 'none'}")
    rows = [
        (
            f"{artifact.target} {artifact.precision}",
            f"{artifact.bytes:,}",
            number(artifact.measured.accuracy, ".4f"),
            number(artifact.measured.source_accuracy, ".4f"),
            number(artifact.measured.decision_agreement, ".4f"),
            number(artifact.measured.latency_p50_us, ".0f"),
            "none"
            if artifact.confidence is None or not artifact.confidence.threshold
            else f"{artifact.confidence.threshold:.3f}",
        )
        for artifact in manifest.artifacts
    ]
    metric = "R²" if any(artifact.measured.metric == "r2" for artifact in manifest.artifacts) else "accuracy"
    table(("artifact", "bytes", metric, "source", "agreement", "p50 µs", "τ"), rows)
    for artifact in manifest.artifacts:
        kind = f"{artifact.target} {artifact.precision}"
        if artifact.precision != "fp32":
            print(f"{kind}, in float: {', '.join(artifact.float_operators) or 'nothing'}")
        for kept in artifact.kept_float:
            print(f"  {kept.unit} left in float: {kept.reason}")
    parts = sorted((*manifest.segments, *manifest.edge_cases), key=lambda part: part.accuracy)
    if parts:
        table(("segment or edge case, worst first", "rows", "accuracy"), [
            (part.name, f"{part.rows:,}", f"{part.accuracy:.4f}") for part in parts
        ])  # fmt: skip
    lineage = manifest.lineage
    print(f"data: {lineage.dataset}, sha256 {lineage.dataset_sha256[:16]}…"
          f"{f', {lineage.dvc}' if lineage.dvc else ''}")  # fmt: skip
    print("input guard: " + ("none" if manifest.guard is None else f"threshold {manifest.guard.threshold:.3f}"))
    print(f"sha256 {bundle.sha256}")
    return 0
