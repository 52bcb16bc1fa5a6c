"""Read a manifest from a stranger. FORMAT.md is normative; whatever it does not allow raises `ManifestError`.

Shape first, as the JSON Schema in docs/spec also states it; then what a schema cannot say, in `semantics`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import is_dataclass
from datetime import datetime
from functools import cache
from typing import TypeVar, cast, get_args, get_type_hints

from edge_runtime.bundle import limits
from edge_runtime.bundle.errors import UnsupportedFormat
from edge_runtime.bundle.grammars import (
    AXIS_NAME,
    CRITICAL,
    ENGINE_VERSION,
    OPERATOR,
    PACKAGE,
    SHA256,
    TENSOR_NAME,
    TIMESTAMP,
)
from edge_runtime.bundle.guard_reading import read_guard
from edge_runtime.bundle.manifest import (
    FORMAT_VERSION,
    Artifact,
    Confidence,
    Feature,
    FileRef,
    Golden,
    Hybrid,
    KeptFloat,
    Lineage,
    Manifest,
    Measurement,
    Metric,
    Precision,
    Preprocessing,
    Reduction,
    Reference,
    Requirements,
    Score,
    Segment,
    Target,
    Task,
    TensorSpec,
)
from edge_runtime.bundle.names import MAX_RELEASE, check_file, check_model
from edge_runtime.bundle.semantics import check_manifest, check_unique
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node, parse

__all__ = [
    "DTYPES",
    "METRICS",
    "SCORES",
    "TASKS",
    "check_format",
    "file_ref",
    "key_paths",
    "read_manifest",
    "sha256",
    "timestamp",
]

T = TypeVar("T")

DTYPES = ("float32", "float16", "int8", "uint8", "int32", "int64", "bool")
TARGETS = cast("tuple[Target, ...]", get_args(Target))
PRECISIONS = cast("tuple[Precision, ...]", get_args(Precision))
REDUCTIONS = cast("tuple[Reduction, ...]", get_args(Reduction))
SCORES = cast("tuple[Score, ...]", get_args(Score))
METRICS = cast("tuple[Metric, ...]", get_args(Metric))
TASKS = cast("tuple[Task, ...]", get_args(Task))


def read_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``, UTF-8 JSON of at most ``MAX_MANIFEST_BYTES``.

    Raises `UnsupportedFormat` for a newer format or an unknown critical key, else `ManifestError` with the key path
    of the first value that breaks FORMAT.md. Keys that this reader does not know are ignored.
    """
    node = parse(data, max_bytes=limits.MAX_MANIFEST_BYTES, what="the manifest")
    critical = check_format(node, _known_keys())
    manifest = Manifest(
        format=FORMAT_VERSION,
        critical=critical,
        model=node.get("model").name(check_model),
        release=node.get("release").integer(1, MAX_RELEASE),
        version=node.get("version").text(1, 64),
        created=timestamp(node.get("created")),
        owner=node.get("owner").text(1, 256),
        contact=node.get("contact").text(1, 256),
        inputs=tuple(_tensor(n) for n in node.get("inputs").items(1, limits.MAX_TENSORS)),
        outputs=tuple(_tensor(n) for n in node.get("outputs").items(1, limits.MAX_TENSORS)),
        labels=tuple(n.text(1, 128) for n in node.get("labels").items(0, limits.MAX_LABELS)),
        preprocessing=_preprocessing(node.get("preprocessing")),
        artifacts=tuple(_artifact(n) for n in node.get("artifacts").items(1, limits.MAX_ARTIFACTS)),
        requirements=_requirements(node.get("requirements")),
        hybrid=node.get("hybrid").optional(_hybrid),
        lineage=_lineage(node.get("lineage")),
        segments=_list(node.get("segments"), limits.MAX_SEGMENTS, _segment),
        card=node.get("card").optional(file_ref),
        task=node.get("task").optional(lambda n: cast("Task", n.choice(TASKS))),
        edge_cases=_list(node.get("edge_cases"), limits.MAX_SEGMENTS, _segment),
        guard=node.get("guard").optional(read_guard),
    )
    check_manifest(manifest)
    return manifest


def check_format(node: Node, known: frozenset[str]) -> tuple[str, ...]:
    """Refuse a newer format before anything else is looked at, then critical keys that are not in ``known``.

    Returns the critical keys.
    """
    version = node.get("format").integer(1, MAX_INTEGER)
    if version != FORMAT_VERSION:
        raise UnsupportedFormat(
            f"this is format {version}, this runtime reads {FORMAT_VERSION}: update the runtime", key_path="format"
        )
    critical = _texts(node.get("critical"), limits.MAX_CRITICAL, CRITICAL, "a key path")
    check_unique(critical, "critical")
    for i, name in enumerate(critical):
        if name not in known:
            raise UnsupportedFormat(
                f"{name!r} must be understood to use this document, and this runtime does not: update it",
                key_path=f"critical[{i}]",
            )
    return critical


