"""INT8 for ONNX: QDQ around the operators of the recipe, weights by channel."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.quantize.calibration import RangeCollector
from converters.quantize.recipes import Recipe
from converters.quantize.weights import Quantized, refuse_low_share
from converters.quiet import load_tool, quiet
from converters.targets.onnx import check_onnx, compact

__all__ = ["inspect_onnx", "quantize_onnx"]

WEIGHT_INPUT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
FUSED = {"Relu", "Clip"}  # behind a quantized operator they become part of its output's range
# Operators that move values without computing with them.
MOVES = frozenset(
    {
        "Cast", "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Shape", "Slice",
        "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
    }
)  # fmt: skip


def quantize_onnx(model: bytes, calls: list[Mapping[str, np.ndarray]], recipe: Recipe) -> bytes:
    """A QDQ model. ``calls`` are the inputs of calibration calls (one or more rows each).

    Raises `QuantizationRefused` when less than the recipe's share of the weights could be quantized.
    """
    onnx = load_tool("onnx")
    quantization = load_tool("onnxruntime.quantization")
    float_model = onnx.load_from_string(model)
    for index, node in enumerate(float_model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    chosen = _chosen(float_model, recipe)
    ranges = _ranges(float_model, calls).ranges(recipe.range_coverage)
    overrides = {
        name: [{"rmin": np.float32(low), "rmax": np.float32(max(high, low + 1e-6))}]
        for name, (low, high) in ranges.items()
    }
    with tempfile.TemporaryDirectory(prefix="edgeship-onnx-") as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(float_model, source)
        with quiet("quantizing the ONNX model"):
            quantization.quantize_static(
                source,
                result,
                _Reader(calls[:1]),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=sorted({node.op_type for node in float_model.graph.node if node.name in chosen}),
                nodes_to_quantize=sorted(chosen),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={
                    "TensorQuantOverrides": overrides,
                    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
                },
            )
        quantized = onnx.load(result)
    del quantized.metadata_props[:]
    quantized.producer_name, quantized.producer_version = "edgeship", ""
    compact(quantized)
    refuse_low_share(inspect_onnx(quantized), recipe)
    data: bytes = quantized.SerializeToString(deterministic=True)
    check_onnx(onnx.load_from_string(data))
    return data


def inspect_onnx(model: Any) -> Quantized:
    """What of a model is in INT8."""
    onnx = load_tool("onnx")
    sizes = {each.name: int(np.prod(each.dims)) for each in model.graph.initializer}
    int8 = {each.name for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8}
    decoded = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes
    }
    total, quantized, floats = 0, 0, set()
    for node in model.graph.node:
        if node.op_type in WEIGHT_INPUT:
            name = node.input[WEIGHT_INPUT[node.op_type]]
            stored = decoded.get(name, name)
            total += sizes.get(stored, 0)
            if stored in int8:
                quantized += sizes[stored]
                continue
        if node.op_type not in MOVES | {"QuantizeLinear", "DequantizeLinear"}:
            floats.add(node.op_type)
    return Quantized(weights=total, quantized=quantized, float_operators=tuple(sorted(floats)))


def _chosen(model: Any, recipe: Recipe) -> set[str]:
    """Names of the nodes with constant weights that the recipe lists, and of the activations right behind them."""
    constants = {each.name for each in model.graph.initializer}
    chosen: set[str] = set()
    outputs: set[str] = set()
    for node in model.graph.node:
        weight = WEIGHT_INPUT.get(node.op_type)
        if node.op_type in recipe.operators["onnx"] and weight is not None and node.input[weight] in constants:
            chosen.add(node.name)
            outputs.add(node.output[0])
        elif node.op_type in FUSED and node.input[0] in outputs:
            chosen.add(node.name)
    return chosen


def _ranges(model: Any, calls: list[Mapping[str, np.ndarray]]) -> RangeCollector:
    """Run the float model with every inner tensor as an output."""
    onnx = load_tool("onnx")
    runtime = load_tool("onnxruntime")
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                probe.graph.output.append(onnx.ValueInfoProto(name=name))
    collector = RangeCollector()
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with quiet("calibrating the ONNX model"):
        session = runtime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs()]
        for call in calls:
            for name, value in (*call.items(), *zip(names, session.run(names, dict(call)), strict=True)):
                collector.observe(name, np.atleast_1d(value))
    return collector


class _Reader:
    """onnxruntime asks for calibration data even when every range is given."""

    def __init__(self, calls: list[Mapping[str, np.ndarray]]) -> None:
        self._calls = iter(calls)

    def get_next(self) -> dict[str, np.ndarray] | None:
        call = next(self._calls, None)
        return None if call is None else dict(call)
