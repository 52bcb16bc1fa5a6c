"""What the inputs of a simulated fleet are: a file of examples, drawn by each device from its own random stream."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import ConfigurationError
from edge_runtime.npz import read_npz

__all__ = ["Field", "load_field"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Examples by input name; the first axis of every array is the example."""

    inputs: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def draw(self, device_id: str, period: int, count: int, seed: int) -> list[dict[str, NDArray[Any]]]:
        """``count`` examples for one device in one period; the same for the same arguments."""
        rng = np.random.default_rng((seed, zlib.crc32(device_id.encode()), period))
        rows = rng.integers(0, len(self), size=count)
        return [{name: array[row] for name, array in self.inputs.items()} for row in rows]


def load_field(path: Path) -> Field:
    """Read an ``.npz`` of one array an input, all with the same number of examples.

    Raises:
        ConfigurationError: the file cannot be read, holds nothing, or its arrays differ in length.
    """
    inputs = read_npz(path)
    lengths = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
    if not inputs or 0 in lengths.values() or len(set(lengths.values())) > 1:
        raise ConfigurationError(f"{path}: needs one array an input, all with as many examples, but has {lengths}.")
    return Field(inputs=inputs)
