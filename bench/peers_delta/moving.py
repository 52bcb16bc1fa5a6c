"""Weights as a retraining leaves them: each moved a little, at random but seeded. Pure, but for the Keras model given.

A weight moves by a normal draw whose standard deviation is a share of its output channel's root mean square (a
vector's own, for a bias): steps of training follow the size of a tensor, not that of the single weight, and
convolutions with a folded batch normalization have channels of very different sizes. Statistics, shapes and other
constants stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANGES", "Change", "move_keras", "moved", "moved_onnx"]

WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``share`` of a channel's root mean square; ``last_only``: of the last layer with weights."""

    name: str
    share: float
    last_only: bool = False


CHANGES = (
    Change(name="last layer", share=0.05, last_only=True),
    Change(name="1 %", share=0.01),
    Change(name="5 %", share=0.05),
)


class Variable(Protocol):
    """Of a Keras layer."""

    def numpy(self) -> NDArray[np.float32]: ...

    def assign(self, value: NDArray[np.float32]) -> Any: ...


class Layer(Protocol):
    @property
    def trainable_variables(self) -> Sequence[Variable]: ...


def moved(
    weights: NDArray[np.float32], share: float, random: np.random.Generator, *, channels: int = 0
) -> NDArray[np.float32]:
    """A copy with every weight moved; ``channels`` is the axis of output channels of an array of two or more axes."""
    others = tuple(axis for axis in range(weights.ndim) if weights.ndim < 2 or axis != channels % weights.ndim)
    scale = np.sqrt(np.mean(np.square(weights, dtype=np.float64), axis=others, keepdims=True))
    return (weights + share * scale * random.standard_normal(weights.shape)).astype(weights.dtype)


def move_keras(layers: Sequence[Layer], change: Change, seed: int) -> None:
    """Move the trainable variables of ``layers``, in place; their last axis is that of output channels."""
    random = np.random.default_rng(seed)
    weighted = [layer for layer in layers if layer.trainable_variables]
    for layer in weighted[-1:] if change.last_only else weighted:
        for variable in layer.trainable_variables:
            variable.assign(moved(np.asarray(variable.numpy()), change.share, random, channels=-1))


def moved_onnx(model: bytes, change: Change, seed: int) -> bytes:
    """The model with the float weights and biases of its convolutions and matrix products moved."""
    import onnx
    from onnx import numpy_helper

    loaded = onnx.load_from_string(model)
    stored = {each.name: each for each in loaded.graph.initializer if each.data_type == onnx.TensorProto.FLOAT}
    weighted = [node for node in loaded.graph.node if node.op_type in WEIGHTED and set(node.input) & set(stored)]
    random = np.random.default_rng(seed)
    done: set[str] = set()
    for node in weighted[-1:] if change.last_only else weighted:
        for name in node.input:
            if name in stored and name not in done:
                done.add(name)
                array = moved(numpy_helper.to_array(stored[name]), change.share, random, channels=_channels(node))
                stored[name].CopyFrom(numpy_helper.from_array(array, name))
    data: bytes = loaded.SerializeToString(deterministic=True)
    return data


def _channels(node: Any) -> int:
    """The axis of output channels of a node's weights."""
    if node.op_type == "Conv":
        return 0
    transposed = any(each.name == "transB" and each.i for each in node.attribute)
    return 0 if transposed else -1
