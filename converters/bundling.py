"""From measured artifacts to the bundle: manifest, golden examples, telemetry reference, guard, lineage, model card."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from converters.card import ReferenceRows, model_card
from converters.data import Dataset
from converters.errors import InvalidRequest
from converters.guard import fit_guard
from converters.installed import versions_used
from converters.lineage import dvc_of
from converters.report import Row
from converters.request import Data, Request
from converters.stages import describe, measure
from converters.stages.files import read_data
from converters.targets import FILE_SUFFIX
from converters.task import TaskKind
from edge_runtime.bundle import (
    CARD_FILE,
    Artifact,
    Confidence,
    FileRef,
    Golden,
    Guard,
    Lineage,
    Manifest,
    Measurement,
    Preprocessing,
    Requirements,
    Segment,
    TensorSpec,
    check_model,
    check_release,
    golden_file,
    pack_release,
    write_manifest,
)
from edge_runtime.bundle.manifest import Task as ManifestTask

__all__ = ["Bundled", "artifact_name", "bundle_name", "refuse_unwritable", "write_bundle"]

DIGITS = 6  # decimals of a share in the manifest
TASKS: Mapping[TaskKind, ManifestTask] = {"classification": "classification", "regression": "regression"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """A written bundle: its path, size, sha256 in hex, and the manifest inside. ``absent``: what it lacks, and why."""

    path: Path
    bytes: int
    sha256: str
    manifest: Manifest
    absent: tuple[str, ...]


def bundle_name(model: str, release: int) -> str:
    """``<model>-<release>.bundle``"""
    return f"{check_model(model)}-{check_release(release)}.bundle"


def artifact_name(model: str, row: Row) -> str:
    """``<model>-<precision><suffix of the target>``"""
    return f"{model}-{row.precision}{FILE_SUFFIX[row.target]}"


def refuse_unwritable(request: Request, described: describe.Result, labels: tuple[str, ...]) -> None:
    """Say now, and not after all the work, that a manifest cannot hold what a person wrote or the model calls its
    tensors: too long, twice the same, a line break. Raises `ManifestError` with the key, `InvalidRequest` for units and
    ranges of no input, `DataUnreadable` for a damaged ``.dvc`` file."""
    description = request.description
    unknown = {*description.units, *description.ranges} - {spec.name for spec in described.info.inputs}
    if unknown:
        raise InvalidRequest(f"units or ranges of {', '.join(sorted(unknown))}, which is no input of the model")
    nothing = "0" * 64
    named = replace(
        _manifest(request, described, labels, _lineage(request, nothing, {}), "2000-01-01T00:00:00Z"),
        inputs=tuple(_described(spec, request, None) for spec in described.info.inputs),
        artifacts=(
            Artifact(
                target="onnx", precision="fp32", file="model.onnx", bytes=1, sha256=nothing, operators=(),
                float_operators=(), minimum_engine_version="1.0", peak_memory_bytes=None, confidence=None,
                reference=None, golden=Golden(file="golden.npz", bytes=1, sha256=nothing, tolerance=0.1),
                measured=Measurement(accuracy=None, rows=0, latency_p50_us=None, machine="-", evaluated_with="-"),
            ),
        ),
        edge_cases=tuple(Segment(name=name, rows=1, accuracy=0.0) for name in request.edge_cases),
    )  # fmt: skip
    write_manifest(named)


def write_bundle(
    request: Request,
    described: describe.Result,
    rows: Mapping[str, Row],
    measured: Mapping[str, measure.Result],
    *,
    labels: tuple[str, ...],
    work: Path,
    created: datetime,
    folder: Path,
) -> Bundled:
    """Write ``<name>-<release>.bundle``, unsigned, and ``card.md`` into ``folder``. ``rows`` are the artifacts in it.

    ``created`` is stated in the manifest, in UTC to the second. The same inputs give the same bytes.
    """
    tree = work / "tree"
    tree.mkdir()
    training = read_data(work, _reference_split(described))
    assert training is not None
    guard, why_no_guard = _guard(described, training)
    results = {kind: measured[kind] for kind in rows}
    manifest = replace(
        _manifest(
            request,
            described,
            labels,
            _lineage(
                request,
                described.splits[_reference_split(described)].sha256,
                versions_used(described.info.kind, tuple(rows.values())),
            ),
            created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ),
        inputs=tuple(_described(spec, request, training) for spec in described.info.inputs),
        artifacts=tuple(
            _artifact(request, row, results[kind], described, training, tree) for kind, row in rows.items()
        ),
        segments=_lowest([each.segments for each in results.values()]),
        edge_cases=_lowest([each.edge_cases for each in results.values()]),
        guard=guard,
    )
    split = _reference_split(described)
    card = model_card(
        manifest,
        request.description,
        source=described.info,
        task=described.task,
        rows=tuple(rows.values()),
        reference=ReferenceRows(split=split, name=_name_of(_reference_data(request))),
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    manifest = replace(manifest, card=_file(tree, CARD_FILE, card.encode()))
    path = folder / bundle_name(request.name, request.release)
    digest = pack_release(tree, manifest, path)
    shutil.rmtree(tree, ignore_errors=True)
    absent = () if guard is not None else (f"input guard: {why_no_guard}",)
    return Bundled(path=path, bytes=path.stat().st_size, sha256=digest, manifest=manifest, absent=absent)


def _manifest(
    request: Request, described: describe.Result, labels: tuple[str, ...], lineage: Lineage, created: str
) -> Manifest:
    """What is known before anything is converted."""
    description = request.description
    return Manifest(
        model=request.name,
        release=request.release,
        version=description.version or str(request.release),
        created=created,
        owner=description.owner,
        contact=description.contact,
        inputs=described.info.inputs,
        outputs=described.info.outputs,
        labels=labels,
        task=TASKS.get(described.task.kind, "other"),
        preprocessing=Preprocessing(in_graph=description.in_graph, caller=description.caller),
        artifacts=(),
        requirements=request.requirements or Requirements(),
        hybrid=request.hybrid,
        lineage=lineage,
    )


def _guard(described: describe.Result, training: Dataset) -> tuple[Guard | None, str]:
    fitted = fit_guard(training.inputs, described.info.inputs, groups=training.groups, data_sha256=training.sha256)
    return (fitted, "") if isinstance(fitted, Guard) else (None, str(fitted))


def _artifact(
    request: Request,
    row: Row,
    measured: measure.Result,
    described: describe.Result,
    training: Dataset,
    tree: Path,
) -> Artifact:
    assert row.file is not None
    file = _file(tree, artifact_name(request.name, row), Path(row.file).read_bytes())
    if file.sha256 != row.sha256:
        raise InvalidRequest(f"{row.kind} changed on disk since it was measured; run again")
    golden = _file(tree, golden_file(file.file), Path(measured.golden).read_bytes())
    return Artifact(
        target=row.target,
        precision=row.precision,
        file=file.file,
        bytes=file.bytes,
        sha256=file.sha256,
        operators=row.operators,
        float_operators=row.float_operators,
        minimum_engine_version=row.minimum_engine_version or "",
        peak_memory_bytes=row.peak_memory_bytes,
        measured=Measurement(
            accuracy=_rounded(row.accuracy),
            rows=measured.rows,
            latency_p50_us=None if row.p50_us is None else round(row.p50_us, 2),
            machine=measured.machine,
            evaluated_with=measured.evaluated_with,
            metric=row.metric,
            source_accuracy=_rounded(row.source_accuracy),
            decision_agreement=_rounded(measured.agreement),
            max_abs_error=float(f"{measured.max_abs_error:.6g}"),
            latency_aa_ratio=None if row.p50_aa_ratio is None else round(row.p50_aa_ratio, 3),
        ),
        confidence=_confidence(measured, described, training),
        reference=measured.reference,
        golden=Golden(file=golden.file, bytes=golden.bytes, sha256=golden.sha256, tolerance=measured.golden_tolerance),
        kept_float=row.kept_float,
    )


def _uncalibrated(described: describe.Result, training: Dataset) -> Confidence | None:
    """Says that the outputs are probabilities, so that no device takes a softmax of them; every answer is trusted."""
    if described.task.kind != "classification":
        return None
    return Confidence(
        score="probability",
        temperature=1.0,
        threshold=0.0,
        target_risk=None,
        calibration_sha256=training.sha256,
        method="not calibrated: too few labelled rows for it, or none",
    )


def _confidence(measured: measure.Result, described: describe.Result, training: Dataset) -> Confidence | None:
    chosen = measured.confidence
    if chosen is None:
        return _uncalibrated(described, training) if described.task.probabilities else None
    return Confidence(
        score=chosen.score,
        temperature=chosen.temperature,
        threshold=chosen.threshold,
        target_risk=chosen.target_risk,
        calibration_sha256=chosen.sha256,
        delta=chosen.delta,
        coverage=_rounded(chosen.coverage),
        method=chosen.method,
    )


def _described(spec: TensorSpec, request: Request, training: Dataset | None) -> TensorSpec:
    values = np.empty(0) if training is None else training.inputs[spec.name]
    seen = (float(values.min()), float(values.max())) if values.size and values.dtype.kind in "fiu" else None
    description = request.description
    return replace(spec, range=description.ranges.get(spec.name, seen), unit=description.units.get(spec.name))


def _lowest(parts: list[tuple[measure.Part, ...]]) -> tuple[Segment, ...]:
    """Each part with the lowest accuracy of any artifact."""
    lowest: dict[str, measure.Part] = {}
    for part in (part for each in parts for part in each):
        if part.name not in lowest or part.accuracy < lowest[part.name].accuracy:
            lowest[part.name] = part
    return tuple(
        Segment(name=part.name, rows=part.rows, accuracy=round(part.accuracy, DIGITS)) for part in lowest.values()
    )


def _reference_split(described: describe.Result) -> str:
    """Which split's rows stand for the training data."""
    return next(name for name in ("training", "calibration", "evaluation") if name in described.splits)


def _reference_data(request: Request) -> Data:
    """What was given as that split."""
    return request.training or request.calibration or request.evaluation


def _name_of(given: Data) -> str:
    return Path(given).name if isinstance(given, str | Path) else given.name


def _lineage(request: Request, data_sha256: str, packages: dict[str, str]) -> Lineage:
    description = request.description
    given = _reference_data(request)
    source = request.source if isinstance(request.source, str | Path) else None
    return Lineage(
        dataset=description.dataset or _name_of(given),
        dataset_sha256=data_sha256,
        data_version=description.data_version,
        collected=description.collected,
        personal_data=description.personal_data is not False,
        consent_purpose=description.consent_purpose,
        seeds=description.seeds,
        packages=packages,
        dvc=dvc_of([Path(each) for each in (given, source) if isinstance(each, str | Path)]),
        trained=description.trained,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(value, DIGITS)


def _file(tree: Path, name: str, data: bytes) -> FileRef:
    (tree / name).write_bytes(data)
    return FileRef(file=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
