"""Telemetry features: scalars computed from inputs, and the 19 cells that they are counted in. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.bundle.limits import FEATURE_BINS, FEATURE_CELLS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.manifest import Feature

__all__ = ["MISSING", "feature_cells", "feature_values"]

MISSING = FEATURE_CELLS - 1  # the cell of values that are not finite
_ABOVE = FEATURE_BINS + 1


def feature_values(features: Sequence[Feature], inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The value of every feature for every example: float64[n, len(features)].

    ``inputs`` hold whole arrays, first axis = example. ``mean``, ``std`` (population), ``min`` and ``max`` go over
    every axis but the first and the last; ``value`` takes the single element there.
    """
    examples = len(next(iter(inputs.values())))
    values = np.empty((examples, len(features)), np.float64)
    reduced: dict[tuple[str, str], NDArray[Any]] = {}
    for column, feature in enumerate(features):
        key = (feature.input, feature.reduce)
        if key not in reduced:
            reduced[key] = _reduce(inputs[feature.input], feature.reduce)
        values[:, column] = reduced[key][:, feature.index]
    return values


def feature_cells(edges: Sequence[float], values: NDArray[np.float64]) -> NDArray[np.intp]:
    """The cell of each value: 0 below ``edges[0]``, 1 to 16 the bins, 17 above ``edges[16]``, 18 not finite.

    Bin i holds ``edges[i-1] <= value < edges[i]``; the last one also holds ``edges[16]`` itself.
    """
    cells = np.searchsorted(edges, values, side="right")
    cells[values == edges[-1]] = FEATURE_BINS
    cells[~np.isfinite(values)] = MISSING
    return cells


def _reduce(array: NDArray[Any], how: str) -> NDArray[Any]:
    """(n, …, last) → (n, last). Sums run in float64, so that every engine and device agrees on the cell."""
    flat = array.reshape(len(array), -1, array.shape[-1] if array.ndim > 1 else 1)
    if how == "value":
        return flat[:, 0, :]
    if how == "mean":
        return flat.mean(axis=1, dtype=np.float64)  # type: ignore[no-any-return]
    if how == "std":
        return flat.std(axis=1, dtype=np.float64)  # type: ignore[no-any-return]
    if how == "min":
        return flat.min(axis=1)  # type: ignore[no-any-return]
    return flat.max(axis=1)  # type: ignore[no-any-return]