def file_ref(node: Node) -> FileRef:
    return FileRef(file=_file(node), bytes=_bytes(node), sha256=sha256(node.get("sha256")))


def sha256(node: Node) -> str:
    return node.match(SHA256, "a sha256 in 64 lower-case hex digits")


def timestamp(node: Node) -> str:
    """An RFC 3339 time in UTC to the second, ``2026-11-22T23:00:00Z``, that exists in the calendar."""
    value = node.match(TIMESTAMP, "a time like 2026-11-22T23:00:00Z")
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise node.fail(f"{value!r} is not in the calendar") from error
    return value


@cache
def _known_keys() -> frozenset[str]:
    """Every key path of a manifest, list positions left out: what `critical` may name."""
    return key_paths(Manifest)


def key_paths(record: type) -> frozenset[str]:
    """The key paths of a dataclass's JSON form, as in ``artifacts.golden.tolerance``."""
    paths: set[str] = set()
    for key, hint in get_type_hints(record).items():
        paths.add(key)
        for inner in (hint, *get_args(hint)):
            if is_dataclass(inner) and isinstance(inner, type):
                paths.update(f"{key}.{path}" for path in key_paths(inner))
    return frozenset(paths)


def _file(node: Node) -> str:
    return node.get("file").name(check_file)


def _bytes(node: Node) -> int:
    return node.get("bytes").integer(1, limits.MAX_FILE_BYTES)


def _list(node: Node, high: int, read: Callable[[Node], T]) -> tuple[T, ...]:
    """A list that may be missing: then it is empty."""
    return () if node.is_null else tuple(read(n) for n in node.items(0, high))


