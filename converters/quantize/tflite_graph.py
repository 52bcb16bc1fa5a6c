"""What is in a TFLite file: its weighted operators, and how much of them is in INT8."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from converters.quantize.base import Unit
from converters.quantize.tflite_compact import packed
from converters.quantize.weights import Quantized
from converters.quiet import load_tool, quiet
from converters.targets.tflite import operator_names

__all__ = [
    "acceptable",
    "inspect_tflite",
    "largest_weights",
    "readers_of_units",
    "tensor_name",
    "unit_tensors",
    "units_of",
    "unpacked",
    "with_float_outputs",
]

WEIGHT_INPUT = {
    "BATCH_MATMUL": 1, "CONV_2D": 1, "CONV_3D": 1, "CONV_3D_TRANSPOSE": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
}  # fmt: skip
DATA_INPUT = {"CONV_3D_TRANSPOSE": 2, "TRANSPOSE_CONV": 2}
SAME_VALUES = frozenset({"MAX_POOL_2D", "RESHAPE", "SLICE", "SQUEEZE", "STRIDED_SLICE", "TRANSPOSE"})
MOVES = frozenset(
    {
        "BROADCAST_TO", "CAST", "CONCATENATION", "EXPAND_DIMS", "FILL", "GATHER", "IF", "PACK", "PAD", "PADV2",
        "RESHAPE", "SHAPE", "SLICE", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
        "WHILE",
    }
)  # fmt: skip


def unpacked(data: bytes) -> Any:
    """The flatbuffer as objects (`ModelT`). Raises `ConversionFailed` for what is not TFLite."""
    tool = load_tool("ai_edge_litert.tools.flatbuffer_utils")
    with quiet("reading the TFLite model"):
        return tool.read_model_from_bytearray(bytearray(data))  # big buffers lie behind the flatbuffer


def acceptable(data: bytes) -> bytes:
    """The same model as ai-edge-quantizer takes it: with a list of signatures, if an empty one, and with every tensor
    named differently; as given where it is so already."""
    model = unpacked(data)
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    counts = Counter(tensor_name(tensor) for tensor in tensors)
    if max(counts.values(), default=1) == 1 and "" not in counts and model.signatureDefs is not None:
        return data
    model.signatureDefs = model.signatureDefs or []
    taken = set(counts)
    seen: set[str] = set()
    for tensor in tensors:
        base = candidate = tensor_name(tensor) or "tensor"
        number = 1
        while candidate in seen or (candidate != tensor_name(tensor) and candidate in taken):
            candidate, number = f"{base}_{number}", number + 1
        seen.add(candidate)
        tensor.name = candidate.encode()
    return packed(model)


def with_float_outputs(data: bytes) -> bytes:
    """The same model, with each output taken where it is still float.

    Where an operator to be quantized reads an output too, ai-edge-quantizer makes the rounded copy the graph's output,
    but leaves the signature with the float one, which then belongs to nobody.
    """
    model = unpacked(data)
    floats = load_tool("ai_edge_litert.schema_py_generated").TensorType.FLOAT32
    kinds, graph = operator_names(model), model.subgraphs[0]
    rounded = {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if kinds[operator.opcodeIndex] == "QUANTIZE" and graph.tensors[operator.inputs[0]].type == floats
    }
    if not rounded.keys() & {int(at) for at in graph.outputs}:
        return data
    graph.outputs = np.array([rounded.get(int(at), int(at)) for at in graph.outputs], np.int32)
    for signature in model.signatureDefs or ():
        for each in signature.outputs:
            each.tensorIndex = rounded.get(each.tensorIndex, each.tensorIndex)
    return packed(model)


def tensor_name(tensor: Any) -> str:
    return tensor.name.decode() if tensor.name else ""


def units_of(model: Any) -> dict[str, Unit]:
    """Operators of the main graph with constant float weights, by the name of the tensor that each gives.

    TFLite fuses activations into its operators, so that each is a unit of its own.
    """
    schema = load_tool("ai_edge_litert.schema_py_generated")
    kinds, graph = operator_names(model), model.subgraphs[0]
    units = {}
    for operator in graph.operators:
        kind = kinds[operator.opcodeIndex]
        weight = _weight(model, graph, operator, kind)
        if weight is not None and weight.type == schema.TensorType.FLOAT32:
            name = tensor_name(graph.tensors[operator.outputs[0]])
            units[name] = Unit(name=name, operators=(kind,), weights=_elements(weight))
    return units


def unit_tensors(model: Any) -> dict[str, tuple[str, str]]:
    """Names of the activation that each unit reads, and of the one that it gives."""
    kinds, graph, units = operator_names(model), model.subgraphs[0], units_of(model)
    result = {}
    for operator in graph.operators:
        name = tensor_name(graph.tensors[operator.outputs[0]]) if len(operator.outputs) else ""
        if name in units:
            source = operator.inputs[DATA_INPUT.get(kinds[operator.opcodeIndex], 0)]
            result[name] = tensor_name(graph.tensors[source]), name
    return result


def readers_of_units(model: Any) -> dict[str, set[str | None]]:
    """Names of the units that read what each unit gives, also behind operators that move values only; None among them
    for any other reader."""
    kinds, graph, units = operator_names(model), model.subgraphs[0], units_of(model)
    consumers: dict[int, list[Any]] = {}
    for operator in graph.operators:
        for index in operator.inputs:
            consumers.setdefault(int(index), []).append(operator)
    ends = {int(index) for index in graph.outputs}

    def readers(index: int) -> set[str | None]:
        found: set[str | None] = {None} if index in ends else set()
        for operator in consumers.get(index, []):
            kind = kinds[operator.opcodeIndex]
            name = tensor_name(graph.tensors[operator.outputs[0]]) if len(operator.outputs) else ""
            if kind in SAME_VALUES:
                found |= readers(int(operator.outputs[0]))
            else:
                is_data = int(operator.inputs[DATA_INPUT.get(kind, 0)]) == index
                found.add(name if name in units and is_data else None)
        return found

    return {
        name: readers(int(operator.outputs[0]))
        for operator in graph.operators
        if len(operator.outputs) and (name := tensor_name(graph.tensors[operator.outputs[0]])) in units
    }


def largest_weights(model: Any) -> dict[str, float]:
    """The largest absolute weight of each unit."""
    kinds, graph, units = operator_names(model), model.subgraphs[0], units_of(model)
    result = {}
    for operator in graph.operators:
        name = tensor_name(graph.tensors[operator.outputs[0]]) if len(operator.outputs) else ""
        if name in units:
            weight = _weight(model, graph, operator, kinds[operator.opcodeIndex])
            values = np.frombuffer(bytes(model.buffers[weight.buffer].data), "<f4")
            result[name] = float(np.abs(values).max(initial=0.0))
    return result


def inspect_tflite(data: bytes) -> Quantized:
    """Counts over every graph of the file; a weight that several operators read counts once.

    ``float_operators`` are the types that compute in float: those with dequantized weights or float activations too.
    """
    schema = load_tool("ai_edge_litert.schema_py_generated")
    model = unpacked(data)
    kinds = operator_names(model)
    sizes: dict[int, int] = {}
    integers: set[int] = set()
    floats: set[str] = set()
    for graph in model.subgraphs:
        decoded = _dequantized(graph, kinds)
        for operator in graph.operators:
            kind = kinds[operator.opcodeIndex]
            weight = _weight(model, graph, operator, kind, decoded)
            if weight is not None:
                sizes[weight.buffer] = _elements(weight)
                if weight.type == schema.TensorType.INT8:
                    integers.add(weight.buffer)
            is_float = len(operator.outputs) and graph.tensors[operator.outputs[0]].type == schema.TensorType.FLOAT32
            if not is_float or kind in MOVES | {"DEQUANTIZE"}:
                continue
            # With weights in INT8 as they are, and float activations, the kernel rounds these at run time.
            if weight is not None and weight.buffer in integers and not _is_decoded(operator, kind, decoded):
                continue
            floats.add(kind)
    return Quantized(
        weights=sum(sizes.values()),
        quantized=sum(sizes[buffer] for buffer in integers),
        float_operators=tuple(sorted(floats)),
    )


def _weight(model: Any, graph: Any, operator: Any, kind: str, decoded: dict[int, int] | None = None) -> Any | None:
    """The constant tensor that holds an operator's weights, looked for behind DEQUANTIZE where ``decoded`` is given."""
    place = WEIGHT_INPUT.get(kind)
    if place is None or place >= len(operator.inputs):
        return None
    index = int(operator.inputs[place])
    tensor = graph.tensors[(decoded or {}).get(index, index)]
    data = model.buffers[tensor.buffer].data
    return tensor if data is not None and len(data) else None


def _is_decoded(operator: Any, kind: str, decoded: dict[int, int]) -> bool:
    return int(operator.inputs[WEIGHT_INPUT[kind]]) in decoded


def _dequantized(graph: Any, kinds: list[str]) -> dict[int, int]:
    """Tensor given by a DEQUANTIZE → tensor that it reads."""
    return {
        int(operator.outputs[0]): int(operator.inputs[0])
        for operator in graph.operators
        if kinds[operator.opcodeIndex] == "DEQUANTIZE"
    }


def _elements(tensor: Any) -> int:
    return int(np.prod(tensor.shape))
