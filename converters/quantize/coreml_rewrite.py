"""Changes to a loaded Core ML program: compute in fp16, store weights in 8 or 16 bits, round activations to 8 bits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from converters.quantize.affine import WEIGHT_LIMIT, activation_parameters, quantize_weight
from converters.quantize.coreml_units import CoreMLUnit, blocks_of

__all__ = [
    "CORRECTED",
    "compute_in_half",
    "half_weights",
    "insert_pairs",
    "integer_weights",
    "mean_shift",
    "pair_parameters",
    "weight_codes",
]

HALF_SUFFIX = "_cast_fp16"  # what coremltools puts behind the name of an operation that it turns to fp16
CODE_SHIFT = 128  # from unsigned codes to signed ones
CORRECTED = ("conv", "linear")
Range = tuple[float, float]


def compute_in_half(program: Any, names: Collection[str]) -> None:
    """Let the operations of these names compute in fp16, with casts around them; outputs of the program stay float32.

    They keep their names.
    """
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

    chosen = frozenset(names)
    FP16ComputePrecision(op_selector=lambda operation: operation.name in chosen).apply(program)
    for operation in _operations(program):
        plain = operation.name.removesuffix(HALF_SUFFIX)
        if plain in chosen:
            operation.name = plain


def weight_codes(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes and one scale for each index of ``axis``, in the weight's own dtype: float32 or float16.

    A float16 scale is rounded up, so that no code is clipped, and the codes are those of the rounded scale.
    """
    codes, scale = quantize_weight(weight.astype(np.float32), axis)
    if weight.dtype != np.float16:
        return codes, scale
    half = scale.astype(np.float16)
    half = np.where(half.astype(np.float32) < scale, np.nextafter(half, np.float16(np.inf)), half)
    shaped = np.expand_dims(half.astype(np.float32), tuple(each for each in range(weight.ndim) if each != axis))
    codes = np.clip(np.rint(weight.astype(np.float32) / shaped), -WEIGHT_LIMIT, WEIGHT_LIMIT)
    return codes.astype(np.int8), half


def integer_weights(program: Any, units: Iterable[CoreMLUnit], means: Mapping[str, np.ndarray]) -> None:
    """Store the units' weights as int8 with a scale a channel (`constexpr_affine_dequantize`, since iOS 16).

    Rounding weights shifts each channel's mean output, by the rounding errors times the mean inputs; the bias takes
    that back (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019). ``means``
    are by the units' operations, one mean for each input channel; a unit without any keeps its bias.
    """
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses
    from coremltools.converters.mil.mil import types

    def stored(weight: np.ndarray, axis: int) -> Any:
        codes, scale = weight_codes(weight, axis)
        return mb.constexpr_affine_dequantize(
            quantized_data=codes, zero_point=np.int8(0), scale=scale, axis=np.int32(axis)
        )

    units = list(units)
    operations = {operation.name: operation for operation in _operations(program)}
    shifts = {
        unit.operation: mean_shift(operations[unit.operation], means[unit.operation])
        for unit in units
        if unit.operation in means and unit.kind in CORRECTED
    }
    _store(program, units, stored)
    operations = {operation.name: operation for operation in _operations(program)}
    for name, shift in shifts.items():
        operation = operations[name]
        kind = operation.outputs[0].dtype
        bias = 0.0 if operation.bias is None else operation.bias.val.astype(np.float32)
        _with_input(operation, "bias", (bias - shift).astype(types.nptype_from_builtin(kind)))


