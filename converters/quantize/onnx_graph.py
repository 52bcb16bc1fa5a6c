"""A float ONNX graph made ready for quantization, and the units in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, QuantizationRefused
from converters.onnx_file import graphs_of, inlined, nodes_of, refuse_foreign_domains, upgraded
from converters.quantize.base import Unit
from converters.quiet import load_tool
from converters.targets.onnx import OPSET, optimized

__all__ = [
    "MATRIX",
    "MOVES",
    "RECURRENT",
    "WEIGHT_INPUT",
    "OnnxUnit",
    "channel_axis",
    "data_input",
    "find_units",
    "origin",
    "prepare",
]

PER_CHANNEL_OPSET = 13  # DequantizeLinear has an axis since then
WEIGHT_INPUT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
RECURRENT = {"LSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2)}  # input and recurrence weights
MATRIX = frozenset({"Gemm", "MatMul"})
ACTIVATIONS = frozenset({"Relu", "Clip"})  # behind a quantized operator they become part of its output's range
QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}
    | {"ConvInteger", "MatMulInteger"}
)
# Operators that move values without computing with them.
MOVES = frozenset(
    {
        "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "Identity", "If", "Loop", "Pad",
        "Range", "Reshape", "Scan", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip
FOLDED = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
# Operators through which codes pass unchanged: what follows them is quantized like what came before.
SAME_VALUES = frozenset({"Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
LARGEST_GROWTH = 1.1  # of the file, by folding constants: beyond that they are cheaper to compute


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxUnit:
    """A `Unit` and where it is: the node's name, its operator type, the inputs that hold its weights, and the name of
    the activation node fused behind it. ``nested`` units lie in a branch or a loop, whose inner values cannot be seen
    from outside, so that no ranges are known there."""

    unit: Unit
    operator: str
    weight_inputs: tuple[int, ...]
    activation: str | None
    nested: bool

    @property
    def name(self) -> str:
        return self.unit.name


def prepare(model: bytes) -> Any:
    """The model (an ``onnx.ModelProto``) with functions inlined, in opset 13 or later, its constants folded into
    initializers, its batch normalizations into convolutions, and with unique node names.

    Raises `UnsupportedOperator` for custom operators, `UnsupportedModel` for an old opset that cannot be upgraded and
    `QuantizationRefused` for a model that is quantized already.
    """
    onnx = load_tool("onnx")
    given = onnx.load_from_string(model)
    refuse_foreign_domains(given)
    found = sorted({node.op_type for node in nodes_of(given.graph)} & QUANTIZED)
    if found:
        raise QuantizationRefused(f"the model is quantized already: it has {', '.join(found)}; give the float model")
    result = upgraded(inlined(given), PER_CHANNEL_OPSET, OPSET)
    try:
        folded = optimized(result)
    except ConversionFailed:
        folded = result  # what the engine cannot load is found, and said, by the check of the result
    if folded.ByteSize() <= LARGEST_GROWTH * result.ByteSize():
        result = folded
    for graph in graphs_of(result.graph):
        _constants_to_initializers(graph)
    _fold(result)
    _name_nodes(result)
    return result


def find_units(model: Any) -> tuple[OnnxUnit, ...]:
    """Every operator with constant weights, in the graph's order, with the activation that alone reads its output."""
    return tuple(_units_in(model.graph, {}, {value.name for value in model.graph.output}, nested=False))


def data_input(unit: OnnxUnit) -> int:
    """Which input of the unit's operator is the activation."""
    return 1 - unit.weight_inputs[0] if unit.operator == "MatMul" else 0


def channel_axis(node: Any, unit: OnnxUnit) -> tuple[str, int] | None:
    """The activation that the unit reads, and which of its axes holds channels; None where the unit has no such."""
    if unit.operator == "Conv":
        return node.input[0], 1
    transposed = any(each.name == "transA" and each.i for each in node.attribute)
    return (node.input[0], -1) if unit.operator == "Gemm" and not transposed else None


def origin(producers: Mapping[str, Any], name: str) -> str:
    """The tensor whose values ``name`` holds, in another order or shape; ``producers`` are nodes by output."""
    while name in producers and producers[name].op_type in SAME_VALUES and producers[name].output[0] == name:
        name = producers[name].input[0]
    return name


