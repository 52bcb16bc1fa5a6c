"""How far a converted model's outputs are from its source's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.errors import CheckFailed

__all__ = ["Parity", "compare", "decisions", "refuse_wrong_float"]

FLOAT_TOLERANCE = 1e-3  # of the largest output; real conversions are a hundred times closer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Over every element of every output: the largest and the mean absolute difference, in the outputs' units.
    ``agreement`` is the share of rows whose decision (argmax of the first output) is the same. ``scale`` is the largest
    finite output of the source."""

    rows: int
    max_abs_error: float
    mean_abs_error: float
    agreement: float
    scale: float


def compare(expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]) -> Parity:
    """Outputs of the source and of the artifact for the same rows, ``(rows, …)`` each, first output first.

    Where both are the same infinity, or both NaN, they agree; where only one is, they are infinitely far apart.
    """
    differences, scale = [], 0.0
    for name, reference in expected.items():
        left, right = reference.astype(np.float64), actual[name].astype(np.float64).reshape(reference.shape)
        with np.errstate(invalid="ignore"):
            difference = np.abs(left - right)
        same = (left == right) | (np.isnan(left) & np.isnan(right))
        difference[same] = 0
        difference[~np.isfinite(difference)] = np.inf
        differences.append(difference.ravel())
        scale = max(scale, float(np.max(np.abs(left[np.isfinite(left)]), initial=0.0)))
    everything = np.concatenate(differences)
    first = next(iter(expected))
    rows = len(expected[first])
    agreement = decisions(expected[first]) == decisions(actual[first])
    return Parity(
        rows=rows,
        max_abs_error=float(everything.max(initial=0.0)),
        mean_abs_error=float(everything.mean()) if everything.size else 0.0,
        agreement=float(agreement.mean()) if rows else 1.0,
        scale=scale,
    )


def decisions(outputs: np.ndarray) -> np.ndarray:
    """The class of each row, ``(rows,)``: argmax over everything but the first axis."""
    result: np.ndarray = outputs.reshape(len(outputs), -1).argmax(axis=1)
    return result


def refuse_wrong_float(what: str, parity: Parity) -> None:
    """Raises `CheckFailed` for a float conversion that does not compute what its source does."""
    limit = FLOAT_TOLERANCE * max(1.0, parity.scale)
    if not parity.max_abs_error <= limit:
        raise CheckFailed(
            f"{what} differs from its source by up to {parity.max_abs_error:.3g} (allowed: {limit:.3g}); not kept"
        )
