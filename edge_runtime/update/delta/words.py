"""Differences of words, and how they are laid out so that they compress. Pure; NumPy, little-endian everywhere.

Training moves most weights a little. The difference of two floats' bits, taken as whole numbers, is then small; with
its sign folded into the lowest bit (zigzag), its high bytes are zeros and compress to nothing, while byte-wise
differences of floats look like noise. Two more things help:

* *ordered*: within a block the differences are sorted by what the old word says of their size: a float's exponent, an
  8-bit code's magnitude. Large weights move far and small ones do not, so that a compressor which adapts sees one kind
  after the other. The device has the old words, so the order costs nothing.
* *sparse*: where few words changed, the gaps between them, and only their differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.update.delta.format import DeltaDamaged

__all__ = ["BLOCK", "GAP", "differences", "from_gaps", "moved", "order", "to_gaps", "words"]

BLOCK = 1 << 16  # words that are laid out together
GAP = 255  # so many words that did not change, and the next byte goes on

Words = NDArray[np.unsignedinteger[Any]]
_UNSIGNED: dict[int, np.dtype[np.unsignedinteger[Any]]] = {width: np.dtype(f"<u{width}") for width in (1, 2, 4)}
_SIGNED: dict[int, np.dtype[np.signedinteger[Any]]] = {width: np.dtype(f"<i{width}") for width in (1, 2, 4)}
_EXPONENT = {2: (10, 0x1F), 4: (23, 0xFF)}  # of IEEE half and single precision: shift and mask


def words(data: bytes | memoryview, width: int) -> Words:
    """A view of whole words."""
    return np.frombuffer(data, _UNSIGNED[width])


def differences(old: Words, new: Words) -> Words:
    """Zigzag of ``new - old``, which wraps."""
    width = old.itemsize
    signed = (new - old).view(_SIGNED[width])
    folded = (signed << 1) ^ (signed >> (8 * width - 1))
    return folded.view(_UNSIGNED[width])


def moved(old: Words, folded: Words) -> Words:
    """The inverse: ``new``."""
    one = old.dtype.type(1)
    new: Words = old + ((folded >> one) ^ (~(folded & one) + one))
    return new


def order(old: Words) -> NDArray[np.intp]:
    """The order in which the differences of a block are written."""
    if old.itemsize == 1:
        key = np.abs(old.view(np.int8).astype(np.int16)).astype(np.uint8)
    else:
        shift, mask = _EXPONENT[old.itemsize]
        key = (old >> old.dtype.type(shift) & old.dtype.type(mask)).astype(np.uint8)
    return np.argsort(key, kind="stable")


def to_gaps(changed: NDArray[np.intp]) -> bytes:
    """The ascending places of changed words in a block, as the numbers of others between them."""
    gaps = np.diff(changed, prepend=-1) - 1
    long = gaps // GAP
    ends = np.cumsum(long + 1) - 1
    out = np.full(int(ends[-1]) + 1 if len(ends) else 0, GAP, np.uint8)
    out[ends] = gaps % GAP
    return out.tobytes()


def from_gaps(gaps: bytes, count: int) -> NDArray[np.intp]:
    """The places in a block of ``count`` words. Raises `DeltaDamaged`."""
    steps = np.frombuffer(gaps, np.uint8).astype(np.intp)
    ends = steps < GAP
    places = (np.cumsum(steps + ends) - 1)[ends]
    if len(places) and places[-1] >= count:
        raise DeltaDamaged("a word beyond the end of its block changes")
    return places
