"""W8A8 for Core ML (iOS 17): quantize and dequantize before the chosen operators, weights in INT8 by channel.

coremltools' own `linear_quantize_activations` finds its ranges by running the model on a Mac. Here they come from
`coreml_reference`, and the pairs are put into the program directly.

The Neural Engine computes W8A8 in fp16, so the chosen operators, and what lies between them, are declared fp16; what
reads the raw input (normalization, statistics of it) stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.quantize.calibration import RangeCollector
from converters.quantize.recipes import Recipe
from converters.quantize.weights import Quantized, refuse_low_share
from converters.quiet import load_tool, quiet
from converters.sources.tfgraph import FrozenGraph
from converters.targets.coreml import check_coreml, coreml_program, pack_program
from edge_runtime.bundle import TensorSpec

__all__ = ["inspect_coreml", "quantize_coreml"]

SMALLEST_FP16_STEP = 1e-4  # a scale below fp16's normal numbers loses its precision
WEIGHTED = ("conv", "conv_transpose", "linear")
BETWEEN = frozenset(
    {
        "avg_pool",
        "clip",
        "concat",
        "expand_dims",
        "max_pool",
        "reduce_mean",
        "relu",
        "relu6",
        "reshape",
        "squeeze",
        "transpose",
    }
)
MOVES = frozenset(
    {"cast", "concat", "constexpr_affine_dequantize", "expand_dims", "gather", "identity", "pad", "reshape"}
    | {"slice_by_index", "slice_by_size", "split", "squeeze", "stack", "tile", "transpose"}
)


def quantize_coreml(
    graph: FrozenGraph, inputs: tuple[TensorSpec, ...], calls: Mapping[str, np.ndarray], recipe: Recipe
) -> bytes:
    """A W8A8 package from the frozen graph. ``calls`` are rows ``(rows, 1, …)``, with the program's batch of 1.

    Raises `QuantizationRefused` when less than the recipe's share of the weights could be quantized.
    """
    kinds = recipe.operators["coreml"]
    half = pack_program(coreml_program(graph, inputs, fp16=_half_precision(kinds)))
    reference = CoreMLReference(half)
    collector = RangeCollector()
    reference.run(calls, collector.observe)
    with quiet("quantizing the Core ML program"):
        quantized = _insert_pairs(reference, collector.ranges(recipe.range_coverage), kinds)
    data = pack_program(quantized, finish=lambda model: _quantize_weights(model, kinds))
    result = check_coreml(data, graph.inputs, graph.outputs)
    refuse_low_share(inspect_coreml(result), recipe)
    return data


def inspect_coreml(reference: CoreMLReference) -> Quantized:
    """What of a program is in INT8: weights stored as integers, of operators whose input is dequantized."""
    total, quantized, floats = 0, 0, set()
    for operation in reference.operations():
        kind = operation.op_type
        if kind in WEIGHTED:
            weight = operation.weight
            elements = int(np.prod(weight.shape))
            total += elements
            stored = weight.op is not None and weight.op.op_type == "constexpr_affine_dequantize"
            if stored and operation.x.op is not None and operation.x.op.op_type == "dequantize":
                quantized += elements
                continue
        if kind not in MOVES | {"quantize", "dequantize"}:
            floats.add(kind)
    return Quantized(weights=total, quantized=quantized, float_operators=tuple(sorted(floats)))


def _half_precision(kinds: tuple[str, ...]) -> Callable[[Any], bool]:
    """Chooses the operators to quantize, and those between them that depend on nothing else."""
    known: dict[str, bool] = {}

    def chosen(operation: Any) -> bool:
        if operation.name not in known:
            known[operation.name] = _decide(operation)
        return known[operation.name]

    def _decide(operation: Any) -> bool:
        if operation.op_type == "cast":  # put in behind an operation that was chosen before
            return operation.x.op is not None and chosen(operation.x.op)
        if operation.op_type in kinds:
            return operation.weight.val is not None
        if operation.op_type not in BETWEEN:
            return False
        values = operation.inputs.get("values")
        live = [var for var in (values if values is not None else [operation.inputs.get("x")]) if var is not None]
        return bool(live) and all(var.op is not None and chosen(var.op) for var in live)

    return chosen


def _insert_pairs(reference: CoreMLReference, ranges: Mapping[str, tuple[float, float]], kinds: tuple[str, ...]) -> Any:
    """The reference's program with a quantize/dequantize pair on the input of every chosen operation."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses
    from coremltools.converters.mil.mil import types

    program = reference.program
    for function in program.functions.values():
        pairs: dict[str, Any] = {}
        for operation in list(function.operations):
            if operation.op_type not in kinds or operation.weight.val is None or operation.x.name not in ranges:
                continue
            source = operation.x
            with function, mb.set_before_op(operation):
                if source.name not in pairs:
                    low, high = ranges[source.name]
                    half = source.dtype == types.fp16
                    step = max((high - low) / 255, SMALLEST_FP16_STEP if half else 1e-9)
                    scale = np.float16(step) if half else np.float32(step)
                    zero = np.int8(np.clip(np.rint(-128 - low / step), -128, 127))
                    codes = mb.quantize(input=source, scale=scale, zero_point=zero, output_dtype="int8")
                    pairs[source.name] = mb.dequantize(input=codes, scale=scale, zero_point=zero)
                arguments = {name: var for name, var in operation.inputs.items() if var is not None}
                replaced = getattr(mb, operation.op_type)(
                    **(arguments | {"x": pairs[source.name], "name": operation.name})
                )
            function.replace_uses_of_var_after_op(anchor_op=operation, old_var=operation.outputs[0], new_var=replaced)
            replaced.name = operation.outputs[0].name
            function.remove_ops([operation])
    return program


def _quantize_weights(model: Any, kinds: tuple[str, ...]) -> Any:
    ct = load_tool("coremltools")
    optimize = ct.optimize.coreml
    config = optimize.OpLinearQuantizerConfig(
        mode="linear_symmetric", dtype="int8", granularity="per_channel", weight_threshold=0
    )
    # By operator type: a global configuration would also quantize the normalization's constants.
    return optimize.linear_quantize_weights(
        model, optimize.OptimizationConfig(op_type_configs=dict.fromkeys(kinds, config))
    )
