"""The parts of a Core ML program that hold weights: what a recipe quantizes, or leaves in float, as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.quantize.base import Unit

__all__ = ["COUNTED", "CoreMLUnit", "blocks_of", "find_units", "use_linear"]

ACTIVATIONS = frozenset(
    {"clamped_relu", "clip", "elu", "gelu", "leaky_relu", "prelu", "relu", "relu6", "sigmoid", "sigmoid_hard", "silu"}
    | {"softplus", "softsign", "tanh", "thresholded_relu"}
)
RECURRENT = ("lstm", "gru", "rnn")
RECURRENT_WEIGHTS = ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back")
COUNTED = frozenset({"conv", "conv_transpose", "linear", "matmul", *RECURRENT})  # convolutions and matrix products
LARGEST_LINEAR_RANK = 3  # of what Core ML's `linear` takes


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMLUnit:
    """``operation`` names the weighted operation; ``weights`` are its constant inputs, each with the axis that gets one
    scale for each index, ``data`` the input that meets them (None where only weights can be quantized)."""

    unit: Unit
    operation: str
    kind: str
    weights: tuple[tuple[str, int], ...]
    data: str | None
    nested: bool

    def covered_by(self, kinds: tuple[str, ...]) -> bool:
        """Whether a recipe's operators include this one; a matrix product is a `linear` of higher rank."""
        return self.kind in kinds or (self.kind == "matmul" and "linear" in kinds)


def blocks_of(block: Any) -> Iterator[Any]:
    """A block and all that are nested in it."""
    yield block
    for operation in block.operations:
        for inner in operation.blocks:
            yield from blocks_of(inner)


def use_linear(program: Any) -> None:
    """Turn products with a constant matrix into `linear`, in place: that is what Core ML has integer kernels for."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses

    for function in program.functions.values():
        for block in list(blocks_of(function)):
            for operation in list(block.operations):
                if not _is_linear(operation):
                    continue
                matrix = operation.y.val
                matrix = matrix if operation.transpose_y.val else matrix.T
                with block, mb.set_before_op(operation):
                    product = mb.linear(x=operation.x, weight=np.ascontiguousarray(matrix), name=operation.name)
                block.replace_uses_of_var_after_op(
                    anchor_op=operation, old_var=operation.outputs[0], new_var=product, force_replace=True
                )
                product.name = operation.outputs[0].name
                block.remove_ops([operation])


def _is_linear(operation: Any) -> bool:
    return bool(
        operation.op_type == "matmul"
        and operation.y.val is not None
        and operation.y.rank == 2
        and operation.x.val is None
        and 2 <= operation.x.rank <= LARGEST_LINEAR_RANK
        and not operation.transpose_x.val
        and operation.x.dtype == operation.y.dtype
    )


def find_units(function: Any) -> tuple[CoreMLUnit, ...]:
    """The units of a program's function in its order, those of nested blocks included."""
    return tuple(_units(function, nested=False))


def _units(block: Any, *, nested: bool) -> Iterator[CoreMLUnit]:
    for operation in block.operations:
        found = _weights(operation)
        if found:
            weights, data = found
            yield CoreMLUnit(
                unit=Unit(
                    name=operation.name,
                    operators=(operation.op_type, *_activation(operation)),
                    weights=sum(int(np.prod(operation.inputs[name].shape)) for name, _ in weights),
                ),
                operation=operation.name,
                kind=operation.op_type,
                weights=weights,
                data=data,
                nested=nested,
            )
        for inner in operation.blocks:
            yield from _units(inner, nested=True)


def _weights(operation: Any) -> tuple[tuple[tuple[str, int], ...], str | None] | None:
    kind = operation.op_type
    if kind in ("conv", "conv_transpose", "linear"):
        axis = 1 if kind == "conv_transpose" else 0
        return (((("weight", axis),), "x")) if _is_weight(operation.weight) else None
    if kind == "matmul":
        for name, other, last in (("y", "x", not operation.transpose_y.val), ("x", "y", operation.transpose_x.val)):
            matrix = operation.inputs[name]
            if _is_weight(matrix) and matrix.rank >= 2 and operation.inputs[other].val is None:
                return ((name, matrix.rank - 1 if last else matrix.rank - 2),), other
    if kind == "gather" and _is_weight(operation.x) and operation.x.rank == 2 and operation.axis.val == 0:
        return (("x", 0),), None
    if kind in RECURRENT:
        given = [name for name in RECURRENT_WEIGHTS if operation.inputs.get(name) is not None]
        return tuple((name, 0) for name in given if _is_weight(operation.inputs[name])), None
    return None


def _is_weight(var: Any) -> bool:
    """A constant of floats, stored as such."""
    from coremltools.converters.mil.mil import types

    return var.op is not None and var.op.op_type == "const" and var.dtype in (types.fp32, types.fp16)


def _activation(operation: Any) -> tuple[str, ...]:
    readers = operation.outputs[0].child_ops
    if len(readers) == 1 and readers[0].op_type in ACTIVATIONS:
        return (str(readers[0].op_type),)
    return ()
