"""By which columns of the evaluation rows accuracy is reported: those that a manifest can hold. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from edge_runtime.bundle.limits import MAX_SEGMENTS

__all__ = ["MAX_VALUES", "choose_columns", "part_name"]

MAX_VALUES = 32  # different values of a column; one with more is no segmentation
MAX_NAME = 128  # characters of a segment's name in a manifest
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")  # what no manifest holds


def part_name(column: str, value: object) -> str:
    """What the rows of one value of a column are called."""
    return f"{column} {value}"


def choose_columns(columns: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The different values of each column to report by, and for each other column why it is left out.

    Where all together have more values than a manifest holds segments, the columns with the fewest go first: so most
    columns are reported.
    """
    values = {name: np.unique(column) for name, column in columns.items()}
    taken: set[str] = set()
    left_out: dict[str, str] = {}
    for name in sorted(values, key=lambda name: len(values[name])):
        names = [part_name(name, value) for value in values[name]]
        unfit = next((each for each in names if len(each) > MAX_NAME or UNPRINTABLE.search(each)), None)
        if len(names) > MAX_VALUES:
            left_out[name] = f"{len(names)} different values, more than {MAX_VALUES}"
        elif unfit is not None:
            left_out[name] = (
                f"{unfit[:40]!r}… is no name of a segment, which has at most {MAX_NAME} characters and no control "
                "characters"
            )
        elif not taken.isdisjoint(names):
            left_out[name] = "its values are called as those of another column"
        elif len(taken) + len(names) > MAX_SEGMENTS:
            left_out[name] = f"a bundle holds {MAX_SEGMENTS} segments, and columns of fewer values have {len(taken)}"
        else:
            taken.update(names)
    return (
        {name: each for name, each in values.items() if name not in left_out},
        tuple(f"accuracy by {name}: {left_out[name]}" for name in values if name in left_out),
    )
