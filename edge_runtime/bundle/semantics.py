"""The rules of a manifest that no schema can state: sums, order, uniqueness, and names that must refer to something."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from edge_runtime.bundle import limits
from edge_runtime.bundle.errors import ManifestError
from edge_runtime.bundle.guard import Guard, GuardPart
from edge_runtime.bundle.manifest import (
    Artifact,
    Feature,
    FileRef,
    Hybrid,
    Manifest,
    Measurement,
    Reference,
    TensorSpec,
)
from edge_runtime.bundle.names import MANIFEST_FILE, POLICY_FILE, RELEASE_FILE

__all__ = ["check_manifest", "check_unique", "class_cells", "manifest_files"]


def class_cells(labels: Sequence[str]) -> int:
    """Cells of a class histogram: one a label; above 32 labels the last of 32 cells counts all the others."""
    return min(len(labels), limits.MAX_CLASS_CELLS)


def manifest_files(manifest: Manifest) -> tuple[tuple[str, FileRef], ...]:
    """Every file that a manifest refers to, with the key path of the reference; `manifest.json` is not among them."""
    return tuple(_files(manifest))


def check_manifest(manifest: Manifest) -> None:
    """Raise `ManifestError` with a key path unless every rule of FORMAT.md holds that is not about one value alone."""
    for key, tensors in (("inputs", manifest.inputs), ("outputs", manifest.outputs)):
        _check_tensors(tensors, key)
    check_unique(manifest.labels, "labels")
    _check_task(manifest)
    for key, segments in (("segments", manifest.segments), ("edge_cases", manifest.edge_cases)):
        check_unique((s.name for s in segments), key, "name")
        for i, segment in enumerate(segments):
            _check_metric_value(segment.accuracy, manifest.effective_task == "regression", f"{key}[{i}].accuracy")
    check_unique(manifest.requirements.arch, "requirements.arch")
    check_unique(manifest.requirements.os, "requirements.os")
    _check_file_names(manifest)
    kinds: set[tuple[str, str]] = set()
    for i, artifact in enumerate(manifest.artifacts):
        path = f"artifacts[{i}]"
        kind = (artifact.target, artifact.precision)
        if kind in kinds:
            raise ManifestError(f"a second artifact for {artifact.target} {artifact.precision}", key_path=path)
        kinds.add(kind)
        _check_artifact(artifact, manifest, path)
    if manifest.hybrid is not None:
        _check_hybrid(manifest.hybrid, manifest.inputs)
    if manifest.guard is not None:
        _check_guard(manifest.guard, manifest.inputs)


def check_unique(values: Iterable[object], path: str, member: str = "") -> None:
    """Raise `ManifestError` at the second appearance of a value."""
    seen: set[object] = set()
    for i, value in enumerate(values):
        if value in seen:
            where = f"{path}[{i}].{member}" if member else f"{path}[{i}]"
            raise ManifestError(f"{value!a} appears twice", key_path=where)
        seen.add(value)


def _files(manifest: Manifest) -> Iterator[tuple[str, FileRef]]:
    for i, artifact in enumerate(manifest.artifacts):
        yield f"artifacts[{i}]", FileRef(file=artifact.file, bytes=artifact.bytes, sha256=artifact.sha256)
        golden = artifact.golden
        yield f"artifacts[{i}].golden", FileRef(file=golden.file, bytes=golden.bytes, sha256=golden.sha256)
    if manifest.preprocessing.examples is not None:
        yield "preprocessing.examples", manifest.preprocessing.examples
    if manifest.card is not None:
        yield "card", manifest.card


def _check_file_names(manifest: Manifest) -> None:
    seen = {MANIFEST_FILE, RELEASE_FILE, POLICY_FILE}
    for path, ref in _files(manifest):
        folded = ref.file.lower()  # names are ASCII, so this is what a case-insensitive file system compares
        if folded in seen:
            raise ManifestError(
                f"{ref.file!r} is reserved or, but for case, another file's name", key_path=f"{path}.file"
            )
        seen.add(folded)


def _check_tensors(tensors: Sequence[TensorSpec], key: str) -> None:
    check_unique((t.name for t in tensors), key, "name")
    for i, tensor in enumerate(tensors):
        path = f"{key}[{i}].shape"
        if "batch" in tensor.shape[1:]:
            raise ManifestError("only the first axis may be named batch", key_path=path)
        if math.prod(axis for axis in tensor.shape if isinstance(axis, int)) > limits.MAX_TENSOR_ELEMENTS:
            raise ManifestError(f"more than {limits.MAX_TENSOR_ELEMENTS} elements", key_path=path)


def _check_task(manifest: Manifest) -> None:
    if manifest.task == "classification" and not manifest.labels:
        raise ManifestError("classification needs labels", key_path="task")
    if manifest.task == "regression" and manifest.labels:
        raise ManifestError("regression has no labels", key_path="task")


def _check_metric_value(value: float | None, r2: bool, path: str) -> None:
    if value is not None and value < 0 and not r2:
        raise ManifestError(f"must be from 0 to 1, not {value!r}: only R² may be below 0", key_path=path)


def _check_measurement(measured: Measurement, manifest: Manifest, path: str) -> None:
    r2 = measured.metric == "r2"
    if r2 and manifest.effective_task != "regression":
        raise ManifestError("r2 needs the task regression", key_path=f"{path}.metric")
    _check_metric_value(measured.accuracy, r2, f"{path}.accuracy")
    _check_metric_value(measured.source_accuracy, r2, f"{path}.source_accuracy")


def _check_artifact(artifact: Artifact, manifest: Manifest, path: str) -> None:
    check_unique(artifact.operators, f"{path}.operators")
    check_unique(artifact.float_operators, f"{path}.float_operators")
    check_unique((kept.unit for kept in artifact.kept_float), f"{path}.kept_float", "unit")
    _check_measurement(artifact.measured, manifest, f"{path}.measured")
    if artifact.confidence is not None:
        scores = manifest.outputs[0]
        if not manifest.labels:
            raise ManifestError("needs labels: it is a softmax over them", key_path=f"{path}.confidence")
        if not scores.dtype.startswith("float"):
            raise ManifestError("needs a first output of float scores", key_path=f"{path}.confidence")
        axes = _example_axes(scores)
        if math.prod(axis if isinstance(axis, int) else 0 for axis in axes) != len(manifest.labels):
            raise ManifestError(
                f"needs a first output of one score a label ({len(manifest.labels)}), not of shape {list(axes)}",
                key_path=f"{path}.confidence",
            )
    if artifact.reference is not None:
        _check_reference(artifact.reference, manifest, f"{path}.reference")


def _check_reference(reference: Reference, manifest: Manifest, path: str) -> None:
    check_unique((f.name for f in reference.features), f"{path}.features", "name")
    inputs = {tensor.name: tensor for tensor in manifest.inputs}
    for i, feature in enumerate(reference.features):
        _check_feature(feature, inputs.get(feature.input), f"{path}.features[{i}]")
    cells = class_cells(manifest.labels)
    if len(reference.classes) != cells:
        raise ManifestError(
            f"must have {cells} shares for {len(manifest.labels)} labels, not {len(reference.classes)}",
            key_path=f"{path}.classes",
        )
    bins = limits.CONFIDENCE_BINS if manifest.labels else 0
    if len(reference.confidence) != bins:
        raise ManifestError(f"must have {bins} shares, not {len(reference.confidence)}", key_path=f"{path}.confidence")
    if manifest.labels:
        _check_sum(reference.classes, f"{path}.classes")
        _check_sum(reference.confidence, f"{path}.confidence")


def _check_feature(feature: Feature, tensor: TensorSpec | None, path: str) -> None:
    if tensor is None:
        raise ManifestError(f"{feature.input!r} is not one of the inputs", key_path=f"{path}.input")
    axes = _example_axes(tensor)
    last = axes[-1] if axes else 1
    if not isinstance(last, int):
        raise ManifestError(f"the last axis of {feature.input!r} has no fixed size", key_path=f"{path}.input")
    if feature.index >= last:
        raise ManifestError(f"the last axis of {feature.input!r} has {last} elements", key_path=f"{path}.index")
    if feature.reduce == "value" and any(axis != 1 for axis in axes[:-1]):
        raise ManifestError(
            f"'value' takes a single element, but {feature.input!r} has more of them at an index of its last axis",
            key_path=f"{path}.reduce",
        )
    for i, (low, high) in enumerate(zip(feature.edges, feature.edges[1:], strict=False)):
        if low >= high:
            raise ManifestError("edges must ascend, no two equal", key_path=f"{path}.edges[{i + 1}]")
    _check_sum(feature.shares, f"{path}.shares")


def _example_axes(tensor: TensorSpec) -> tuple[int | str, ...]:
    """The axes of one example."""
    return tensor.shape[1:] if tensor.shape[:1] == ("batch",) else tensor.shape


def _check_sum(shares: Sequence[float], path: str) -> None:
    total = math.fsum(shares)
    if abs(total - 1) > limits.SHARE_SUM_TOLERANCE:
        raise ManifestError(f"shares must sum to 1, not {total:.6g}", key_path=path)


def _check_hybrid(hybrid: Hybrid, inputs: Sequence[TensorSpec]) -> None:
    check_unique(hybrid.releases, "hybrid.releases")
    _check_tensors(hybrid.inputs, "hybrid.inputs")
    local = {tensor.name: tensor for tensor in inputs}
    for i, tensor in enumerate(hybrid.inputs):
        same = local.get(tensor.name)
        if same is not None and (same.dtype, same.shape) != (tensor.dtype, tensor.shape):
            raise ManifestError(
                f"the model's own input {tensor.name!r} has another dtype or shape; callers pass both under one name",
                key_path=f"hybrid.inputs[{i}]",
            )


def _check_guard(guard: Guard, inputs: Sequence[TensorSpec]) -> None:
    tensors = {tensor.name: tensor for tensor in inputs}
    total = 0
    for i, part in enumerate(guard.parts):
        path = f"guard.parts[{i}]"
        check_unique(part.reduce, f"{path}.reduce")
        tensor = tensors.get(part.input)
        if tensor is None:
            raise ManifestError(f"{part.input!r} is not one of the inputs", key_path=f"{path}.input")
        total += _guard_summaries(part, _example_axes(tensor), path)
    rows = [("center", guard.center), ("scale", guard.scale)]
    rows += [(f"directions[{i}]", direction) for i, direction in enumerate(guard.directions)]
    for key, row in rows:
        if len(row) != total:
            raise ManifestError(f"the parts make {total} summaries, this has {len(row)}", key_path=f"guard.{key}")
    if len(guard.variances) != len(guard.directions):
        raise ManifestError(
            f"must have one variance a direction, {len(guard.directions)}, not {len(guard.variances)}",
            key_path="guard.variances",
        )


def _guard_summaries(part: GuardPart, axes: Sequence[int | str], path: str) -> int:
    """How many summaries a part makes of an example with these axes."""
    if "value" in part.reduce:
        if len(part.reduce) > 1 or part.axis is not None:
            raise ManifestError("'value' stands alone and has no axis", key_path=f"{path}.reduce")
        sizes = [axis for axis in axes if isinstance(axis, int)]
        if len(sizes) != len(axes):
            raise ManifestError(f"'value' needs fixed axes, which {part.input!r} has not", key_path=f"{path}.reduce")
        return -(-math.prod(sizes) // part.stride)
    if part.axis is None:
        return len(part.reduce)
    if part.axis >= len(axes):
        raise ManifestError(f"{part.input!r} has {len(axes)} axes", key_path=f"{path}.axis")
    size = axes[part.axis]
    if not isinstance(size, int):
        raise ManifestError(f"axis {part.axis} of {part.input!r} has no fixed size", key_path=f"{path}.axis")
    return size * len(part.reduce)
