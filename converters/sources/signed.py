"""What every source says of itself in the same words, once its tensors are known."""

from __future__ import annotations

from converters.sources.tensors import Signature
from edge_runtime.bundle import TensorSpec

__all__ = ["Signed"]


class Signed:
    """A base for sources: they set ``_name`` and ``_signature``."""

    _name: str
    _signature: Signature

    @property
    def name(self) -> str:
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._signature.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._signature.outputs

    @property
    def one_at_a_time(self) -> bool:
        """Whether the model was made for a batch of exactly 1."""
        return self._signature.one_at_a_time
