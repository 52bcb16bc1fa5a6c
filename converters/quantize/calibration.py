"""Activation ranges from calibration rows, collected the same way for every engine."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

__all__ = ["RangeCollector"]


class RangeCollector:
    """Keeps each tensor's smallest and largest value in every calibration row."""

    def __init__(self) -> None:
        self._low: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._high: defaultdict[str, list[np.ndarray]] = defaultdict(list)

    def observe(self, name: str, values: np.ndarray) -> None:
        """``values`` is ``(rows, …)``; anything but floats is ignored."""
        if values.dtype.kind != "f" or not values.size:
            return
        flat = values.reshape(len(values), -1)
        self._low[name].append(flat.min(axis=1))
        self._high[name].append(flat.max(axis=1))

    def ranges(self, coverage: float) -> dict[str, tuple[float, float]]:
        """(low, high) of each tensor, such that about a share ``coverage`` of the rows stays inside on either side.

        Every range holds 0, so that zero padding and ReLU stay exact. Rows that are not finite do not count; a tensor
        without any finite row has no range.
        """
        result = {}
        for name in self._low:
            low, high = np.concatenate(self._low[name]), np.concatenate(self._high[name])
            finite = np.isfinite(low) & np.isfinite(high)
            if not finite.any():
                continue
            result[name] = (
                min(0.0, float(np.quantile(low[finite], 1 - coverage))),
                max(0.0, float(np.quantile(high[finite], coverage))),
            )
        return result
