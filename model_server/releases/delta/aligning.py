"""Which part of the old file each part of the new one comes from. Pure.

Exact matches of `WINDOW` bytes are anchors; each lies on a diagonal, old offset minus new offset. Weights that all
moved a little give no anchors, but names and shapes between them do, and neighbors on one diagonal vouch for what lies
between them. Where the diagonal changes, the border is put where most bytes are equal on both sides, as bsdiff does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Aligned", "align"]

WINDOW = 16  # bytes
_SAMPLED = 3  # bits of the hash that are zero where a window is an anchor: one in eight
_COMMON = 4  # a content that the old file has more often says nothing of where it is from
_STEP = 1 << 20
_FACTORS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """``length`` bytes of the new file from ``start``; they correspond to the old file from ``old``."""

    start: int
    length: int
    old: int


def align(old: bytes, new: bytes) -> list[Aligned]:
    """Parts of the new file in order, without gaps except where the old file has nothing to offer."""
    reach = _reach(_anchors(old, new), old, new)
    before, after = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
    parts: list[Aligned] = []
    at = 0
    for (diagonal, _, last), following in zip(reach, [*reach[1:], None], strict=True):
        end = len(new) if following is None else _border(before, after, diagonal, last, following)
        low, high = max(at, -diagonal), min(end, len(old) - diagonal)
        if high > low:
            parts.append(Aligned(start=low, length=high - low, old=low + diagonal))
        at = end
    return parts


def _anchors(old: bytes, new: bytes) -> NDArray[np.int64]:
    """Rows of (new offset, diagonal), by new offset."""
    old_hashes, old_places = _sampled(old)
    new_hashes, new_places = _sampled(new)
    order = np.argsort(old_hashes, kind="stable")
    old_hashes, old_places = old_hashes[order], old_places[order]
    first, end = (np.searchsorted(old_hashes, new_hashes, side) for side in ("left", "right"))
    found = (end > first) & (end - first <= _COMMON)
    rows = []
    for repeat in range(_COMMON):
        use = found & (first + repeat < end)
        place = new_places[use]
        rows.append(np.stack([place, old_places[first[use] + repeat] - place], axis=1))
    anchors = np.concatenate(rows)
    return anchors[np.lexsort((anchors[:, 1], anchors[:, 0]))]


def _sampled(data: bytes) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the windows that the content itself chooses, and where they begin."""
    hashes, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    array = np.frombuffer(data, np.uint8)
    for at in range(0, max(0, len(array) - WINDOW + 1), _STEP):
        part = array[at : at + _STEP + WINDOW - 1]
        count = len(part) - WINDOW + 1
        mixed = np.zeros(count, np.uint64)
        for word, factor in enumerate(_FACTORS):
            mixed ^= _words_at_every_byte(part[8 * word : 8 * word + count + 7]) * np.uint64(factor)
            mixed ^= mixed >> np.uint64(29)
        mixed *= np.uint64(_FACTORS[0])
        chosen = np.flatnonzero(mixed >> np.uint64(64 - _SAMPLED) == 0)
        hashes.append(mixed[chosen])
        places.append(chosen + at)
    return np.concatenate(hashes), np.concatenate(places)


def _words_at_every_byte(part: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.lib.stride_tricks.sliding_window_view(part, 8).copy().view("<u8")[:, 0]


def _reach(anchors: NDArray[np.int64], old: bytes, new: bytes) -> list[tuple[int, int, int]]:
    """(diagonal, first new offset, last new offset) of runs of anchors on one diagonal, in order of the new file."""
    runs: list[tuple[int, int, int]] = []
    alternatives = np.flatnonzero(np.diff(anchors[:, 0], prepend=-1)) if len(anchors) else ()
    ends = [*alternatives[1:], len(anchors)] if len(anchors) else []
    diagonal = 0
    for first, end in zip(alternatives, ends, strict=True):
        place, choices = int(anchors[first, 0]), anchors[first:end, 1]
        # Of several, the one that goes on where the last one stopped.
        chosen = diagonal if diagonal in choices else int(choices[np.argmin(np.abs(choices - diagonal))])
        if runs and chosen == runs[-1][0]:
            runs[-1] = (chosen, runs[-1][1], place + WINDOW)
        else:
            runs.append((chosen, place, place + WINDOW))
        diagonal = chosen
    kept = [run for run in runs if run[2] - run[1] > 2 * WINDOW] or runs
    # Whatever was found between, files begin and end alike more often than not.
    kept = [(0, 0, 0), *kept, (len(old) - len(new), len(new), len(new))]
    merged = [kept[0]]
    for run in kept[1:]:
        if run[0] == merged[-1][0]:
            merged[-1] = (run[0], merged[-1][1], run[2])
        else:
            merged.append(run)
    return merged


def _border(
    old: NDArray[np.uint8], new: NDArray[np.uint8], diagonal: int, last: int, following: tuple[int, int, int]
) -> int:
    """Between the last anchor of one diagonal and the first of the next: where the equal bytes are most."""
    low, high = last, max(last, following[1])
    gain = np.zeros(high - low + 1, np.int64)
    gain[1:] = np.cumsum(_equal(old, new, diagonal, low, high).astype(np.int64))
    gain[1:] -= np.cumsum(_equal(old, new, following[0], low, high).astype(np.int64))
    return low + int(np.argmax(gain))


def _equal(old: NDArray[np.uint8], new: NDArray[np.uint8], diagonal: int, low: int, high: int) -> NDArray[np.bool_]:
    places = np.arange(low, high) + diagonal
    inside = (places >= 0) & (places < len(old))
    same = np.zeros(high - low, bool)
    same[inside] = old[places[inside]] == new[low:high][inside]
    return same
