"""In which precision a finished model stores and computes, found in the file and not believed from its name.

A weight is counted under ``int8`` if it and the activations that meet it are integers that the file fixes (static
W8A8), ``int8-dynamic`` if the activations become integers while running, ``int8-weights`` if the weight is turned into
floats first, ``fp16`` and ``fp32`` otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from converters.onnx_file import graphs_of
from converters.quiet import load_tool

__all__ = ["WIDEST_FIRST", "coreml_precision", "onnx_precision", "reached", "tflite_precision"]

WIDEST_FIRST = ("fp32", "fp16", "int8-weights", "int8-dynamic", "int8")
SPARED = 0.1  # share of the weights that may be wider than the precision says, as for int8: .9 in INT8

ONNX_WEIGHT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "LSTM": 1, "GRU": 1, "RNN": 1}
ONNX_INTEGER = {  # operator: its weight input, and the precision that it computes in
    "ConvInteger": (1, "int8-dynamic"), "DynamicQuantizeLSTM": (1, "int8-dynamic"),
    "DynamicQuantizeMatMul": (1, "int8-dynamic"), "MatMulInteger": (1, "int8-dynamic"),
    "MatMulIntegerToFloat": (1, "int8-dynamic"), "MatMulNBits": (1, "int8-weights"), "QGemm": (3, "int8"),
    "QLinearConv": (3, "int8"), "QLinearMatMul": (3, "int8"),
}  # fmt: skip
ONNX_MOVES = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
TFLITE_WEIGHT = {
    "CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1, "BATCH_MATMUL": 1,
    "SVDF": 1, "UNIDIRECTIONAL_SEQUENCE_LSTM": 1, "UNIDIRECTIONAL_SEQUENCE_RNN": 1,
}  # fmt: skip
TFLITE_INTEGERS = ("INT8", "UINT8", "INT16", "INT4")
COREML_WEIGHT = {"conv": "weight", "conv_transpose": "weight", "linear": "weight", "matmul": "y", "lstm": "weight_ih"}


def reached(weights: Mapping[str, int]) -> str:
    """The widest precision that more than a tenth of the weight elements have: ``weights`` counts them by precision.
    A model without weights is ``fp32``."""
    total = sum(weights.values())
    for precision in WIDEST_FIRST:
        if weights.get(precision, 0) > SPARED * total:
            return precision
    return "fp32"


def onnx_precision(model: Any) -> str:
    """Of an onnx.ModelProto."""
    counts = Counter[str]()
    for graph in graphs_of(model.graph):
        constants = {each.name: each for each in graph.initializer}
        constants |= {
            node.output[0]: attribute.t
            for node in graph.node
            if node.op_type == "Constant"
            for attribute in node.attribute
            if attribute.HasField("t")
        }
        makers = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            counts.update(dict(_onnx_weight(node, constants, makers)))
    return reached(counts)


def _onnx_weight(node: Any, constants: Mapping[str, Any], makers: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    if node.op_type in ONNX_INTEGER:
        index, precision = ONNX_INTEGER[node.op_type]
        if len(node.input) > index and node.input[index] in constants:
            yield precision, prod(constants[node.input[index]].dims)
        return
    index = ONNX_WEIGHT.get(node.op_type, -1)
    if not 0 <= index < len(node.input):
        return
    name, dequantized = node.input[index], False
    while name in makers and name not in constants:
        maker = makers[name]
        if maker.op_type == "DequantizeLinear":
            dequantized = True
        elif maker.op_type not in ONNX_MOVES:
            return  # computed while running: no weight
        name = maker.input[0]
    if name not in constants:
        return
    weight = constants[name]
    activation = makers.get(node.input[0])
    if dequantized:
        static = activation is not None and activation.op_type == "DequantizeLinear"
        precision = "int8" if static else "int8-weights"
    else:
        precision = "fp16" if weight.data_type == load_tool("onnx").TensorProto.FLOAT16 else "fp32"
    yield precision, prod(weight.dims)


def tflite_precision(model: Any) -> str:
    """Of a ModelT, as LiteRT's schema reads it."""
    schema = load_tool("ai_edge_litert.schema_py_generated")
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {number: name for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
    codes = [kinds.get(max(code.builtinCode, code.deprecatedBuiltinCode), "") for code in model.operatorCodes]
    counts = Counter[str]()
    for graph in model.subgraphs:
        operators = list(graph.operators or ())
        makers = {int(index): operator for operator in operators for index in operator.outputs}
        for operator in operators:
            position = TFLITE_WEIGHT.get(codes[operator.opcodeIndex], len(operator.inputs))
            if position >= len(operator.inputs):
                continue
            index, dequantized = int(operator.inputs[position]), False
            maker = makers.get(index)
            if maker is not None and codes[maker.opcodeIndex] == "DEQUANTIZE":
                index, dequantized = int(maker.inputs[0]), True
            if index < 0 or not _has_data(model, graph.tensors[index]):
                continue
            weight = types[graph.tensors[index].type]
            activation = types[graph.tensors[int(operator.inputs[0])].type]
            if weight in TFLITE_INTEGERS:
                met = "int8" if activation in TFLITE_INTEGERS else "int8-dynamic"
                precision = "int8-weights" if dequantized else met
            else:
                precision = "fp16" if weight == "FLOAT16" else "fp32"
            counts[precision] += prod(int(size) for size in graph.tensors[index].shape)
    return reached(counts)


def _has_data(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def coreml_precision(operations: list[Any]) -> str:
    """Of the operations of a MIL program. Weights in any code of at most 8 bits (palettes too) are integers here."""
    counts = Counter[str]()
    for operation in operations:
        key = COREML_WEIGHT.get(operation.op_type)
        weight = operation.inputs.get(key) if key else None
        if weight is None or weight.op is None:
            continue
        maker = weight.op.op_type
        if maker.startswith("constexpr"):
            meets = operation.inputs["x"].op
            precision = "int8" if meets is not None and meets.op_type == "dequantize" else "int8-weights"
        elif weight.val is not None:
            precision = "fp16" if str(weight.val.dtype) == "float16" else "fp32"
        else:
            continue
        counts[precision] += prod(int(size) for size in weight.shape)
    return reached(counts)
