"""Hypothesis strategies: manifests that keep every rule of FORMAT.md."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from edge_runtime.bundle import (
    Artifact,
    Confidence,
    Feature,
    FileRef,
    Golden,
    Guard,
    GuardPart,
    Hybrid,
    KeptFloat,
    Lineage,
    Manifest,
    Measurement,
    Preprocessing,
    Requirements,
    Segment,
    TensorSpec,
    class_cells,
)
from edge_runtime.bundle.guard_reading import GUARD_REDUCTIONS
from edge_runtime.bundle.manifest import Reference
from edge_runtime.bundle.reading import DTYPES, PRECISIONS, REDUCTIONS, SCORES, TARGETS
from tests.support.bundles import sha256

MAX_INTEGER = 2**53 - 1
_FORBIDDEN = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]))
_DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
shares = st.floats(0, 1)
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, MAX_INTEGER)
models = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?", fullmatch=True).filter(lambda n: n not in _DEVICES)
releases = st.integers(1, 2**31 - 1)
tensor_names = st.text(string.ascii_letters + string.digits + "_.:/-", min_size=1, max_size=12)
operators = st.lists(tensor_names, max_size=3, unique=True).map(tuple)


def text(low: int = 1, high: int = 12) -> st.SearchStrategy[str]:
    alphabet = st.characters(exclude_categories=["Cs"], exclude_characters=_FORBIDDEN)
    return st.text(alphabet, min_size=low, max_size=high)


def texts(high: int = 3) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(text(), max_size=high, unique=True).map(tuple)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def file_names(draw: st.DrawFn) -> str:
    first = draw(st.sampled_from(string.ascii_letters + string.digits + "_"))
    name = first + draw(st.text(string.ascii_letters + string.digits + "._-", max_size=20))
    name = name.rstrip(".")
    return name + "_" if name.partition(".")[0].lower() in _DEVICES else name


@st.composite
def histograms(draw: st.DrawFn, cells: int) -> tuple[float, ...]:
    weights = draw(st.lists(st.integers(0, 1000), min_size=cells, max_size=cells).filter(any))
    return tuple(weight / sum(weights) for weight in weights)


@st.composite
def tensors(draw: st.DrawFn, name: str) -> TensorSpec:
    sizes = st.integers(1, 20) | st.sampled_from(["time", "x_1", "_"])
    shape = draw(st.lists(sizes, max_size=4))
    if draw(st.booleans()):
        shape = ["batch", *shape]
    low, high = sorted([draw(finite), draw(finite)])
    return TensorSpec(
        name=name,
        dtype=draw(st.sampled_from(DTYPES)),
        shape=tuple(shape),
        range=draw(st.sampled_from([None, (low, high)])),
        unit=draw(optional(text())),
    )


def tensor_lists(low: int = 1) -> st.SearchStrategy[tuple[TensorSpec, ...]]:
    names = st.lists(tensor_names, min_size=low, max_size=3, unique=True)
    return names.flatmap(lambda ns: st.tuples(*(tensors(n) for n in ns)))


@st.composite
def features(draw: st.DrawFn, name: str, inputs: tuple[TensorSpec, ...]) -> Feature:
    tensor = draw(st.sampled_from(inputs))
    axes = tensor.shape[1:] if tensor.shape[:1] == ("batch",) else tensor.shape
    last = axes[-1] if axes else 1
    assert isinstance(last, int)
    reductions = [r for r in REDUCTIONS if r != "value" or all(axis == 1 for axis in axes[:-1])]
    edges = draw(st.lists(finite, min_size=17, max_size=17, unique=True).map(sorted))
    return Feature(
        name=name,
        input=tensor.name,
        reduce=draw(st.sampled_from(reductions)),
        index=draw(st.integers(0, last - 1)),
        edges=tuple(edges),
        shares=draw(histograms(19)),
    )


@st.composite
def references(draw: st.DrawFn, inputs: tuple[TensorSpec, ...], labels: tuple[str, ...]) -> Reference:
    sized = tuple(t for t in inputs if t.shape in ((), ("batch",)) or isinstance(t.shape[-1], int))
    names = draw(st.lists(text(), max_size=3, unique=True)) if sized else []
    return Reference(
        features=tuple(draw(features(name, sized)) for name in names),
        classes=draw(histograms(class_cells(labels))) if labels else (),
        confidence=draw(histograms(20)) if labels else (),
    )


confidences = st.builds(
    Confidence,
    score=st.sampled_from(SCORES),
    temperature=st.floats(0, 1000, exclude_min=True),
    threshold=shares,
    target_risk=optional(shares),
    calibration_sha256=digests,
    delta=optional(shares),
    coverage=optional(shares),
    method=optional(text()),
)
positive = st.floats(0, allow_nan=False, allow_infinity=False)
measurements = st.builds(
    Measurement,
    accuracy=optional(shares),
    rows=counts,
    latency_p50_us=optional(positive),
    machine=text(),
    evaluated_with=text(),
    metric=st.sampled_from([None, "accuracy"]),
    source_accuracy=optional(shares),
    decision_agreement=optional(shares),
    max_abs_error=optional(positive),
    latency_aa_ratio=optional(positive),
)
lineages = st.builds(
    Lineage,
    dataset=text(),
    dataset_sha256=digests,
    data_version=optional(text()),
    collected=optional(text()),
    personal_data=st.booleans(),
    consent_purpose=optional(text()),
    seeds=st.lists(counts, max_size=3).map(tuple),
    packages=st.dictionaries(st.from_regex(r"[A-Za-z0-9._-]{1,12}", fullmatch=True), text(), max_size=3),
    dvc=optional(text()),
    trained=optional(text()),
)
kept = texts().flatmap(lambda units: st.tuples(*(st.builds(KeptFloat, unit=st.just(u), reason=text()) for u in units)))


@st.composite
def guards(draw: st.DrawFn, inputs: tuple[TensorSpec, ...]) -> Guard:
    part = GuardPart(
        input=draw(st.sampled_from(inputs)).name,
        reduce=tuple(draw(st.lists(st.sampled_from(GUARD_REDUCTIONS[1:]), min_size=1, unique=True))),
        stride=draw(st.integers(1, 2**28)),
    )
    n, k = len(part.reduce), draw(st.integers(0, 3))
    above = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)

    def row(numbers: st.SearchStrategy[float], count: int) -> tuple[float, ...]:
        return tuple(draw(st.lists(numbers, min_size=count, max_size=count)))

    return Guard(
        score="mahalanobis",
        parts=(part,),
        center=row(finite, n),
        scale=row(above, n),
        directions=tuple(row(finite, n) for _ in range(k)),
        variances=row(above, k),
        residual=draw(above),
        threshold=draw(positive),
        false_refusal=draw(shares),
        rows=draw(counts),
        data_sha256=draw(digests),
    )


def segments() -> st.SearchStrategy[tuple[Segment, ...]]:
    return texts().flatmap(
        lambda names: st.tuples(*(st.builds(Segment, name=st.just(n), rows=counts, accuracy=shares) for n in names))
    )


@st.composite
def releases_with_files(draw: st.DrawFn) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest and the made-up files that it describes."""
    inputs = draw(tensor_lists())
    outputs = draw(tensor_lists())
    labels = draw(texts(40) if draw(st.booleans()) else texts())
    kinds = draw(
        st.lists(st.sampled_from([(t, p) for t in TARGETS for p in PRECISIONS]), min_size=1, max_size=3, unique=True)
    )
    reserved = {"manifest.json", "release.json", "policy.json"}
    names = draw(
        st.lists(file_names(), min_size=2 * len(kinds) + 2, max_size=2 * len(kinds) + 2, unique_by=str.lower).filter(
            lambda ns: not reserved & {n.lower() for n in ns}
        )
    )
    files: dict[str, bytes] = {}

    def stored(name: str) -> dict[str, Any]:
        files[name] = draw(st.binary(min_size=1, max_size=64))
        return {"file": name, "bytes": len(files[name]), "sha256": sha256(files[name])}

    scored = bool(labels) and draw(st.booleans())
    if scored:  # a confidence needs one logit a label
        outputs = (replace(outputs[0], dtype="float32", shape=("batch", len(labels))), *outputs[1:])
    artifacts = tuple(
        Artifact(
            target=target,
            precision=precision,
            **stored(names[2 * i]),
            operators=draw(operators),
            float_operators=draw(texts()),
            minimum_engine_version=draw(st.sampled_from(["0", "1.22", "1.2.3.4", "999999"])),
            peak_memory_bytes=draw(optional(counts)),
            measured=draw(measurements),
            confidence=draw(optional(confidences)) if scored else None,
            reference=draw(optional(references(inputs, labels))),
            golden=Golden(**stored(names[2 * i + 1]), tolerance=draw(st.floats(0, 4))),
            kept_float=draw(kept),
        )
        for i, (target, precision) in enumerate(kinds)
    )
    cloud = draw(tensor_lists())
    local = {tensor.name: tensor for tensor in inputs}
    manifest = Manifest(
        critical=draw(st.sampled_from([(), ("labels",), ("hybrid.model", "artifacts.golden")])),
        model=draw(models),
        release=draw(releases),
        version=draw(text()),
        created=draw(st.datetimes().map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"))),
        owner=draw(text()),
        contact=draw(text()),
        inputs=inputs,
        outputs=outputs,
        labels=labels,
        preprocessing=Preprocessing(
            in_graph=draw(text(0)),
            caller=draw(text(0)),
            examples=FileRef(**stored(names[-2])) if draw(st.booleans()) else None,
        ),
        artifacts=artifacts,
        requirements=draw(st.builds(Requirements, arch=texts(), os=texts(), ram_bytes=counts)),
        hybrid=Hybrid(
            model=draw(models),
            releases=tuple(draw(st.lists(releases, min_size=1, max_size=3, unique=True))),
            inputs=tuple(local.get(tensor.name, tensor) for tensor in cloud),
        )
        if draw(st.booleans())
        else None,
        lineage=draw(lineages),
        segments=draw(segments()),
        card=FileRef(**stored(names[-1])) if draw(st.booleans()) else None,
        task=draw(st.sampled_from([None, "other", "classification" if labels else "regression"])),
        edge_cases=draw(segments()),
        guard=draw(optional(guards(inputs))),
    )
    return manifest, files
