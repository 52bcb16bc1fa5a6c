"""Recordings of a smartwatch during 7 shoulder exercises, cut into windows and split by subject.

The data is the file `seglearn/data/watch_dataset.npy` of the PyPI package seglearn (BSD-3-Clause): 140 recordings of
10 subjects, accelerometer (g) and gyroscope (rad/s) at 50 Hz. Only the file is read; the package is not imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WINDOW = 100  # samples: 2 seconds
STRIDE = 50
CONTEXT = 8  # windows that the cloud model sees
AXES = ("ax", "ay", "az", "wx", "wy", "wz")
EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
SUBJECTS: dict[str, tuple[int, ...]] = {"train": (1, 2, 3, 4, 5, 6, 7), "val": (8,), "test": (9, 10)}

# The file is a pickle, and a pickle runs code: it is opened only when it is the one that was read by a human.
FILE_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"

Split = Literal["train", "val", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows in recording order: ``x`` float32 [n, 100, 6]; ``y``, ``subject`` and ``recording`` int64 [n]."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    subject: NDArray[np.int64]
    recording: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def of(self, split: Split) -> Windows:
        return self.where(np.isin(self.subject, SUBJECTS[split]))

    def where(self, mask: NDArray[np.bool_]) -> Windows:
        return Windows(x=self.x[mask], y=self.y[mask], subject=self.subject[mask], recording=self.recording[mask])

    def context(self, i: int) -> NDArray[np.float32]:
        """The windows of the same recording up to and including window ``i``, at most 8: float32 [1..8, 100, 6]."""
        first = i
        while first > 0 and i - first < CONTEXT - 1 and self.recording[first - 1] == self.recording[i]:
            first -= 1
        return np.ascontiguousarray(self.x[first : i + 1])


def data_file() -> Path:
    spec = importlib.util.find_spec("seglearn")  # finds the package without running it
    if spec is None or spec.origin is None:
        raise SystemExit("The package seglearn, which carries the recordings, is not installed. Run: make setup")
    return Path(spec.origin).parent / "data" / "watch_dataset.npy"


def load() -> tuple[Windows, str]:
    """All windows of all subjects, and the sha256 of the file they come from."""
    path = data_file()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != FILE_SHA256:
        raise SystemExit(f"{path} is not the known data file (sha256 {digest}); it is a pickle, so it is not opened.")
    raw = np.load(path, allow_pickle=True).item()
    if tuple(raw["X_labels"]) != AXES or tuple(raw["y_labels"]) != EXERCISES:
        raise SystemExit(f"{path} names other axes or exercises than this example knows.")
    x: list[NDArray[np.float32]] = []
    y: list[int] = []
    subject: list[int] = []
    recording: list[int] = []
    for r, series in enumerate(raw["X"]):
        for start in range(0, len(series) - WINDOW + 1, STRIDE):
            x.append(np.asarray(series[start : start + WINDOW], dtype=np.float32))
            y.append(int(raw["y"][r]))
            subject.append(int(raw["subject"][r]))
            recording.append(r)
    return Windows(x=np.stack(x), y=np.array(y), subject=np.array(subject), recording=np.array(recording)), digest
