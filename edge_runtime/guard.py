"""How far an input lies from the training data: the score of docs/spec/guard.md. Pure NumPy.

The summaries of an example (columns, or mean, spread, extremes and roughness of each channel) are standardized, and
their distance from the training data is a Mahalanobis distance under a covariance of few directions and one variance
for all others (probabilistic principal components, Tipping and Bishop 1999). `converters.guard` fits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_runtime.bundle.guard import Guard, GuardPart
    from edge_runtime.bundle.manifest import TensorSpec

__all__ = ["GuardScorer", "distances", "summaries"]

LEAST_DEVIATION = 1e-12


class GuardScorer:
    """A guard, ready to score one example after the other. Thread-safe: it only reads."""

    def __init__(self, guard: Guard, inputs: Sequence[TensorSpec]) -> None:
        """``inputs`` are the manifest's, which the guard was checked against when it was read."""
        self.threshold = guard.threshold
        self._guard = guard
        self._batched = {spec.name: spec.shape[:1] == ("batch",) for spec in inputs}
        self._center = np.array(guard.center)
        self._scale = np.array(guard.scale)
        self._directions = np.array(guard.directions).reshape(len(guard.directions), len(guard.center))
        self._weights = 1.0 / np.array(guard.variances)
        self._residual = 1.0 / guard.residual

    def score(self, inputs: Mapping[str, NDArray[Any]]) -> float:
        """The score of one example: an array for each input, of the manifest's shape, with one row where that has a
        batch axis. 0 is the middle of the training data, about 1 usual; infinite where an element that counts is not
        finite (that all of them are is the input check's to say)."""
        rows = {name: inputs[name] if batched else inputs[name][np.newaxis] for name, batched in self._batched.items()}
        return float(self.scores(rows)[0])

    def scores(self, rows: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The score of each of many examples; every array has them on its first axis."""
        with np.errstate(over="ignore", invalid="ignore"):
            return distances(
                np.arcsinh((summaries(self._guard.parts, rows) - self._center) / self._scale),
                self._directions,
                self._weights,
                self._residual,
            )


def summaries(parts: Sequence[GuardPart], rows: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """The summaries of many examples, ``(rows, n)``: part by part, reduction by reduction, channel by channel."""
    columns: list[NDArray[np.float64]] = []
    for part in parts:
        array = rows[part.input]
        if part.reduce == ("value",):
            columns.append(array.reshape(len(array), -1)[:, :: part.stride].astype(np.float64))
        else:
            channels = _channels(array, part)
            # A channel without elements has no summaries; NaN makes its score infinite.
            empty = channels.size == 0
            columns.extend(
                [np.full(channels.shape[:2], np.nan) if empty else _REDUCTIONS[r](channels) for r in part.reduce]
            )
    return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)


def distances(
    z: NDArray[np.float64], directions: NDArray[np.float64], weights: NDArray[np.float64], residual: float
) -> NDArray[np.float64]:
    """Root mean square of the whitened ``z`` ``(rows, n)``, infinite where it is not a number.

    ``weights`` are 1 / variance along each of the ``directions`` ``(k, n)``, ``residual`` that along all others.
    """
    along = (z @ directions.T) ** 2
    rest = np.maximum(np.einsum("ri,ri->r", z, z) - along.sum(axis=1), 0.0)
    root: NDArray[np.float64] = np.sqrt((along @ weights + rest * residual) / z.shape[1])
    root[np.isnan(root)] = math.inf
    return root


def _channels(array: NDArray[Any], part: GuardPart) -> NDArray[np.float64]:
    """The elements that count as ``(rows, channels, …)``, contiguous: a channel's lie side by side, which is faster."""
    kept = None if part.axis is None else part.axis + 1
    if part.stride > 1:
        array = array[tuple(slice(None, None, 1 if axis in (0, kept) else part.stride) for axis in range(array.ndim))]
    if kept is None:
        array = array[:, np.newaxis]
    elif kept > 1:
        array = array.transpose(0, kept, *(axis for axis in range(1, array.ndim) if axis != kept))
    return np.ascontiguousarray(array, dtype=np.float64)


def _flat(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    return channels.reshape(*channels.shape[:2], -1)


def _mean(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    flat = _flat(channels)
    mean: NDArray[np.float64] = np.add.reduce(flat, axis=2) / flat.shape[2]
    return mean


def _log_std(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """A dead channel is as far from a quiet one as a quiet one from a loud one, which only a logarithm shows."""
    flat = _flat(channels)
    centered = flat - _mean(channels)[..., np.newaxis]
    variance = np.einsum("rce,rce->rc", centered, centered) / flat.shape[2]
    logarithm: NDArray[np.float64] = np.log(np.maximum(np.sqrt(variance), LEAST_DEVIATION))
    return logarithm


def _min(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    lowest: NDArray[np.float64] = np.minimum.reduce(_flat(channels), axis=2)
    return lowest


def _max(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    highest: NDArray[np.float64] = np.maximum.reduce(_flat(channels), axis=2)
    return highest


def _roughness(channels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square of the differences between neighbors along every axis of a channel; 0 where there are none."""
    total = np.zeros(channels.shape[:2])
    count = 0
    for axis in range(2, channels.ndim):
        here = (slice(None),) * axis
        steps = _flat(channels[*here, slice(1, None)] - channels[*here, slice(None, -1)])
        total += np.einsum("rce,rce->rc", steps, steps)
        count += steps.shape[2]
    return np.sqrt(total / max(count, 1))


_REDUCTIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "mean": _mean,
    "log_std": _log_std,
    "min": _min,
    "max": _max,
    "roughness": _roughness,
}
