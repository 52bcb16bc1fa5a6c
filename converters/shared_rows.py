"""Rows, and groups, that two splits have in common: what was chosen on rows says little on the same ones. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from converters.data import Dataset
from converters.errors import SameRows

__all__ = ["Shared", "refuse_same_rows", "shared_rows"]

# Splits that should have no row in common. Training data may well be what calibration rows are taken from.
PAIRS = (
    ("training", "evaluation"),
    ("training", "confidence"),
    ("calibration", "evaluation"),
    ("calibration", "confidence"),
    ("confidence", "evaluation"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """How many rows, and how many groups, of split ``second`` are in split ``first`` too."""

    first: str
    second: str
    rows: int
    groups: int


def refuse_same_rows(calibration: Dataset, evaluation: Dataset) -> None:
    """Raises `SameRows` if both hold the same inputs, in whatever order. Labels do not make them others."""
    if calibration.rows == evaluation.rows and Counter(_digests(calibration)) == Counter(_digests(evaluation)):
        raise SameRows(
            f"{calibration.name} and {evaluation.name}: calibration and evaluation are the same {evaluation.rows:,} "
            "rows, and the gate would judge an artifact on the rows that it was fitted to. Split them before, for "
            "example every fourth row for the evaluation, with all rows of one group (a person, a device) on one side"
        )


def shared_rows(splits: Mapping[str, Dataset]) -> tuple[Shared, ...]:
    """The pairs that have something in common and should not. A copy of a row counts wherever it stands."""
    digests = {split: _digests(data) for split, data in splits.items() if any(split in pair for pair in PAIRS)}
    result = []
    for first, second in (pair for pair in PAIRS if pair[0] in digests and pair[1] in digests):
        groups = [splits[split].groups for split in (first, second)]
        common = 0 if groups[0] is None or groups[1] is None else len(np.intersect1d(*map(np.asarray, groups)))
        seen = set(digests[first])
        rows = sum(digest in seen for digest in digests[second])
        if rows or common:
            result.append(Shared(first=first, second=second, rows=rows, groups=common))
    return tuple(result)


def _digests(data: Dataset) -> list[bytes]:
    """One of each row's inputs."""
    arrays = [data.inputs[name] for name in sorted(data.inputs)]
    return [
        hashlib.blake2b(b"".join(array[row].tobytes() for array in arrays), digest_size=16).digest()
        for row in range(data.rows)
    ]