def _texts(node: Node, high: int, pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
    return _list(node, high, lambda n: n.match(pattern, what))


def _tensor(node: Node) -> TensorSpec:
    return TensorSpec(
        name=node.get("name").match(TENSOR_NAME, "a tensor name (1 to 128 of A-Z a-z 0-9 _ . : / -)"),
        dtype=node.get("dtype").choice(DTYPES),
        shape=tuple(_axis(n) for n in node.get("shape").items(0, limits.MAX_AXES)),
        range=node.get("range").optional(_range),
        unit=node.get("unit").optional(lambda n: n.text(1, 64)),
    )


def _axis(node: Node) -> int | str:
    if isinstance(node.value, str):
        return node.match(AXIS_NAME, "an axis name (a letter or _, then up to 31 letters, digits or _)")
    return node.integer(1, MAX_INTEGER)


def _range(node: Node) -> tuple[float, float]:
    low, high = (n.number() for n in node.items(2, 2))
    if low > high:
        raise node.fail(f"the lowest value {low!r} is above the highest {high!r}")
    return low, high


def _preprocessing(node: Node) -> Preprocessing:
    return Preprocessing(
        in_graph=node.get("in_graph").text(0, 4096, newlines=True),
        caller=node.get("caller").text(0, 4096, newlines=True),
        examples=node.get("examples").optional(file_ref),
    )


def _artifact(node: Node) -> Artifact:
    return Artifact(
        target=cast("Target", node.get("target").choice(TARGETS)),
        precision=cast("Precision", node.get("precision").choice(PRECISIONS)),
        file=_file(node),
        bytes=_bytes(node),
        sha256=sha256(node.get("sha256")),
        operators=_texts(node.get("operators"), limits.MAX_OPERATORS, OPERATOR, "an operator"),
        float_operators=_list(node.get("float_operators"), limits.MAX_FLOAT_OPERATORS, lambda n: n.text(1, 256)),
        minimum_engine_version=node.get("minimum_engine_version").match(ENGINE_VERSION, "a version like 1.22.0"),
        peak_memory_bytes=node.get("peak_memory_bytes").optional(lambda n: n.integer(0, MAX_INTEGER)),
        measured=_measurement(node.get("measured")),
        confidence=node.get("confidence").optional(_confidence),
        reference=node.get("reference").optional(_reference),
        golden=_golden(node.get("golden")),
        kept_float=_list(node.get("kept_float"), limits.MAX_KEPT_FLOAT, _kept_float),
    )


def _kept_float(node: Node) -> KeptFloat:
    return KeptFloat(unit=node.get("unit").text(1, 256), reason=node.get("reason").text(1, 512))


def _measurement(node: Node) -> Measurement:
    return Measurement(
        accuracy=node.get("accuracy").optional(_metric_value),
        rows=node.get("rows").integer(0, MAX_INTEGER),
        latency_p50_us=node.get("latency_p50_us").optional(lambda n: n.number(0)),
        machine=node.get("machine").text(1, 256),
        evaluated_with=node.get("evaluated_with").text(1, 256),
        metric=node.get("metric").optional(lambda n: cast("Metric", n.choice(METRICS))),
        source_accuracy=node.get("source_accuracy").optional(_metric_value),
        decision_agreement=node.get("decision_agreement").optional(_share),
        max_abs_error=node.get("max_abs_error").optional(lambda n: n.number(0)),
        latency_aa_ratio=node.get("latency_aa_ratio").optional(lambda n: n.number(0)),
    )


def _confidence(node: Node) -> Confidence:
    return Confidence(
        score=cast("Score", node.get("score").choice(SCORES)),
        temperature=node.get("temperature").positive(limits.MAX_TEMPERATURE),
        threshold=_share(node.get("threshold")),
        target_risk=node.get("target_risk").optional(_share),
        calibration_sha256=sha256(node.get("calibration_sha256")),
        delta=node.get("delta").optional(_share),
        coverage=node.get("coverage").optional(_share),
        method=node.get("method").optional(lambda n: n.text(1, 512)),
    )


def _reference(node: Node) -> Reference:
    return Reference(
        features=tuple(_feature(n) for n in node.get("features").items(0, limits.MAX_FEATURES)),
        classes=tuple(_share(n) for n in node.get("classes").items(0, limits.MAX_CLASS_CELLS)),
        confidence=tuple(_share(n) for n in node.get("confidence").items(0, limits.CONFIDENCE_BINS)),
    )


def _feature(node: Node) -> Feature:
    edges, cells = limits.FEATURE_EDGES, limits.FEATURE_CELLS
    return Feature(
        name=node.get("name").text(1, 64),
        input=node.get("input").match(TENSOR_NAME, "a tensor name"),
        reduce=cast("Reduction", node.get("reduce").choice(REDUCTIONS)),
        index=node.get("index").integer(0, limits.MAX_TENSOR_ELEMENTS - 1),
        edges=tuple(n.number() for n in node.get("edges").items(edges, edges)),
        shares=tuple(_share(n) for n in node.get("shares").items(cells, cells)),
    )


def _golden(node: Node) -> Golden:
    return Golden(
        file=_file(node),
        bytes=_bytes(node),
        sha256=sha256(node.get("sha256")),
        tolerance=node.get("tolerance").number(0, limits.MAX_GOLDEN_TOLERANCE),
    )


def _requirements(node: Node) -> Requirements:
    ram = node.get("ram_bytes").optional(lambda n: n.integer(0, MAX_INTEGER))
    return Requirements(
        arch=_list(node.get("arch"), limits.MAX_REQUIREMENT_NAMES, lambda n: n.text(1, 64)),
        os=_list(node.get("os"), limits.MAX_REQUIREMENT_NAMES, lambda n: n.text(1, 64)),
        ram_bytes=ram or 0,
    )


def _hybrid(node: Node) -> Hybrid:
    return Hybrid(
        model=node.get("model").name(check_model),
        releases=tuple(n.integer(1, MAX_RELEASE) for n in node.get("releases").items(1, limits.MAX_HYBRID_RELEASES)),
        inputs=tuple(_tensor(n) for n in node.get("inputs").items(1, limits.MAX_TENSORS)),
    )


def _lineage(node: Node) -> Lineage:
    packages = node.get("packages")
    return Lineage(
        dataset=node.get("dataset").text(1, 256),
        dataset_sha256=sha256(node.get("dataset_sha256")),
        data_version=node.get("data_version").optional(lambda n: n.text(1, 256)),
        collected=node.get("collected").optional(lambda n: n.text(1, 256)),
        personal_data=node.get("personal_data").boolean(),
        consent_purpose=node.get("consent_purpose").optional(lambda n: n.text(1, 1024)),
        seeds=_list(node.get("seeds"), limits.MAX_SEEDS, lambda n: n.integer(0, MAX_INTEGER)),
        packages={} if packages.is_null else dict(_package(k, n) for k, n in packages.members(limits.MAX_PACKAGES)),
        dvc=node.get("dvc").optional(lambda n: n.text(1, 1024)),
        trained=node.get("trained").optional(lambda n: n.text(1, 256)),
    )


def _package(key: str, node: Node) -> tuple[str, str]:
    if not PACKAGE.fullmatch(key):
        raise node.fail("the key is not a package name")
    return key, node.text(1, 64)


def _segment(node: Node) -> Segment:
    return Segment(
        name=node.get("name").text(1, 128),
        rows=node.get("rows").integer(0, MAX_INTEGER),
        accuracy=_metric_value(node.get("accuracy")),
    )


def _share(node: Node) -> float:
    return node.number(0, 1)


def _metric_value(node: Node) -> float:
    """A share, or R²: of which kind it must be, `semantics` says."""
    return node.number(high=1)
