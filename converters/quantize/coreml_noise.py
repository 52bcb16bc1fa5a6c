"""How much quantizing one unit of a Core ML program alone disturbs the program's first output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.mil.operands import RowDependent
from converters.quantize.coreml_rewrite import CORRECTED, mean_shift, pair_parameters, weight_codes
from converters.quantize.coreml_units import CoreMLUnit
from converters.quantize.noise import signal_to_noise, some_rows
from converters.quantize.recipes import Recipe

__all__ = ["unit_noise"]

KEPT_BYTES = 1 << 28  # of all tensors of all rows, which are held while one unit after the other is tried
Range = tuple[float, float]


def unit_noise(
    reference: CoreMLReference,
    units: Iterable[CoreMLUnit],
    ranges: Mapping[str, Range],
    means: Mapping[str, np.ndarray],
    rows: Mapping[str, np.ndarray],
    recipe: Recipe,
) -> dict[str, float]:
    """dB of the first output for each unit. ``ranges`` are those of the units' data, empty to round weights alone;
    ``means`` are those of its channels, for the bias.

    The float program is evaluated once; for each unit only what lies behind it is evaluated again.
    """
    few = _few(reference, rows)
    try:
        kept, expected = _kept([few], reference)
    except RowDependent:
        singles = [
            {name: array[at : at + 1] for name, array in few.items()} for at in range(len(next(iter(few.values()))))
        ]
        kept, expected = _kept(singles, reference)
    operations = {operation.name: operation for operation in reference.operations()}
    result = {}
    for unit in units:
        actual = [
            _disturbed(reference, unit, operations[unit.operation], ranges, means, values, recipe) for values in kept
        ]
        result[unit.unit.name] = signal_to_noise(expected, actual)
    return result


def _kept(
    chunks: list[dict[str, np.ndarray]], reference: CoreMLReference
) -> tuple[list[dict[Any, Any]], list[np.ndarray]]:
    kept, expected = [], []
    for chunk in chunks:
        values = reference.values(chunk)
        with np.errstate(all="ignore"):
            expected.append(reference.evaluator.run(values, keep=True)[0])
        kept.append(values)
    return kept, expected


def _few(reference: CoreMLReference, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A few rows, spread over all."""
    total = len(next(iter(rows.values())))
    count = some_rows(total, sum(math.prod(shape) for shape in reference.inputs.values()))
    count = max(1, min(count, KEPT_BYTES // max(1, reference.bytes_of_all_tensors)))
    chosen = np.unique(np.linspace(0, total - 1, count).astype(int))
    return {name: np.asarray(array)[chosen] for name, array in rows.items()}


def _disturbed(
    reference: CoreMLReference,
    unit: CoreMLUnit,
    operation: Any,
    ranges: Mapping[str, Range],
    means: Mapping[str, np.ndarray],
    values: Mapping[Any, Any],
    recipe: Recipe,
) -> np.ndarray:
    changed: dict[Any, Any] = {}
    for name, axis in unit.weights:
        var = operation.inputs[name]
        changed[var] = _rounded_weight(var.val, axis, recipe)[np.newaxis]
    if unit.data is not None and unit.operation in ranges:
        var = operation.inputs[unit.data]
        changed[var] = _rounded(values[var], *ranges[unit.operation])
    with np.errstate(all="ignore"):
        if not unit.nested:
            results = list(reference.evaluator.results_of(operation, changed, values))
            if unit.operation in means and unit.kind in CORRECTED:
                shift = mean_shift(operation, means[unit.operation])
                results[0] = results[0] - shift.reshape(-1, *(1,) * (results[0].ndim - 3 if unit.kind == "conv" else 0))
            changed = dict(zip(operation.outputs, results, strict=True))
        return np.asarray(reference.evaluator.resume(values, changed)[0])


def _rounded_weight(weight: np.ndarray, axis: int, recipe: Recipe) -> np.ndarray:
    if recipe.weight_bits != 8:
        return weight.astype(np.float16).astype(np.float32)
    codes, scale = weight_codes(weight, axis)
    others = tuple(each for each in range(weight.ndim) if each != axis)
    return np.asarray(codes.astype(np.float32) * np.expand_dims(scale.astype(np.float32), others))


def _rounded(x: np.ndarray, low: float, high: float) -> np.ndarray:
    scale, zero = pair_parameters(low, high, half=False)
    codes = np.clip(np.rint(x / scale) + np.float32(zero), -128, 127)
    return np.asarray((codes - np.float32(zero)) * scale, np.float32)
