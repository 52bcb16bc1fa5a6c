"""What of an ONNX file is in 8-bit integers, whoever made it."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.onnx_file import graphs_of, nodes_of
from converters.quantize.onnx_graph import MOVES, WEIGHT_INPUT
from converters.quantize.weights import Quantized
from converters.quiet import load_tool

__all__ = ["inspect_onnx"]

INTEGER_WEIGHT_INPUT = {
    "ConvInteger": 1, "DynamicQuantizeMatMul": 1, "MatMulInteger": 1, "MatMulIntegerToFloat": 1, "QGemm": 3,
    "QLinearConv": 3, "QLinearMatMul": 3,
}  # fmt: skip
SHELL = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
DECODING = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Transpose"})


def inspect_onnx(model: Any) -> Quantized:
    """Counts over the main graph and every branch and loop; a weight that several operators read counts once.

    ``float_operators`` are the types that compute in float: those with dequantized weights but float activations too.
    """
    onnx = load_tool("onnx")
    whole = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    stored = {each.name: each for graph in graphs_of(model.graph) for each in graph.initializer}
    producers = {name: node for node in nodes_of(model.graph) for name in node.output}
    kinds = _float_outputs(model)
    weights: dict[str, int] = {}
    integers: set[str] = set()
    floats: set[str] = set()
    for node in nodes_of(model.graph):
        place = {**WEIGHT_INPUT, **INTEGER_WEIGHT_INPUT}.get(node.op_type)
        name = None if place is None else _constant_behind(node, place, stored, producers)
        if name is not None:
            weights[name] = int(np.prod(stored[name].dims))
            if stored[name].data_type in whole:
                integers.add(name)
        if _computes_in_float(node, name in integers, producers, kinds):
            floats.add(node.op_type)
    return Quantized(
        weights=sum(weights.values()),
        quantized=sum(weights[name] for name in integers),
        float_operators=tuple(sorted(floats)),
    )


def _constant_behind(node: Any, place: int, stored: dict[str, Any], producers: dict[str, Any]) -> str | None:
    places = (1, 0) if node.op_type == "MatMul" else (place,)
    for each in places:
        name = node.input[each]
        while name not in stored and name in producers and producers[name].op_type in DECODING:
            name = producers[name].input[0]
        if name in stored:
            return name
    return None


def _computes_in_float(node: Any, integer: bool, producers: dict[str, Any], kinds: dict[str, bool]) -> bool:
    if node.op_type in MOVES | SHELL | set(INTEGER_WEIGHT_INPUT) or not any(kinds.get(n, True) for n in node.output):
        return False
    before = [producers[name] for name in node.input if name in producers]
    if node.op_type in WEIGHT_INPUT and integer:
        data = [each for each in before if each.op_type == "DequantizeLinear"]
        return len(data) < 2  # the weight's, and the activation's
    if node.op_type == "Mul":  # the scale behind an integer product
        return not any(each.op_type == "DynamicQuantizeLinear" or _is_sum(each, producers) for each in before)
    return True


def _is_sum(node: Any, producers: dict[str, Any]) -> bool:
    source = producers.get(node.input[0]) if node.op_type == "Cast" else None
    return source is not None and source.op_type in ("ConvInteger", "MatMulInteger")


def _float_outputs(model: Any) -> dict[str, bool]:
    """Whether tensors hold floats, as far as shape inference knows."""
    onnx = load_tool("onnx")
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        return {}
    float_kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    return {
        value.name: value.type.tensor_type.elem_type in float_kinds
        for graph in graphs_of(inferred.graph)
        for value in (*graph.value_info, *graph.output)
        if value.type.HasField("tensor_type")
    }
