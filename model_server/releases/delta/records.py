"""What to do with each aligned part: copy it, take it as words of 1, 2 or 4 bytes, or write it anew. Pure.

The files say nothing of their types here, so the same code serves every format. The bytes of a block are tried as words
of each width and at each phase, since a protobuf puts a tensor at any offset; the cheapest way through all blocks is
found with a price on changing one's mind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from edge_runtime.update.delta import words
from edge_runtime.update.delta.format import Kind
from model_server.releases.delta.aligning import Aligned

__all__ = ["Part", "parts_of"]

_BLOCK, _SMALL_BLOCK = 4096, 512  # bytes; small ones for small files
_CHANGE = 10.0  # bytes that a record costs
_WAYS = ((1, 0), (2, 0), (2, 1), (4, 0), (4, 1), (4, 2), (4, 3))  # width and phase of words
_LITERAL, _COPY = len(_WAYS), len(_WAYS) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A record to be: ``length`` bytes of the new file from ``start``, corresponding to the old file from ``old``."""

    kind: Kind
    start: int
    length: int
    old: int = 0
    width: int = 1


def parts_of(old: bytes, new: bytes, aligned: Sequence[Aligned]) -> list[Part]:
    """Parts that make up the new file, in order."""
    block = _BLOCK if len(new) > 1 << 20 else _SMALL_BLOCK
    parts: list[Part] = []
    at = 0
    for piece in aligned:
        if piece.start > at:
            parts.append(Part(kind=Kind.LITERAL, start=at, length=piece.start - at))
        parts += _typed(old, new, piece, block)
        at = piece.start + piece.length
    if len(new) > at:
        parts.append(Part(kind=Kind.LITERAL, start=at, length=len(new) - at))
    return parts


def _typed(old: bytes, new: bytes, piece: Aligned, block: int) -> Iterator[Part]:
    before = old[piece.old : piece.old + piece.length]
    after = new[piece.start : piece.start + piece.length]
    prices = np.array([_prices(before[at : at + block], after[at : at + block]) for at in range(0, len(after), block)])
    ways = _cheapest(prices)
    at = 0
    for way, run in groupby(ways):
        length = min(block * len(list(run)), piece.length - at)
        yield from _parts(way, piece, at, length)
        at += length


def _parts(way: int, piece: Aligned, at: int, length: int) -> Iterator[Part]:
    start, old = piece.start + at, piece.old + at
    if way == _LITERAL:
        yield Part(kind=Kind.LITERAL, start=start, length=length)
        return
    if way == _COPY:
        yield Part(kind=Kind.COPY, start=start, length=length, old=old)
        return
    width, phase = _WAYS[way]
    whole = (length - phase) // width * width
    for skip, count, size in ((0, phase, 1), (phase, whole, width), (phase + whole, length - phase - whole, 1)):
        if count > 0:
            yield Part(kind=Kind.WORDS, start=start + skip, length=count, old=old + skip, width=size)


def _prices(before: bytes, after: bytes) -> list[float]:
    """Bytes that a block costs in each way, by the entropy of the bytes that would be compressed."""
    if before == after:
        return [_CHANGE + 1] * (len(_WAYS) + 1) + [0.0]
    prices = []
    for width, phase in _WAYS:
        count = (len(after) - phase) // width * width
        if count <= 0:
            prices.append(float(len(after)) + _CHANGE)
            continue
        folded = words.differences(
            words.words(before[phase : phase + count], width), words.words(after[phase : phase + count], width)
        )
        planes = folded.view(np.uint8).reshape(-1, width)
        prices.append(sum(_entropy(planes[:, index]) for index in range(width)))
    prices.append(_entropy(np.frombuffer(after, np.uint8)))
    return [*prices, np.inf]


def _entropy(values: NDArray[np.uint8]) -> float:
    """Bytes, of order 0."""
    counts = np.bincount(values, minlength=1)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / len(values))).sum() / 8)


def _cheapest(prices: NDArray[np.float64]) -> list[int]:
    """The way of each block: the cheapest sequence, where a change of way costs `_CHANGE` (Viterbi's algorithm)."""
    total = prices[0].copy()
    back = np.zeros(prices.shape, np.intp)
    for at in range(1, len(prices)):
        best = int(np.argmin(total))
        stay = total <= total[best] + _CHANGE
        back[at] = np.where(stay, np.arange(len(total)), best)
        total = np.minimum(total, total[best] + _CHANGE) + prices[at]
    way = int(np.argmin(total))
    ways = [way]
    for at in range(len(prices) - 1, 0, -1):
        way = int(back[at, way])
        ways.append(way)
    return ways[::-1]
