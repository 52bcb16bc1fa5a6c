"""INT8 for TFLite with ai-edge-quantizer: the operators of the recipe only, with our own ranges.

The tool's own calibration keeps a moving average of each row's extremes, which clips; its ranges are therefore not
used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.quantize.calibration import RangeCollector
from converters.quantize.recipes import Recipe
from converters.quantize.weights import Quantized, refuse_low_share
from converters.quiet import load_tool, quiet
from converters.targets.tflite import SIGNATURE, check_tflite

__all__ = ["inspect_tflite", "quantize_tflite"]

WEIGHT_INPUT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
MOVES = frozenset(
    {
        "CAST", "CONCATENATION", "EXPAND_DIMS", "GATHER", "PACK", "PAD", "PADV2", "RESHAPE", "SHAPE", "SLICE", "SPLIT",
        "SQUEEZE", "STRIDED_SLICE", "TILE", "TRANSPOSE", "UNPACK",
    }
)  # fmt: skip


def quantize_tflite(model: bytes, calls: list[Mapping[str, np.ndarray]], recipe: Recipe) -> bytes:
    """A model whose chosen operators run on INT8; inputs and outputs stay float. ``calls`` hold one example each.

    Raises `QuantizationRefused` when less than the recipe's share of the weights could be quantized.
    """
    quantizer_module = load_tool("ai_edge_quantizer.quantizer")
    collector = _ranges(model, calls)
    # What no quantized operator reads (the logits) keeps its whole range: clipping it would only cap confidences.
    whole = {name: limits for name, limits in collector.ranges(1.0).items() if name in _last_tensors(model, recipe)}
    ranges = collector.ranges(recipe.range_coverage) | whole
    with quiet("ai-edge-quantizer"):
        quantizer = quantizer_module.Quantizer(bytearray(model))
        for operator in recipe.operators["tflite"]:
            quantizer.add_static_config(regex=".*", operation_name=operator, activation_num_bits=8, weight_num_bits=8)
        statistics = {
            name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
            for name, (low, high) in ranges.items()
        }
        data = bytes(quantizer.quantize(statistics).quantized_model)
    refuse_low_share(inspect_tflite(data), recipe)
    interpreter = load_tool("ai_edge_litert.interpreter")
    with quiet("reading the TFLite signature"):
        signature = interpreter.Interpreter(model_content=model).get_signature_list()[SIGNATURE]
    check_tflite(data, tuple(signature["inputs"]), tuple(signature["outputs"]))
    return data


def inspect_tflite(data: bytes) -> Quantized:
    """What of a model is in INT8."""
    schema = load_tool("ai_edge_litert.schema_py_generated")
    kinds, graph, model = _read(data)
    total, quantized, floats = 0, 0, set()
    for operator in graph.operators:
        kind = kinds[operator.opcodeIndex]
        if kind in WEIGHT_INPUT:
            weight = graph.tensors[operator.inputs[WEIGHT_INPUT[kind]]]
            elements = int(np.prod(weight.shape)) if _is_constant(model, weight) else 0
            total += elements
            if weight.type == schema.TensorType.INT8 and _type(graph, operator.inputs[0]) == schema.TensorType.INT8:
                quantized += elements
                continue
        output = _type(graph, operator.outputs[0])
        if kind not in MOVES | {"QUANTIZE", "DEQUANTIZE"} and output == schema.TensorType.FLOAT32:
            floats.add(kind)
    return Quantized(weights=total, quantized=quantized, float_operators=tuple(sorted(floats)))


def _last_tensors(data: bytes, recipe: Recipe) -> set[str]:
    """Names of the tensors that no operator of the recipe reads."""
    kinds, graph, _ = _read(data)
    chosen = [operator for operator in graph.operators if kinds[operator.opcodeIndex] in recipe.operators["tflite"]]
    read = {int(index) for operator in chosen for index in operator.inputs}
    return {tensor.name.decode() for index, tensor in enumerate(graph.tensors) if index not in read}


def _read(data: bytes) -> tuple[list[str], Any, Any]:
    """Operator types by code, the main graph, and the model."""
    schema = load_tool("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    kinds = [names[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return kinds, model.subgraphs[0], model


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _type(graph: Any, index: int) -> int:
    return int(graph.tensors[index].type)


def _ranges(model: bytes, calls: list[Mapping[str, np.ndarray]]) -> RangeCollector:
    """Run the float model, keeping every inner tensor."""
    litert = load_tool("ai_edge_litert.interpreter")
    collector = RangeCollector()
    with quiet("calibrating the TFLite model"):
        interpreter = litert.Interpreter(
            model_content=model,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        inputs = interpreter.get_signature_runner(SIGNATURE).get_input_details()
        produced = {index for operator in interpreter._get_ops_details() for index in operator["outputs"] if index >= 0}
        names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
        watched = {index: names[index] for index in (*produced, *(each["index"] for each in inputs.values()))}
        for call in calls:
            for name, value in call.items():
                interpreter.set_tensor(inputs[name]["index"], value)
            interpreter.invoke()
            for index, name in watched.items():
                collector.observe(name, interpreter.get_tensor(index)[np.newaxis])
    return collector