def tensors_around(model: Any, unit: OnnxUnit) -> tuple[str, str]:
    """Names of the activation that a unit outside of branches reads, and of the one that it gives."""
    nodes = {node.name: node for node in model.graph.node}
    last = nodes[unit.activation or unit.name]
    return nodes[unit.name].input[data_input(unit)], last.output[0]


def _units_in(graph: Any, outer: Mapping[str, int], outputs: set[str], *, nested: bool) -> Iterator[OnnxUnit]:
    sizes = {**outer, **{each.name: int(np.prod(each.dims)) for each in graph.initializer if _is_float(each)}}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in {*node.input, *_read_inside(node)}:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        inputs = tuple(at for at in _weight_inputs(node) if at < len(node.input) and node.input[at] in sizes)
        inputs = inputs[:1] if node.op_type == "MatMul" else inputs
        if inputs and (node.op_type not in RECURRENT or len(inputs) == 2):
            behind = readers.get(node.output[0], [])
            fused = (
                len(behind) == 1
                and behind[0].op_type in ACTIVATIONS
                and behind[0].input[0] == node.output[0]
                and all(name in sizes for name in behind[0].input[1:] if name)
                and node.output[0] not in outputs
                and node.op_type not in RECURRENT
            )
            yield OnnxUnit(
                unit=Unit(
                    name=node.name,
                    operators=(node.op_type, behind[0].op_type) if fused else (node.op_type,),
                    weights=sum(sizes[node.input[at]] for at in inputs),
                ),
                operator=node.op_type,
                weight_inputs=inputs,
                activation=behind[0].name if fused else None,
                nested=nested,
            )
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _units_in(body, sizes, {value.name for value in body.output}, nested=True)


def _weight_inputs(node: Any) -> tuple[int, ...]:
    if node.op_type in RECURRENT:
        return RECURRENT[node.op_type]
    if node.op_type == "MatMul":
        return (1, 0)
    return (WEIGHT_INPUT[node.op_type],) if node.op_type in WEIGHT_INPUT else ()


def _is_float(tensor: Any) -> bool:
    return bool(tensor.data_type == load_tool("onnx").TensorProto.FLOAT)


def _read_inside(node: Any) -> set[str]:
    """Names that a node's branches or body read, of whichever graph."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return {name for body in bodies for each in graphs_of(body) for inner in each.node for name in inner.input}


def _constants_to_initializers(graph: Any) -> None:
    onnx = load_tool("onnx")
    kept = []
    for node in graph.node:
        value = next((each for each in node.attribute if each.name == "value"), None)
        if node.op_type == "Constant" and value is not None and node.output[0] not in {v.name for v in graph.output}:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        copies = [_copy(node) for node in kept]
        del graph.node[:]
        graph.node.extend(copies)


def _copy(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _fold(model: Any) -> None:
    """Compute reshaped, transposed and cast weights, for models that ONNX Runtime's folding did not change."""
    onnx = load_tool("onnx")
    evaluator = load_tool("onnx.reference").ReferenceEvaluator
    for graph in graphs_of(model.graph):
        constants = {each.name: each for each in graph.initializer}
        outputs = {value.name for value in graph.output}
        kept = []
        for node in graph.node:
            if node.op_type in FOLDED and all(n in constants for n in node.input) and node.output[0] not in outputs:
                body = onnx.helper.make_graph(
                    [node], "fold", [], [onnx.ValueInfoProto(name=node.output[0])], [constants[n] for n in node.input]
                )
                one = onnx.helper.make_model(body, opset_imports=model.opset_import)
                value = onnx.numpy_helper.from_array(np.ascontiguousarray(evaluator(one).run(None, {})[0]))
                value.name = node.output[0]
                graph.initializer.append(value)
                constants[value.name] = value
            else:
                kept.append(_copy(node))
        if len(kept) < len(graph.node):
            del graph.node[:]
            graph.node.extend(kept)


def _name_nodes(model: Any) -> None:
    """A unique name for every node, at every depth; the given one, where there is one."""
    taken: set[str] = set()
    for node in nodes_of(model.graph):
        base = candidate = re.sub(r"__\d+", "", node.name) or f"{node.op_type}_{node.output[0]}"
        number = 1
        while candidate in taken:
            candidate, number = f"{base}_{number}", number + 1
        taken.add(candidate)
        node.name = candidate
