"""How far a converted model's outputs are from its source's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.errors import CheckFailed

__all__ = ["Parity", "compare", "refuse_wrong_float"]

FLOAT_TOLERANCE = 1e-3  # of the largest output; real conversions are a hundred times closer
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

    Each output is held against its own scale: beside boxes in pixels, wrong scores would be a rounding error.
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
