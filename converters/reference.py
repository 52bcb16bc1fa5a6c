"""Telemetry reference: what features, classes and confidences looked like on training data. Pure NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converters.errors import InvalidRequest
from converters.sources.base import BATCH
from edge_runtime.bundle import (
    CONFIDENCE_BINS,
    FEATURE_CELLS,
    FEATURE_EDGES,
    REDUCTIONS,
    Feature,
    Reference,
    TensorSpec,
    class_cells,
)
from edge_runtime.telemetry.features import feature_cells, feature_values

__all__ = ["FeatureSpec", "check_features", "default_features", "feature_references", "reference_of"]

MAX_FEATURES = 20  # that a device counts unless told otherwise
DIGITS = 6  # significant digits of an edge; a manifest repeats every edge for each artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """A scalar that devices count: ``reduce`` (value, mean, std, min, max) over all axes between the first and the last
    of ``input``, at position ``index`` of the last."""

    name: str
    input: str
    reduce: str
    index: int


def default_features(inputs: tuple[TensorSpec, ...]) -> tuple[FeatureSpec, ...]:
    """What devices count where nobody chose: each column of a table, and the mean of each channel of anything longer.

    At most 20, from the inputs in order. An input whose last axis is longer than that (an image with its channels
    first, a spectrum) has no channels to speak of, and is left out.
    """
    features: list[FeatureSpec] = []
    for spec in inputs:
        axes = spec.shape[1:] if spec.shape[:1] == (BATCH,) else spec.shape
        last = axes[-1] if axes else 1
        if not isinstance(last, int) or last > MAX_FEATURES - len(features):
            continue
        single = all(axis == 1 for axis in axes[:-1])
        features += [
            FeatureSpec(
                name=f"{spec.name}[{index}]" if last > 1 else spec.name,
                input=spec.name,
                reduce="value" if single else "mean",
                index=index,
            )
            for index in range(last)
        ]
    return tuple(features)


def check_features(features: Sequence[FeatureSpec], inputs: tuple[TensorSpec, ...]) -> None:
    """Raises `InvalidRequest` for a feature of no input, an index outside its last axis, an unknown reduction, or two
    of one name."""
    specs = {spec.name: spec for spec in inputs}
    if len({feature.name for feature in features}) != len(features):
        raise InvalidRequest("two features have the same name")
    for feature in features:
        spec = specs.get(feature.input)
        if spec is None:
            raise InvalidRequest(f"feature {feature.name}: {feature.input!r} is not one of {', '.join(specs)}")
        if feature.reduce not in REDUCTIONS:
            raise InvalidRequest(f"feature {feature.name}: reduce is one of {', '.join(REDUCTIONS)}")
        axes = spec.shape[1:] if spec.shape[:1] == (BATCH,) else spec.shape
        last = axes[-1] if axes else 1
        if not isinstance(last, int):
            raise InvalidRequest(f"feature {feature.name}: the last axis of {feature.input} has no fixed size")
        if not 0 <= feature.index < last:
            raise InvalidRequest(f"feature {feature.name}: index {feature.index}, the last axis has {last} elements")


def feature_references(
    features: Sequence[FeatureSpec], inputs: tuple[TensorSpec, ...], data: Mapping[str, np.ndarray]
) -> tuple[Feature, ...]:
    """Edges (17 quantiles, made to ascend) and shares of each feature over rows of training data.

    Raises what `check_features` raises.
    """
    check_features(features, inputs)
    if not features:
        return ()
    bare = [
        Feature(name=each.name, input=each.input, reduce=each.reduce, index=each.index, edges=(), shares=())
        for each in features
    ]
    values = feature_values(bare, data)
    return tuple(_with_shares(feature, values[:, column]) for column, feature in enumerate(bare))


def reference_of(
    features: tuple[Feature, ...], labels: Sequence[str], logits: np.ndarray, confidences: np.ndarray
) -> Reference:
    """A reference from an artifact's own answers: ``logits`` (rows, classes) and ``confidences`` (rows,)."""
    cells = class_cells(labels)
    classes = np.bincount(np.minimum(logits.argmax(axis=1), cells - 1), minlength=cells)
    bins = np.clip((confidences * CONFIDENCE_BINS).astype(np.intp), 0, CONFIDENCE_BINS - 1)
    return Reference(
        features=features,
        classes=_shares(classes),
        confidence=_shares(np.bincount(bins, minlength=CONFIDENCE_BINS)),
    )


def _with_shares(feature: Feature, values: np.ndarray) -> Feature:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InvalidRequest(f"feature {feature.name} has no finite value in the training data")
    edges = _ascending(np.quantile(finite, np.linspace(0, 1, FEATURE_EDGES)))
    counts = np.bincount(feature_cells(edges, values), minlength=FEATURE_CELLS)
    return Feature(
        name=feature.name,
        input=feature.input,
        reduce=feature.reduce,
        index=feature.index,
        edges=edges,
        shares=_shares(counts),
    )


def _ascending(quantiles: np.ndarray) -> tuple[float, ...]:
    """Rounded, and moved apart where data repeats a value, so that every bin has a width."""
    step = max(float(np.ptp(quantiles)), float(np.abs(quantiles).max()), 1e-6) * 10.0 ** (1 - DIGITS)
    edges: list[float] = []
    for value in quantiles:
        edge = float(f"{value:.{DIGITS}g}")
        if edges and edge <= edges[-1]:
            edge = float(f"{edges[-1] + step:.{DIGITS + 2}g}")
        edges.append(edge)
    return tuple(edges)


def _shares(counts: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(share), 6) for share in counts / counts.sum())
