"""Core ML at lower precision: fp16, weights in INT8 (W8, iOS 16), and weights and activations in INT8 (W8A8, iOS 17).

Everything starts from a stored float32 package, whatever made it, and needs no Mac: coremltools' own
`linear_quantize_activations` finds its ranges by running the model, here they come from `coreml_reference`, and the
pairs of quantize and dequantize are put into the program directly.

The Neural Engine computes W8A8 in fp16, so the chosen operators, and what lies between them, are declared fp16; what
reads the raw input (normalization, statistics of it) stays in float32. With INT8 weights alone nothing else changes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from converters.coreml_reference import CoreMLReference
from converters.errors import InvalidRequest, QuantizationRefused, TooLittleData
from converters.mil.reading import read_program
from converters.quantize.base import Unit
from converters.quantize.calibration import RangeCollector
from converters.quantize.coreml_half import half_operations
from converters.quantize.coreml_inspect import inspect_coreml
from converters.quantize.coreml_means import ChannelMeans
from converters.quantize.coreml_noise import unit_noise
from converters.quantize.coreml_rewrite import compute_in_half, half_weights, insert_pairs, integer_weights
from converters.quantize.coreml_units import CoreMLUnit, find_units, use_linear
from converters.quantize.recipes import Recipe
from converters.quantize.weights import Quantized, refuse_low_share
from converters.quiet import quiet
from converters.targets.coreml import check_coreml, pack_program

__all__ = ["CoreMLQuantizer", "inspect_coreml"]

IOS_17 = 8  # as a specification version; the first with quantized activations
SMALLEST_HALF_STEP = 6.2e-5  # the smallest normal fp16 number; hardware may take smaller ones for 0
LEVELS = 255
Range = tuple[float, float]


class CoreMLQuantizer:
    """A float32 package (the bytes of its zip) with calibration rows as `CoreMLReference.run` takes them.

    Raises `ModelUnreadable` and `UnsupportedOperator` as `CoreMLReference` does.
    """

    target = "coreml"

    def __init__(self, package: bytes, rows: Mapping[str, np.ndarray]) -> None:
        self._package = package
        self._rows = rows
        self._reference = CoreMLReference(package, prepare=use_linear)
        self._found = find_units(self._reference.function)

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(each.unit for each in self._found)

    def spared(self, recipe: Recipe, keep_float: Collection[str]) -> tuple[str, ...]:
        """None: what a unit reads is rounded before it, and what it gives is not."""
        return ()

    def quantize(self, recipe: Recipe, keep_float: Collection[str] = ()) -> bytes:
        """The package with all units of the recipe's operators at its precision but those in ``keep_float``.

        Raises `InvalidRequest` for an unknown unit; `QuantizationRefused` for `int8-dynamic`, which Core ML does not
        have, and where less than the recipe's share of the weights could be quantized; `TooLittleData` without rows.
        """
        unknown = set(keep_float) - {each.unit.name for each in self._found}
        if unknown:
            raise InvalidRequest(f"no units {', '.join(sorted(unknown))} in this model; `units` lists them")
        chosen = [each for each in self._chosen(recipe) if each.unit.name not in keep_float]
        program, _ = read_program(self._package, version=IOS_17 if recipe.precision == "int8" else None)
        with quiet("quantizing the Core ML program"):
            use_linear(program)
            if recipe.precision == "fp16":
                self._to_half(program, keep_float)
            elif recipe.precision == "int8-weights":
                integer_weights(program, chosen, self._means)
            else:
                self._to_integers(program, chosen, recipe)
        data = pack_program(program)
        result = check_coreml(data, tuple(self._reference.inputs), self._reference.outputs)
        if recipe.precision != "fp16":
            refuse_low_share(inspect_coreml(result), recipe)
        return data

    def inspect(self, data: bytes) -> Quantized:
        """What of a package is in INT8."""
        return inspect_coreml(CoreMLReference(data))

    def sensitivities(self, recipe: Recipe) -> dict[str, float]:
        """dB of the first output when one unit alone is quantized, for each unit that the recipe would quantize.

        Measured on a few calibration rows, spread over all.
        """
        chosen = self._chosen(recipe)
        ranges = self._unit_ranges(recipe) if recipe.precision == "int8" else {}
        means = self._means if recipe.weight_bits == 8 else {}
        return unit_noise(self._reference, chosen, ranges, means, self._rows, recipe)

    def _chosen(self, recipe: Recipe) -> list[CoreMLUnit]:
        if recipe.precision == "int8-dynamic":
            raise QuantizationRefused(
                "Core ML does not quantize activations at run time, so it has no int8-dynamic; int8-weights stores the "
                "same weights and computes in float"
            )
        kinds = recipe.operators["coreml"]
        chosen = [each for each in self._found if each.covered_by(kinds)]
        if recipe.precision != "int8":
            return chosen
        ranges = self._unit_ranges(recipe)
        return [each for each in chosen if each.operation in ranges]

    def _to_half(self, program: Any, keep_float: Collection[str]) -> None:
        """Weights of what has to compute in float32 are stored in fp16 all the same, and kept units are left alone."""
        kept = set(keep_float)
        weighted = {each.operation for each in self._found if each.unit.name not in kept}
        half = half_operations(self._reference.function, weighted, self._peaks) - kept
        compute_in_half(program, half)
        rest = [each for each in self._found if each.operation not in half and each.unit.name not in kept]
        half_weights(program, [each for each in rest if self._peak_weight(each) < np.finfo(np.float16).max])

    def _to_integers(self, program: Any, chosen: list[CoreMLUnit], recipe: Recipe) -> None:
        ranges = self._unit_ranges(recipe)
        fine = {each.operation for each in chosen if _step(ranges[each.operation]) < SMALLEST_HALF_STEP}
        names = {each.operation for each in chosen}
        half = half_operations(self._reference.function, names, self._peaks)
        weighted = {each.operation for each in self._found}
        compute_in_half(program, half - fine - (weighted - names))  # a unit left in float is left in float32
        integer_weights(program, chosen, self._means)
        insert_pairs(program, chosen, ranges)

    def _unit_ranges(self, recipe: Recipe) -> dict[str, Range]:
        """By operation, of what meets the unit's weights."""
        collected = self._collected
        limits = collected.least_squares() if recipe.range_method == "mse" else collected.ranges(recipe.range_coverage)
        operations = {operation.name: operation for operation in self._reference.function.operations}
        return {
            each.operation: limits[operations[each.operation].inputs[each.data].name]
            for each in self._found
            if each.data is not None and not each.nested and operations[each.operation].inputs[each.data].name in limits
        }

    def _peak_weight(self, unit: CoreMLUnit) -> float:
        operation = next(each for each in self._reference.operations() if each.name == unit.operation)
        return max(float(np.abs(operation.inputs[name].val).max(initial=0.0)) for name, _ in unit.weights)

    @property
    def _collected(self) -> RangeCollector:
        return self._observed[0]

    @property
    def _peaks(self) -> Mapping[str, float]:
        return self._observed[1]

    @property
    def _means(self) -> Mapping[str, np.ndarray]:
        """By operation, the mean of each channel of what a unit reads."""
        operations = {operation.name: operation for operation in self._reference.function.operations}
        sums = self._observed[2]
        return {
            each.operation: sums[operations[each.operation].inputs[each.data].name].mean
            for each in self._found
            if each.data is not None and not each.nested and operations[each.operation].inputs[each.data].name in sums
        }

    @cached_property
    def _observed(self) -> tuple[RangeCollector, dict[str, float], dict[str, ChannelMeans]]:
        """Ranges of what the units read, each tensor's largest magnitude, and channels' means of what units read."""
        if not len(next(iter(self._rows.values()))):
            raise TooLittleData("Core ML needs calibration rows: there are none")
        operations = {operation.name: operation for operation in self._reference.operations()}
        watched = {
            operations[each.operation].inputs[each.data].name: ChannelMeans(1 if each.kind.startswith("conv") else -1)
            for each in self._found
            if each.data is not None
        }
        collector, peaks = RangeCollector(), dict[str, float]()

        def observe(name: str, values: np.ndarray) -> None:
            if values.dtype.kind != "f" or not values.size:
                return
            peak = max(float(values.max()), -float(values.min()))
            peaks[name] = max(peaks.get(name, 0.0), peak if np.isfinite(peak) else np.inf)
            if name in watched:
                collector.observe(name, values)
                watched[name].observe(values)

        self._reference.run(self._rows, observe)
        return collector, peaks, {name: means for name, means in watched.items() if means.count}


def _step(limits: Range) -> float:
    return (limits[1] - limits[0]) / LEVELS
