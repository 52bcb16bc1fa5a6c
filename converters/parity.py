"""How far a converted model's outputs are from its source's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.errors import CheckFailed

__all__ = ["Parity", "compare", "r_squared", "refuse_wrong_float", "varies"]

FLOAT_TOLERANCE = 1e-3  # of the largest output; real conversions are a hundred times closer
FLOAT_EXPLAINED = 0.98  # R² of a float conversion; as many mismatches as are tolerated take 0.01 of it
LEAST_VARIATION = 1e-5  # standard deviation in largest outputs: below it, an output is a constant and rounding errors
MISMATCH_TOLERANCE = 0.01  # share of elements that may be finite on one side only: logarithms of denormal numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Over every element of every output: the largest and the mean absolute difference, in the outputs' units.

    Elements that are the same infinity, or NaN, on both sides agree. ``mismatched`` counts those that are finite on one
    side only, or different infinities; they are left out of the differences. ``scale`` is the largest finite output of
    the source.
    """

    rows: int
    elements: int
    max_abs_error: float
    mean_abs_error: float
    mismatched: int
    scale: float


def compare(expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]) -> Parity:
    """Outputs of the source and of the artifact for the same rows, ``(rows, …)`` each, first output first."""
    lefts = [value.astype(np.float64).ravel() for value in expected.values()]
    rights = [actual[name].astype(np.float64).reshape(value.shape).ravel() for name, value in expected.items()]
    left, right = np.concatenate(lefts), np.concatenate(rights)
    both = np.isfinite(left) & np.isfinite(right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    differences = np.abs(left[both] - right[both])
    return Parity(
        rows=len(next(iter(expected.values()))),
        elements=left.size,
        max_abs_error=float(differences.max(initial=0.0)),
        mean_abs_error=float(differences.mean()) if differences.size else 0.0,
        mismatched=int((~both & ~same).sum()),
        scale=float(np.abs(left[np.isfinite(left)]).max(initial=0.0)),
    )


def refuse_wrong_float(what: str, expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]) -> None:
    """Raises `CheckFailed` for a float conversion that does not compute what its source does.

    Each output is held against its own scale: beside boxes in pixels, wrong scores would be a rounding error. Below a
    scale of 1 it is held against its own variance too: beside 1, densities of a millionth would be one.
    """
    for name, values in expected.items():
        parity = compare({name: values}, actual)
        limit = FLOAT_TOLERANCE * max(1.0, parity.scale)
        if parity.max_abs_error > limit:
            raise CheckFailed(
                f"{what}: output {name} differs from its source by up to {parity.max_abs_error:.3g} (allowed: "
                f"{limit:.3g}); not kept"
            )
        if parity.mismatched > MISMATCH_TOLERANCE * parity.elements:
            raise CheckFailed(
                f"{what}: {parity.mismatched} of {parity.elements} values of output {name} are finite either here or "
                "in the source, not in both; not kept"
            )
        explained = r_squared(values, actual[name].reshape(values.shape)) if varies(values) else 1.0
        if explained < FLOAT_EXPLAINED:
            raise CheckFailed(
                f"{what}: output {name} explains {explained:.4f} of the variance of its source's (at least "
                f"{FLOAT_EXPLAINED}); not kept"
            )


def varies(values: np.ndarray) -> bool:
    """Whether ``(rows, …)`` are more than one answer and rounding errors."""
    finite = np.where(np.isfinite(values), values, 0.0).astype(np.float64)
    spread = finite.std(axis=0).max(initial=0.0) if len(finite) else 0.0
    return bool(spread > LEAST_VARIATION * np.abs(finite).max(initial=0.0))


def r_squared(expected: np.ndarray, actual: np.ndarray) -> float:
    """1 − squared error / variance over all columns together, ``(rows, …)`` each; at least 0.

    Entries that are not finite on one side count as not explained at all; those that are the same infinity, or NaN, on
    both sides agree.
    """
    left, right = expected.astype(np.float64), actual.astype(np.float64)
    usable = np.isfinite(left) & np.isfinite(right)
    same = ~usable & ((left == right) | (np.isnan(left) & np.isnan(right)))
    left, right = np.where(usable, left, 0.0), np.where(usable, right, 0.0)
    means = left.sum(axis=0) / np.maximum(usable.sum(axis=0), 1)
    spread = float((np.where(usable, left - means, 0.0) ** 2).sum())
    error = float(((left - right) ** 2).sum())
    explained = float(error == 0) if spread == 0 else max(0.0, 1 - error / spread)
    return explained * float((usable | same).mean())
