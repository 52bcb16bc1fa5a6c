"""Where the stages of one conversion keep their files, inside its work folder."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np

from converters.data import Dataset, load_dataset
from converters.targets import FILE_SUFFIX

__all__ = [
    "EDGE",
    "answers_file",
    "data_file",
    "given_file",
    "golden_file",
    "make_folders",
    "model_file",
    "read_answers",
    "read_data",
]

EDGE = "edge."  # in front of the split of an edge case that a person named


def make_folders(work: Path) -> None:
    """The folders that the other functions name files in."""
    for name in ("data", "answers", "models", "golden"):
        (work / name).mkdir(parents=True, exist_ok=True)


def data_file(work: str | Path, split: str) -> Path:
    """The checked rows of a split."""
    return Path(work) / "data" / _npz(split)


def given_file(work: Path, split: str) -> Path:
    """Rows that came as an object, before they were checked."""
    return work / f"given-{_npz(split)}"


def _npz(split: str) -> str:
    """An edge case may be called anything, ``night / rain`` too."""
    return f"{EDGE}{sha256(split.encode()).hexdigest()}.npz" if split.startswith(EDGE) else f"{split}.npz"


def answers_file(work: str | Path, split: str) -> Path:
    """The source's answers to a split."""
    return Path(work) / "answers" / f"{split}.npz"


def model_file(work: str | Path, target: str, what: str) -> Path:
    """A model of a target; ``what`` is its precision, or ``float`` for what quantization starts from."""
    return Path(work) / "models" / f"{target}-{what}{FILE_SUFFIX[target]}"


def golden_file(work: str | Path, target: str, what: str) -> Path:
    """The golden examples of a model."""
    return Path(work) / "golden" / f"{target}-{what}.npz"


def read_data(work: str | Path, split: str) -> Dataset | None:
    """The checked rows of a split, named by it; None where it was not given."""
    path = data_file(work, split)
    return load_dataset(path) if path.is_file() else None


def read_answers(work: str | Path, split: str) -> dict[str, np.ndarray]:
    """The source's answers to a split, first output first."""
    with np.load(answers_file(work, split), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}
