"""Activation ranges from calibration rows, collected the same way for every engine."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from converters.quantize.affine import LEVELS

__all__ = ["Range", "RangeCollector"]

SAMPLED_PER_ROW = 256  # values of one tensor kept from each row, for least-squares ranges
SAMPLED = 32_768  # and from all rows together
SHRINKS = np.linspace(1.0, 0.3, 29)
Range = tuple[float, float]


class RangeCollector:
    """Keeps each tensor's smallest and largest value in every calibration row, and a sample of its values."""

    def __init__(self) -> None:
        self._low: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._high: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._values: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        self._random = np.random.default_rng(0)

    def observe(self, name: str, values: np.ndarray) -> None:
        """``values`` is ``(rows, …)``; anything but floats is ignored."""
        if values.dtype.kind != "f" or not values.size:
            return
        flat = values.reshape(len(values), -1)
        self._low[name].append(flat.min(axis=1))
        self._high[name].append(flat.max(axis=1))
        self._values[name].append(self._sample(flat))

    def ranges(self, coverage: float) -> dict[str, Range]:
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

    def least_squares(self) -> dict[str, Range]:
        """(low, high) of each tensor with the least squared error of rounding to 8 bits and clipping, on the sample.

        One end is narrowed after the other, by at most 70 %; both stay around 0.
        """
        return {name: self._narrowed(name, *limits) for name, limits in self.ranges(1.0).items()}

    def _narrowed(self, name: str, low: float, high: float) -> Range:
        values = np.concatenate([each.ravel() for each in self._values[name]])
        values = values[np.isfinite(values)]
        values = values[:: max(1, len(values) // SAMPLED)].astype(np.float32)
        if high > 0:
            high = min((high * shrink for shrink in SHRINKS), key=lambda each: _error(values, low, each))
        if low < 0:
            low = min((low * shrink for shrink in SHRINKS), key=lambda each: _error(values, each, high))
        return float(low), float(high)

    def _sample(self, flat: np.ndarray) -> np.ndarray:
        """Some values of each row, at other places in each: a place is a channel, and channels differ."""
        size = flat.shape[1]
        if size <= SAMPLED_PER_ROW:
            return flat
        return np.take_along_axis(flat, self._random.integers(0, size, (len(flat), SAMPLED_PER_ROW)), axis=1)


def _error(values: np.ndarray, low: float, high: float) -> float:
    scale = (high - low) / LEVELS
    if scale <= 0:
        return float("inf")
    zero = np.rint(-low / scale)
    codes = np.clip(np.rint(values / scale) + zero, 0, LEVELS)
    return float(np.square((codes - zero) * scale - values).mean())
