"""TFLite with ai-edge-quantizer: the operators of the recipe only, with our own ranges.

The tool's own calibration keeps a moving average of each row's extremes, which clips; its ranges are therefore not
used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from converters.errors import ConversionFailed, InvalidRequest, QuantizationRefused, TooLittleData
from converters.quantize.affine import LEVELS, WEIGHT_LIMIT, activation_parameters
from converters.quantize.base import Unit
from converters.quantize.calibration import Range, RangeCollector
from converters.quantize.correction import MeanCollector
from converters.quantize.noise import signal_to_noise, some_rows
from converters.quantize.recipes import Recipe
from converters.quantize.tflite_bias import correct_biases
from converters.quantize.tflite_compact import compacted, packed
from converters.quantize.tflite_graph import (
    acceptable,
    inspect_tflite,
    largest_weights,
    readers_of_units,
    tensor_name,
    unit_tensors,
    units_of,
    unpacked,
    with_float_outputs,
)
from converters.quantize.weights import Quantized, refuse_low_share
from converters.quiet import load_tool, quiet
from converters.targets.tflite import check_tflite, tflite_signature

__all__ = ["TfliteQuantizer", "inspect_tflite"]

LARGEST_MULTIPLIER = 200.0  # of XNNPACK's 256, with room for rounding
TOOL_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
Call = Mapping[str, np.ndarray]


class TfliteQuantizer:
    """A float TFLite model with its calibration calls, each one example under the signature's input names.

    Weights inside branches and loops stay float, since the tool leaves those graphs alone. ``output`` names the output
    that `sensitivities` compares; None: the file's first.

    Raises `QuantizationRefused` for a model that is quantized already.
    """

    target = "tflite"

    def __init__(self, model: bytes, calls: Sequence[Call], *, output: str | None = None) -> None:
        self._model = acceptable(model)
        self._calls = calls
        self._output = output
        objects = unpacked(self._model)
        if inspect_tflite(model).quantized:
            raise QuantizationRefused("the TFLite model is quantized already; give the float model")
        self._units = units_of(objects)
        self._tensors = unit_tensors(objects)
        self._readers = readers_of_units(objects)
        self._weight_steps = {name: largest / WEIGHT_LIMIT for name, largest in largest_weights(objects).items()}
        graph = objects.subgraphs[0]
        self._unmixed: set[tuple[str, frozenset[str]]] = set()
        self._outputs = [tensor_name(graph.tensors[index]) for index in graph.outputs]
        self._signature = tflite_signature(_interpreter(self._model))

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(self._units.values())

    def quantize(self, recipe: Recipe, keep_float: Collection[str] = ()) -> bytes:
        """The model with all units of the recipe's operators quantized but those in ``keep_float``.

        Raises `InvalidRequest` for an unknown unit, `QuantizationRefused` when less than the recipe's share of the
        weights could be quantized, `CheckFailed` if the result does not load.
        """
        unknown = set(keep_float) - set(self._units)
        if unknown:
            raise InvalidRequest(f"no units {', '.join(sorted(unknown))} in this model; `units` lists them")
        kept = set(keep_float)
        names = [name for name in self._chosen(recipe) if name not in kept]
        try:
            made = self._with(recipe, names, giving_floats=self._giving_floats(recipe, names))
        except ConversionFailed:  # the tool cannot mix both kinds in every model
            self._unmixed.add((recipe.name, frozenset(kept)))
            made = self._with(recipe, names)
        data = compacted(unpacked(made), self._outputs)
        refuse_low_share(inspect_tflite(data), recipe)
        check_tflite(data, tuple(self._signature.inputs), tuple(self._signature.outputs))
        return data

    def spared(self, recipe: Recipe, keep_float: Collection[str]) -> tuple[str, ...]:
        """Units made weight-only; none where the tool could not mix both kinds, which `quantize` finds out."""
        if not keep_float or (recipe.name, frozenset(keep_float)) in self._unmixed:
            return ()
        names = [name for name in self._chosen(recipe) if name not in keep_float]
        floats = self._giving_floats(recipe, names)
        return tuple(name for name in names if name in floats)

    def inspect(self, data: bytes) -> Quantized:
        """What of a file is in INT8. Raises `ConversionFailed` for one that is not TFLite."""
        return inspect_tflite(data)

    def sensitivities(self, recipe: Recipe) -> dict[str, float]:
        """dB of the first output when one unit alone is quantized, for each unit that the recipe would quantize.

        Measured on a few calibration rows, spread over all, in LiteRT. A unit that the tool fails on when it is alone
        is left out: with others it may be fine, and nothing is known of it.
        """
        if not self._calls:
            raise TooLittleData("the search for sensitive operators needs calibration rows: there are none")
        count = some_rows(len(self._calls), sum(array.size for array in self._calls[0].values()))
        calls = [self._calls[at] for at in np.unique(np.linspace(0, len(self._calls) - 1, count).astype(int))]
        expected = self._answers(self._model, calls)
        known = {}
        for name in self._chosen(recipe):
            with suppress(ConversionFailed):
                known[name] = signal_to_noise(expected, self._answers(self._with(recipe, [name]), calls))
        return known

    def _chosen(self, recipe: Recipe) -> list[str]:
        kinds = recipe.operators["tflite"]
        names = [name for name, unit in self._units.items() if unit.operators[0] in kinds]
        if recipe.precision != "int8":
            return names
        ranges = self._ranges(recipe)
        return [name for name in names if all(tensor in ranges for tensor in self._tensors[name])]

    def _with(self, recipe: Recipe, names: Iterable[str], *, giving_floats: Collection[str] = ()) -> bytes:
        """The model with those units quantized, some of them in their weights alone; as it is for none."""
        names = list(names)
        if not names:
            return self._model
        model = self._model
        if self._calls and recipe.weight_bits == 8:
            objects = unpacked(model)
            correct_biases(objects, names, self._seen[1].means())
            model = packed(objects)
        module = load_tool("ai_edge_quantizer.quantizer")
        with quiet("ai-edge-quantizer"):
            quantizer = module.Quantizer(bytearray(model))
            for name in names:
                kind = self._units[name].operators[0]
                precision = "int8-weights" if name in giving_floats else recipe.precision
                # Operators are chosen by a pattern for what they give, each name with a semicolon behind it.
                _configure(quantizer, precision, f"^{re.escape(name)};$", TOOL_NAMES.get(kind, kind))
            statistics = self._statistics(recipe, names) if recipe.precision == "int8" else None
            data = bytes(quantizer.quantize(statistics, enable_progress_report=False).quantized_model)
        return with_float_outputs(data)

    def _giving_floats(self, recipe: Recipe, names: Collection[str]) -> frozenset[str]:
        """Units that are read by units left in float alone. An INT8 kernel gives codes; with its weights in INT8 and
        computed in float, such a unit spares its reader's input from rounding, as the other targets do."""
        floats = self._units.keys() - set(names) if recipe.precision == "int8" else set()
        return frozenset(name for name in names if self._readers[name] and self._readers[name] <= floats)

    def _statistics(self, recipe: Recipe, names: Iterable[str]) -> dict[str, dict[str, np.ndarray]]:
        """The ranges as the tool takes them, each output's wide enough for LiteRT's kernels to load.

        XNNPACK refuses a whole model in which one step of input × weight is 256 steps of output, as behind raw columns
        of very different sizes. Widened, the unit loses all precision instead, which a search sees and answers.
        """
        ranges = dict(self._ranges(recipe))
        for name in names:
            source, result = self._tensors[name]
            step, _ = activation_parameters(*ranges[source])
            low, high = ranges[result]
            smallest = float(step) * self._weight_steps[name] / LARGEST_MULTIPLIER
            ranges[result] = (low, max(high, low + LEVELS * smallest))
        return {
            name: {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32)}
            for name, (low, high) in ranges.items()
        }

    def _ranges(self, recipe: Recipe) -> Mapping[str, Range]:
        key = (recipe.range_method, recipe.range_coverage)
        if key not in self._known_ranges:
            collected, _ = self._seen
            chosen = collected.least_squares() if recipe.range_method == "mse" else collected.ranges(key[1])
            # What no quantized operator reads (the logits) keeps its whole range: clipping would only cap confidences.
            read = {source for source, _ in self._tensors.values()}
            whole = {name: limits for name, limits in collected.ranges(1.0).items() if name not in read}
            self._known_ranges[key] = chosen | whole
        return self._known_ranges[key]

    @cached_property
    def _known_ranges(self) -> dict[tuple[str, float], Mapping[str, Range]]:
        return {}

    @cached_property
    def _seen(self) -> tuple[RangeCollector, MeanCollector]:
        """Ranges of every tensor, and means of what the units read, from a run that keeps all tensors."""
        if not self._calls:
            raise TooLittleData("static int8 needs calibration rows: there are none")
        ranges, means = RangeCollector(), MeanCollector()
        averaged = {source for source, _ in self._tensors.values()}
        with quiet("calibrating the TFLite model"):
            interpreter = _interpreter(self._model, keep_all=True)
            produced = {at for operator in interpreter._get_ops_details() for at in operator["outputs"] if at >= 0}
            names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
            watched = {index: names[index] for index in (*produced, *self._signature.inputs.values())}
            for call in self._calls:
                self._feed(interpreter, call)
                for index, name in watched.items():
                    value = interpreter.get_tensor(index)[np.newaxis]
                    ranges.observe(name, value)
                    if name in averaged:
                        means.observe(name, value, -1)
        return ranges, means

    def _answers(self, model: bytes, calls: Sequence[Call]) -> list[np.ndarray]:
        with quiet("running the TFLite model"):
            interpreter = _interpreter(model)
            index = interpreter.get_output_details()[0]["index"]
            if self._output is not None:
                index = tflite_signature(interpreter).outputs[self._output]
            answers = []
            for call in calls:
                self._feed(interpreter, call)
                answers.append(interpreter.get_tensor(index))
        return answers

    def _feed(self, interpreter: Any, call: Call) -> None:
        inputs = tflite_signature(interpreter).inputs
        for name, value in call.items():
            interpreter.set_tensor(inputs[name], value)
        interpreter.invoke()


def _configure(quantizer: Any, precision: str, pattern: str, kind: str) -> None:
    if precision == "int8":
        quantizer.add_static_config(regex=pattern, operation_name=kind, activation_num_bits=8, weight_num_bits=8)
    elif precision == "int8-dynamic":
        quantizer.add_dynamic_config(regex=pattern, operation_name=kind, num_bits=8)
    elif precision == "int8-weights":
        quantizer.add_weight_only_config(regex=pattern, operation_name=kind, num_bits=8)
    else:
        quantizer.add_weight_only_config(regex=pattern, operation_name=kind, num_bits=16, algorithm_key="float_casting")


def _interpreter(model: bytes, *, keep_all: bool = False) -> Any:
    litert = load_tool("ai_edge_litert.interpreter")
    with quiet("loading the TFLite model"):
        interpreter = litert.Interpreter(
            model_content=model,
            num_threads=1,
            experimental_preserve_all_tensors=keep_all,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            if keep_all
            else litert.OpResolverType.AUTO,
        )
        interpreter.allocate_tensors()
    return interpreter
