"""What of a Core ML program is in 8-bit integers, whoever made it."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.quantize.coreml_units import COUNTED, RECURRENT, RECURRENT_WEIGHTS
from converters.quantize.weights import Quantized

__all__ = ["inspect_coreml"]

MOVES = frozenset(
    {"cast", "concat", "cond", "crop", "depth_to_space", "dequantize", "expand_dims", "gather", "gather_along_axis"}
    | {"gather_nd", "identity", "list_gather", "list_length", "list_read", "list_scatter", "list_write", "make_list"}
    | {"pad", "pixel_shuffle", "pixel_unshuffle", "quantize", "reshape", "reverse", "shape", "slice_by_index"}
    | {"slice_by_size", "space_to_depth", "split", "squeeze", "stack", "tile", "transpose", "while_loop"}
)
INTEGERS = ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale")
BYTE = 1


def inspect_coreml(reference: CoreMLReference) -> Quantized:
    """A weight that several operations read counts once. ``float_operators`` are the types that compute in float:
    those with INT8 weights but float activations too."""
    from coremltools.converters.mil.mil import types

    weights: dict[Any, int] = {}
    integers: set[Any] = set()
    floats: set[str] = set()
    for operation in reference.operations():
        kind = operation.op_type
        if kind in MOVES or kind.startswith("constexpr"):
            continue
        given = weight_inputs(operation)
        for var in given:
            weights[var] = int(np.prod(var.shape))
            if _is_integer(var):
                integers.add(var)
        if given and all(var in integers for var in given) and _rounded_data(operation, given):
            continue
        if any(not hasattr(var, "elem_type") and types.is_float(var.dtype) for var in operation.outputs):
            floats.add(kind)
    return Quantized(
        weights=sum(weights.values()),
        quantized=sum(weights[var] for var in integers),
        float_operators=tuple(sorted(floats)),
    )


def weight_inputs(operation: Any) -> list[Any]:
    """The constant inputs of a convolution or matrix product that hold its weights, stored in whatever way."""
    kind = operation.op_type
    if kind not in COUNTED:
        return []
    if kind in RECURRENT:
        names: tuple[str, ...] = RECURRENT_WEIGHTS
    else:
        names = ("x", "y") if kind == "matmul" else ("weight",)
    given = [operation.inputs.get(name) for name in names]
    return [var for var in given if var is not None and var.op is not None and _is_constant(var.op)]


def _is_constant(operation: Any) -> bool:
    return operation.op_type == "const" or bool(operation.op_type.startswith("constexpr"))


def _is_integer(var: Any) -> bool:
    """Whether the constant is stored as integers of 8 bits or fewer."""
    if var.op.op_type not in INTEGERS:
        return False
    stored = var.op.inputs.get("quantized_data") or var.op.inputs.get("data")
    return bool(np.asarray(stored.val).dtype.itemsize == BYTE)


def _rounded_data(operation: Any, weights: list[Any]) -> bool:
    """Whether what meets the weights has been rounded to integers."""
    live = [operation.inputs.get(name) for name in ("x", "y") if operation.inputs.get(name) is not None]
    live = [var for var in live if var not in weights]
    return bool(live) and all(var.op is not None and var.op.op_type == "dequantize" for var in live)
