"""Means of a tensor's channels over calibration rows."""

from __future__ import annotations

import numpy as np

__all__ = ["ChannelMeans"]


class ChannelMeans:
    """``axis`` is the channels' in the specification, which does not count the rows' axis. Rows that are not finite do
    not count."""

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._sum: np.ndarray | float = 0.0
        self.count = 0

    def observe(self, values: np.ndarray) -> None:
        """``values`` is ``(rows, …)``."""
        channels = np.moveaxis(values, self._axis if self._axis < 0 else self._axis + 1, -1)
        channels = channels.reshape(len(values), -1, channels.shape[-1])
        finite = np.isfinite(channels).all(axis=(1, 2))
        self._sum = self._sum + channels[finite].mean(axis=1, dtype=np.float64).sum(axis=0)
        self.count += int(finite.sum())

    @property
    def mean(self) -> np.ndarray:
        """float32 ``(channels,)``."""
        return np.asarray(self._sum / self.count, np.float32)
