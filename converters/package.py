"""From artifacts to a release: manifest, golden examples, telemetry reference, model card, and the bundle."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from converters.artifact import ConvertedArtifact
from converters.card import model_card
from converters.confidence import confidence_of
from converters.data import Dataset, check_dataset
from converters.engines import open_engine
from converters.errors import CheckFailed, InvalidRequest, OutputExists
from converters.golden import make_golden
from converters.output import disk_errors
from converters.pipeline import Progress
from converters.reference import FeatureSpec, feature_references, reference_of
from converters.report import Report
from converters.sources.base import is_batched
from edge_runtime.bundle import (
    CARD_FILE,
    Artifact,
    Confidence,
    Feature,
    FileRef,
    Golden,
    Hybrid,
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
)

__all__ = ["Description", "Packaged", "bundle_name", "pack"]

REFERENCE_ROWS = 4096  # training rows that an artifact answers for its reference shares
GOLDEN_ROWS = 2048  # evaluation rows that golden examples are chosen from
PACKAGES = (
    "ai-edge-litert", "ai-edge-quantizer", "coremltools", "keras", "numpy", "onnx", "onnxruntime", "tensorflow",
    "tensorflow-cpu", "tf2onnx",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What only a person knows about a model. ``units`` and ``ranges`` are by input name; a range that is not given is
    what the training data shows, and an input without training rows in it has none."""

    owner: str
    contact: str
    version: str
    predicts: str
    dataset: str
    in_graph: str = ""
    caller: str = ""
    data_version: str | None = None
    collected: str | None = None
    personal_data: bool = True
    consent_purpose: str | None = None
    seeds: tuple[int, ...] = ()
    known_failures: tuple[str, ...] = ()
    retraining: str = ""
    units: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A written bundle: its path, size, sha256 in hex, and the manifest inside."""

    path: Path
    bytes: int
    sha256: str
    manifest: Manifest


def bundle_name(model: str, release: int) -> str:
    """``<model>-<release>.bundle``"""
    return f"{check_model(model)}-{check_release(release)}.bundle"


def pack(
    report: Report,
    *,
    model: str,
    release: int,
    labels: Sequence[str],
    description: Description,
    training: Dataset,
    evaluation: Dataset,
    created: datetime,
    out: Path | str,
    features: Sequence[FeatureSpec] = (),
    hybrid: Hybrid | None = None,
    segments: Mapping[str, np.ndarray] | None = None,
    requirements: Requirements | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Packaged:
    """Write ``<out>/<model>-<release>.bundle``, unsigned, whole or not at all.

    ``training`` gives ranges, feature edges and reference shares; ``evaluation`` the golden examples and the accuracy
    of ``segments`` (a mask or row numbers for each name). ``created`` is stated in the manifest, in UTC to the second.

    Raises `DataError`, `InvalidRequest`, `CheckFailed` (an artifact file that changed since it was converted; no row
    that can be a golden example), `OutputError`, and `BundleError` for names that the format does not allow.
    """
    path = Path(out) / bundle_name(model, release)
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists; a release never changes, so choose the next number")
    classes = _check_shapes(report, labels)
    training = check_dataset(training, report.inputs, classes=classes)
    evaluation = check_dataset(evaluation, report.inputs, classes=classes)
    feature_edges = feature_references(features, report.inputs, training.inputs)
    say = progress or (lambda text, done, total: None)
    with disk_errors(path), tempfile.TemporaryDirectory(prefix="edgeship-pack-") as name:
        folder = Path(name)
        artifacts: list[Artifact] = []
        decided: list[np.ndarray] = []
        for index, converted in enumerate(report.artifacts):
            say(f"{converted.kind}: golden examples and reference", index, len(report.artifacts) + 1)
            artifact, right = _packed_artifact(
                report, converted, folder, labels, feature_edges, training.take(REFERENCE_ROWS), evaluation
            )
            artifacts.append(artifact)
            decided.append(right)
        say("writing the bundle", len(report.artifacts), len(report.artifacts) + 1)
        manifest = Manifest(
            model=model,
            release=release,
            version=description.version,
            created=created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            owner=description.owner,
            contact=description.contact,
            inputs=tuple(_described(spec, description, training) for spec in report.inputs),
            outputs=report.outputs,
            labels=tuple(labels),
            preprocessing=Preprocessing(in_graph=description.in_graph, caller=description.caller),
            artifacts=tuple(artifacts),
            requirements=requirements or Requirements(),
            hybrid=hybrid,
            lineage=_lineage(description, training),
            segments=_segments(segments or {}, evaluation, decided),
        )
        card = model_card(
            manifest,
            predicts=description.predicts,
            known_failures=description.known_failures,
            retraining=description.retraining,
            source=report.source,
            parameters=report.parameters,
        ).encode()
        manifest = replace(manifest, card=_write(folder, CARD_FILE, card))
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = pack_release(folder, manifest, path)
    return Packaged(path=path, bytes=path.stat().st_size, sha256=digest, manifest=manifest)


def _check_shapes(report: Report, labels: Sequence[str]) -> int:
    if not is_batched((*report.inputs, *report.outputs)):
        raise InvalidRequest("only models whose first axis is `batch` can be packed; serve others from the cloud")
    if not report.artifacts:
        raise InvalidRequest("no artifacts to pack")
    shape = report.outputs[0].shape
    if len(shape) != 2 or shape[1] != len(labels):
        raise InvalidRequest(f"the first output has shape {shape}; it needs one logit for each of {len(labels)} labels")
    return len(labels)


def _packed_artifact(
    report: Report,
    converted: ConvertedArtifact,
    folder: Path,
    labels: Sequence[str],
    features: tuple[Feature, ...],
    training: Dataset,
    evaluation: Dataset,
) -> tuple[Artifact, np.ndarray]:
    """The artifact as the manifest describes it, its files in ``folder``, and which evaluation rows it gets right."""
    data = converted.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != converted.sha256:
        raise CheckFailed(f"{converted.path} changed since it was converted and measured; convert again")
    file = _write(folder, converted.path.name, data)
    first = report.outputs[0].name
    engine = open_engine(converted.target, data, report.inputs, report.outputs)
    golden = make_golden(converted, data, report.inputs, report.outputs, evaluation.take(GOLDEN_ROWS))
    golden_ref = _write(folder, golden_file(file.file), golden.data)
    logits = engine.run(training.inputs)[first]
    usable = np.isfinite(logits).all(axis=1)
    if not usable.any():
        raise CheckFailed(f"{converted.kind}: no finite output for any training row")
    right = np.zeros(0, bool)
    if evaluation.labels is not None:
        right = engine.run(evaluation.inputs)[first].argmax(axis=1) == evaluation.labels
    artifact = Artifact(
        target=converted.target,  # type: ignore[arg-type]
        precision=converted.precision,  # type: ignore[arg-type]
        file=file.file,
        bytes=file.bytes,
        sha256=file.sha256,
        operators=converted.operators,
        float_operators=converted.float_operators,
        minimum_engine_version=converted.minimum_engine_version,
        peak_memory_bytes=None,
        measured=Measurement(
            accuracy=converted.accuracy,
            rows=converted.rows,
            latency_p50_us=None if converted.p50_us is None else round(converted.p50_us, 2),
            machine=converted.machine,
            evaluated_with=converted.evaluated_with,
        ),
        confidence=_confidence(converted),
        reference=reference_of(
            features, labels, logits[usable], confidence_of(logits[usable], converted.temperature or 1.0)
        ),
        golden=Golden(
            file=golden_ref.file, bytes=golden_ref.bytes, sha256=golden_ref.sha256, tolerance=golden.tolerance
        ),
    )
    return artifact, right


def _confidence(converted: ConvertedArtifact) -> Confidence | None:
    if converted.temperature is None or converted.threshold is None or converted.confidence_sha256 is None:
        return None
    return Confidence(
        score="msp",
        temperature=converted.temperature,
        threshold=converted.threshold,
        target_risk=None,
        calibration_sha256=converted.confidence_sha256,
    )


def _described(spec: TensorSpec, description: Description, training: Dataset) -> TensorSpec:
    values = training.inputs[spec.name]
    seen = (float(values.min()), float(values.max())) if values.size and values.dtype.kind in "fiu" else None
    return replace(spec, range=description.ranges.get(spec.name, seen), unit=description.units.get(spec.name))


def _segments(
    segments: Mapping[str, np.ndarray], evaluation: Dataset, decided: Sequence[np.ndarray]
) -> tuple[Segment, ...]:
    if segments and evaluation.labels is None:
        raise InvalidRequest("segments need labelled evaluation rows")
    result = []
    for name, chosen in segments.items():
        rows = [right[chosen] for right in decided]
        if not rows[0].size:
            raise InvalidRequest(f"segment {name} has no evaluation row")
        lowest = min(float(right.mean()) for right in rows)
        result.append(Segment(name=name, rows=int(rows[0].size), accuracy=round(lowest, 6)))
    return tuple(result)


def _lineage(description: Description, training: Dataset) -> Lineage:
    return Lineage(
        dataset=description.dataset,
        dataset_sha256=training.sha256,
        data_version=description.data_version,
        collected=description.collected,
        personal_data=description.personal_data,
        consent_purpose=description.consent_purpose,
        seeds=description.seeds,
        packages=_installed(),
    )


def _installed() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue  # tensorflow goes by one of two names
    return versions


def _write(folder: Path, name: str, data: bytes) -> FileRef:
    (folder / name).write_bytes(data)
    return FileRef(file=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
