"""What every source offers: a trained model that answers in NumPy, and says what it takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import numpy as np

from edge_runtime.bundle import TensorSpec

__all__ = ["BATCH", "Kind", "Source", "is_batched"]

BATCH = "batch"  # a first axis of this name holds independent examples
Kind = Literal["keras", "savedmodel", "onnx", "torch", "tflite", "coreml", "sklearn"]


class Source(Protocol):
    """A trained model.

    A first axis named ``batch`` holds independent examples; an axis of 1 at the front of every input and output is
    called so too, and `predict` then asks the model for one row at a time. With any other first axis one *row* of data
    is a whole input, so arrays of rows have one axis more than ``inputs`` says.

    ``activation`` is ``softmax`` or ``sigmoid`` where that is the last operation of the first output, so that it holds
    probabilities and not logits; None where it is another operation, or cannot be known.
    """

    @property
    def kind(self) -> Kind: ...

    @property
    def name(self) -> str: ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def parameters(self) -> int: ...

    @property
    def activation(self) -> str | None: ...

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs for rows of inputs: arrays ``(rows, …)`` in, arrays ``(rows, …)`` out."""
        ...


def is_batched(specs: tuple[TensorSpec, ...]) -> bool:
    """Whether the first axis of every tensor holds independent examples."""
    return all(bool(spec.shape) and spec.shape[0] == BATCH for spec in specs)
