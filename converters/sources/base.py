"""What every source offers: a trained model that answers in NumPy, and says what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from edge_runtime.bundle import TensorSpec

__all__ = ["BATCH", "Source", "is_batched"]

BATCH = "batch"  # a first axis of this name holds independent examples


class Source(Protocol):
    """A trained model.

    A first axis named ``batch`` holds independent examples. With any other first axis one *row* of data is a whole
    input, so arrays of rows have one axis more than ``inputs`` says.
    """

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def parameters(self) -> int: ...

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs: arrays ``(rows, …)`` in, arrays ``(rows, …)`` out."""
        ...


def is_batched(specs: tuple[TensorSpec, ...]) -> bool:
    """Whether the first axis of every tensor holds independent examples."""
    return all(bool(spec.shape) and spec.shape[0] == BATCH for spec in specs)
