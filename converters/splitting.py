"""Cut a data set into parts that share no subject, and hold every class in the same proportion. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.data import Dataset

__all__ = ["split_rows"]


def split_rows(data: Dataset, shares: Sequence[float], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Row numbers, ascending, of each part; ``shares`` sum to 1. No part is empty while there are rows enough.

    Where the rows have groups, and at least as many groups as parts, a group goes to one part as a whole: rows of one
    person or device are alike, and a split through them would flatter whatever is measured on it. Otherwise rows are
    dealt at random within each class.
    """
    rng = np.random.default_rng(seed)
    if data.groups is not None:
        names, group = np.unique(data.groups, return_inverse=True)
        if len(names) >= len(shares):
            return _by_group(group, shares, rng)
    strata = data.labels if data.labels is not None else np.zeros(data.rows, np.int64)
    bounds = np.cumsum(shares)[:-1]
    part = np.zeros(data.rows, np.intp)
    for each in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == each))
        phase = (np.arange(len(members)) + rng.uniform()) / len(members)
        part[members] = np.searchsorted(bounds, phase % 1.0, side="right")
    parts = tuple(np.flatnonzero(part == index) for index in range(len(shares)))
    if all(len(rows) for rows in parts):
        return parts
    order = rng.permutation(data.rows)
    cuts: list[int] = []
    for index, bound in enumerate(bounds):
        left = len(bounds) - index  # parts behind this cut, each of which needs a row
        cuts.append(max(min(round(float(bound) * data.rows), data.rows - left), (cuts[-1] if cuts else 0) + 1))
    return tuple(np.sort(rows) for rows in np.split(order, cuts))


def _by_group(group: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Groups in random order, each to the part that is furthest below its share; the first go to empty parts."""
    sizes = np.bincount(group)
    filled = np.zeros(len(shares))
    home = np.zeros(len(sizes), np.intp)
    for count, each in enumerate(rng.permutation(len(sizes))):
        left = len(sizes) - count
        empty = np.flatnonzero(filled == 0)
        wanted = np.asarray(shares) - filled / len(group)
        choice = int(empty[wanted[empty].argmax()]) if len(empty) >= left else int(wanted.argmax())
        home[each] = choice
        filled[choice] += sizes[each]
    return tuple(np.flatnonzero(home[group] == index) for index in range(len(shares)))
