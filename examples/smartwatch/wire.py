"""Looks for raw sensor samples in what was sent: two neighbouring float32 values of a window, at any byte offset."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_TABLE_BITS = 27
_DECIMAL = re.compile(rb"-?\d+\.\d{3,}")


class SampleFinder:
    """Built from the windows that devices held (float32 [n, 100, 6]); `found_in` counts the bodies that hold a sample.

    A pair of neighbouring float32 samples is 8 bytes. Every 8 bytes of a body, at every offset and in both byte
    orders, is looked up; so is every decimal number that a text could carry. A false hit needs 64 equal bits.
    """

    def __init__(self, windows: NDArray[np.float32]) -> None:
        flat = np.ascontiguousarray(windows.reshape(len(windows), -1).astype("<f4"))
        even = flat.shape[1] // 2 * 2
        pairs = [
            np.ascontiguousarray(order[:, start : start + even - 2 * start]).view("<u8").ravel()
            for order in (flat, flat.byteswap())
            for start in (0, 1)
        ]
        self._pairs = np.unique(np.concatenate(pairs))
        self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._table[_hash(self._pairs)] = True
        self._values = np.unique(flat)

    def found_in(self, bodies: Iterable[bytes]) -> int:
        return sum(1 for body in bodies if self._holds(body))

    def _holds(self, body: bytes) -> bool:
        if len(body) >= 8:
            grams = np.lib.stride_tricks.sliding_window_view(np.frombuffer(body, dtype=np.uint8), 8)
            words = np.ascontiguousarray(grams).view("<u8").ravel()
            maybe = words[self._table[_hash(words)]]
            if _any_in(maybe, self._pairs):
                return True
        decimals = _DECIMAL.findall(body)
        return bool(decimals) and _any_in(np.array(decimals, dtype=np.float64).astype(np.float32), self._values)


def _any_in(values: NDArray[np.generic], ascending: NDArray[np.generic]) -> bool:
    at = np.searchsorted(ascending, values)
    return bool((ascending[np.minimum(at, len(ascending) - 1)] == values).any())


def _hash(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _TABLE_BITS)