def mean_shift(operation: Any, means: np.ndarray) -> np.ndarray:
    """How far rounding its weights moves the mean of each output channel of a convolution or `linear`, for the given
    mean of each input channel. Padding counts as if it were input."""
    weight = operation.weight.val
    codes, scale = weight_codes(weight, 0)
    outputs = len(weight)
    errors = codes.reshape(outputs, -1) * scale.astype(np.float32)[:, np.newaxis] - weight.reshape(outputs, -1)
    groups = int(operation.groups.val) if operation.op_type == "conv" else 1
    by_channel = errors.reshape(groups, outputs // groups, weight.shape[1], -1).sum(axis=-1)
    return np.asarray((by_channel * means.reshape(groups, 1, -1)).sum(axis=-1).reshape(-1), np.float32)


def half_weights(program: Any, units: Iterable[CoreMLUnit]) -> None:
    """Store the weights of units that compute in float32 as fp16 (`constexpr_cast`, since iOS 16)."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses

    def stored(weight: np.ndarray, axis: int) -> Any:
        return mb.constexpr_cast(source_val=weight.astype(np.float16), output_dtype="fp32")

    _store(program, units, stored)


def _store(program: Any, units: Iterable[CoreMLUnit], stored: Any) -> None:
    """Put what ``stored`` makes of a constant beside it, and let the units' operations read that.

    Other readers of the constant keep it; two units that share one share what is made of it.
    """
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses

    operations = {operation.name: operation for operation in _operations(program)}
    made: dict[tuple[Any, int], Any] = {}
    for unit in units:
        for name, axis in unit.weights:
            operation = operations[unit.operation]
            constant = operation.inputs[name]
            if (constant, axis) not in made:
                block = constant.op.enclosing_block
                with block, mb.set_before_op(_behind(block, constant.op)):
                    made[constant, axis] = stored(constant.val, axis)
            operations[unit.operation] = _with_input(operation, name, made[constant, axis])


def insert_pairs(program: Any, units: Iterable[CoreMLUnit], ranges: Mapping[str, Range]) -> None:
    """Round what the units read to 8-bit codes and back; ``ranges`` are by the units' operations. Needs iOS 17.

    Operations that read the same tensor share one pair, as wide as the widest of their ranges.
    """
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses
    from coremltools.converters.mil.mil import types

    operations = {operation.name: operation for operation in _operations(program)}
    pairs: dict[tuple[Any, bool], Any] = {}
    for unit in units:
        operation = operations[unit.operation]
        source = operation.inputs[unit.data]
        half = source.dtype == types.fp16
        key = _uncast(source), half
        if key not in pairs:
            scale, zero = pair_parameters(*ranges[unit.operation], half=half)
            with operation.enclosing_block, mb.set_before_op(operation):
                codes = mb.quantize(input=source, scale=scale, zero_point=zero, output_dtype="int8")
                pairs[key] = mb.dequantize(input=codes, scale=scale, zero_point=zero)
        _with_input(operation, str(unit.data), pairs[key])


def pair_parameters(low: float, high: float, *, half: bool) -> tuple[np.floating[Any], np.int8]:
    """Scale and zero point of signed codes; a half-precision scale is rounded up, so that the range fits."""
    scale, zero = activation_parameters(low, high)
    signed = np.int8(int(zero) - CODE_SHIFT)
    if not half:
        return scale, signed
    rounded = np.float16(scale)
    return (rounded if rounded >= scale else np.nextafter(rounded, np.float16(np.inf))), signed


def _with_input(operation: Any, name: str, var: Any) -> Any:
    """The operation anew with another input, in the place of the old one."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813 - the name that coremltools uses

    block = operation.enclosing_block
    arguments = {key: value for key, value in operation.inputs.items() if value is not None}
    with block, mb.set_before_op(operation):
        made = getattr(mb, operation.op_type)(**(arguments | {name: var, "name": operation.name}))
    made = made if isinstance(made, list | tuple) else (made,)
    for old, new in zip(operation.outputs, made, strict=True):
        block.replace_uses_of_var_after_op(anchor_op=operation, old_var=old, new_var=new, force_replace=True)
        new.name = old.name
    block.remove_ops([operation])
    return made[0].op


def _behind(block: Any, operation: Any) -> Any:
    following = False
    for each in block.operations:
        if following:
            return each
        following = each is operation
    raise AssertionError("a constant is followed by what reads it")


def _uncast(var: Any) -> Any:
    while var.op is not None and var.op.op_type == "cast":
        var = var.op.x
    return var


def _operations(program: Any) -> list[Any]:
    return [
        operation
        for function in program.functions.values()
        for block in blocks_of(function)
        for operation in block.operations
    ]
