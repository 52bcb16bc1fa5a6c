"""How loud an error is beside its signal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["signal_to_noise", "some_rows"]

MOST_ROWS = 64
FEWEST_ROWS = 8
ELEMENTS = 500_000  # of all inputs together, where those are more than the fewest rows


def signal_to_noise(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """dB of the mean square of ``expected`` over that of the difference, where both are finite.

    Infinity for no difference, minus infinity where nothing finite is left to compare.
    """
    left = np.concatenate([each.ravel() for each in expected]).astype(np.float64)
    right = np.concatenate([each.ravel() for each in actual]).astype(np.float64)
    finite = np.isfinite(left) & np.isfinite(right)
    if not finite.any():
        return float("-inf")
    noise = float(np.square(left[finite] - right[finite]).mean())
    signal = float(np.square(left[finite]).mean())
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal else float("-inf")


def some_rows(rows: int, elements: int) -> int:
    """How many of ``rows`` are enough to rank units by noise, where a row has ``elements`` input values."""
    return min(rows, max(FEWEST_ROWS, min(MOST_ROWS, ELEMENTS // max(elements, 1))))
