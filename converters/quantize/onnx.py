"""ONNX: 8-bit and half-precision models from a float file alone, whichever exporter made it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from converters.errors import InvalidRequest, QuantizationRefused, TooLittleData
from converters.onnx_file import nodes_of
from converters.quantize.base import Unit
from converters.quantize.calibration import Range, RangeCollector
from converters.quantize.correction import MeanCollector
from converters.quantize.noise import signal_to_noise, some_rows
from converters.quantize.onnx_between import between
from converters.quantize.onnx_graph import (
    MATRIX,
    RECURRENT,
    WEIGHT_INPUT,
    OnnxUnit,
    channel_axis,
    find_units,
    origin,
    prepare,
    tensors_around,
)
from converters.quantize.onnx_inspect import inspect_onnx
from converters.quantize.onnx_rewrite import MODES, rewrite
from converters.quantize.recipes import Recipe
from converters.quantize.weights import Quantized, refuse_low_share
from converters.quiet import load_tool, quiet
from converters.targets.onnx import check_onnx, compact, onnx_operators

__all__ = ["OnnxQuantizer", "inspect_onnx"]

ELEMENTS = 1_000_000  # input values of one calibration call; a network's inner tensors are many times larger
Call = Mapping[str, np.ndarray]


class OnnxQuantizer:
    """A float ONNX model with its calibration calls, each the inputs of one call (one or more rows).

    Weights in branches and loops are quantized by the recipes that need no ranges; static ones leave them in float, as
    they do recurrent cells, which ONNX Runtime's integer kernels do not cover.

    Raises `UnsupportedOperator`, `UnsupportedModel` and `QuantizationRefused` as `prepare` does.
    """

    target = "onnx"

    def __init__(self, model: bytes, calls: Sequence[Call]) -> None:
        self._model = prepare(model)
        self._found = find_units(self._model)
        self._calls = calls

    @property
    def units(self) -> tuple[Unit, ...]:
        return tuple(each.unit for each in self._found)

    def quantize(self, recipe: Recipe, keep_float: Collection[str] = ()) -> bytes:
        """The model with all units of the recipe's operators quantized but those in ``keep_float``.

        Raises `InvalidRequest` for an unknown unit, `QuantizationRefused` when less than the recipe's share of the
        weights could be quantized, `CheckFailed` if the result does not load.
        """
        unknown = set(keep_float) - {unit.name for unit in self._found}
        if unknown:
            raise InvalidRequest(f"no units {', '.join(sorted(unknown))} in this model; `units` lists them")
        kept = set(keep_float)
        result = self._rewritten(recipe, [unit for unit in self._chosen(recipe) if unit.name not in kept])
        result.producer_name, result.producer_version, result.doc_string = "edgeship", "", ""
        del result.metadata_props[:]
        compact(result)
        for each in nodes_of(result.graph):  # a twentieth of a small file; profilers show the weighted operators
            each.name = each.name if each.op_type in WEIGHT_INPUT or each.op_type in RECURRENT else ""
        refuse_low_share(inspect_onnx(result), recipe)
        if MODES[recipe.precision] == "dynamic" and "MatMulInteger" not in onnx_operators(result):
            # ConvInteger exists; ONNX Runtime runs it three times slower than float with INT8 weights.
            raise QuantizationRefused(
                "no matrix product here is quantized at run time (convolutions and recurrent cells only get INT8 "
                "weights in ONNX); ask for int8-weights"
            )
        data: bytes = result.SerializeToString(deterministic=True)
        check_onnx(load_tool("onnx").load_from_string(data))
        return data

    def spared(self, recipe: Recipe, keep_float: Collection[str]) -> tuple[str, ...]:
        """Convolutions that give floats, as `between` finds them. Matrix products give floats of integer kernels."""
        if MODES[recipe.precision] != "static" or not keep_float:
            return ()
        units = {unit.name: unit for unit in self._chosen(recipe) if unit.name not in keep_float}
        coded = between(self._model.graph, units, {each.name for each in self._model.graph.initializer}).coded
        ends = {name: tensors_around(self._model, unit)[1] for name, unit in units.items()}
        return tuple(name for name, unit in units.items() if unit.operator not in MATRIX and ends[name] not in coded)

    def inspect(self, data: bytes) -> Quantized:
        """What of a file is in INT8. Raises `ConversionFailed` for one that is not ONNX."""
        with quiet("reading the ONNX model"):
            model = load_tool("onnx").load_from_string(data)
        return inspect_onnx(model)

    def sensitivities(self, recipe: Recipe) -> dict[str, float]:
        """dB of the first output when one unit alone is quantized, for each unit that the recipe would quantize.

        Measured on a few calibration rows, spread over all, with the engine's own integer kernels.
        """
        calls = self._few_calls
        expected = self._answers(self._model, calls)
        return {
            unit.name: signal_to_noise(expected, self._answers(self._rewritten(recipe, [unit]), calls))
            for unit in self._chosen(recipe)
        }

    def _chosen(self, recipe: Recipe) -> list[OnnxUnit]:
        units = [unit for unit in self._found if unit.operator in recipe.operators["onnx"]]
        if MODES[recipe.precision] != "static":
            return units
        ranges = self._ranges(recipe)
        return [
            unit
            for unit in units
            if not unit.nested
            and unit.operator not in RECURRENT
            and all(origin(self._producers, name) in ranges for name in tensors_around(self._model, unit))
        ]

    def _rewritten(self, recipe: Recipe, units: Sequence[OnnxUnit]) -> Any:
        mode = MODES[recipe.precision]
        return rewrite(
            self._model,
            units,
            mode,
            ranges=self._ranges(recipe) if mode == "static" else None,
            means=self._seen[1].means() if self._calls and mode != "half" else None,
        )

    def _ranges(self, recipe: Recipe) -> Mapping[str, Range]:
        key = (recipe.range_method, recipe.range_coverage)
        if key not in self._known_ranges:
            collected, _ = self._seen
            chosen = collected.least_squares() if recipe.range_method == "mse" else collected.ranges(key[1])
            # What no quantized operator reads (the logits) keeps its whole range: clipping would only cap confidences.
            whole = {name: limits for name, limits in collected.ranges(1.0).items() if name not in self._read}
            self._known_ranges[key] = chosen | whole
        return self._known_ranges[key]

    @cached_property
    def _known_ranges(self) -> dict[tuple[str, float], Mapping[str, Range]]:
        return {}

    @cached_property
    def _producers(self) -> dict[str, Any]:
        return {name: node for node in self._model.graph.node for name in node.output}

    @cached_property
    def _read(self) -> set[str]:
        """Tensors that units read, or that hold what units read."""
        around = [tensors_around(self._model, unit) for unit in self._found if not unit.nested]
        return {origin(self._producers, source) for source, _ in around}

    @cached_property
    def _seen(self) -> tuple[RangeCollector, MeanCollector]:
        """Ranges of what the units read and give, and means of what they read, from a run that shows them."""
        if not self._calls:
            raise TooLittleData("static int8 needs calibration rows: there are none")
        onnx = load_tool("onnx")
        probe = onnx.ModelProto()
        probe.CopyFrom(self._model)
        nodes = {node.name: node for node in self._model.graph.node}
        outside = [unit for unit in self._found if not unit.nested]
        around = {name for unit in outside for name in tensors_around(self._model, unit)}
        ranged = {origin(self._producers, name) for name in around}
        averaged = {key for unit in outside if (key := channel_axis(nodes[unit.name], unit)) is not None}
        watched = ranged | {name for name, _ in averaged}
        shown = {value.name for value in probe.graph.output}
        for name in sorted(watched & set(self._producers) - shown):
            probe.graph.output.append(onnx.ValueInfoProto(name=name))
        session = _session(probe, optimize=False)
        names = [each.name for each in session.get_outputs() if each.name in watched]
        ranges, means = RangeCollector(), MeanCollector()
        with quiet("calibrating the ONNX model"):
            for call in self._pieces(self._calls):
                values = dict(zip(names, session.run(names, dict(call)) if names else (), strict=True))
                values |= {name: call[name] for name in watched & set(call)}
                for name in sorted(ranged & set(values)):
                    ranges.observe(name, np.atleast_1d(values[name]))
                for name, axis in sorted(averaged):
                    means.observe(name, values[name], axis)
        return ranges, means

    @cached_property
    def _few_calls(self) -> list[Call]:
        """A few rows, spread over the calibration calls."""
        calls = self._pieces(self._calls, one_row=True)
        if not calls:
            raise TooLittleData("the search for sensitive operators needs calibration rows: there are none")
        count = some_rows(len(calls), sum(array.size for array in calls[0].values()))
        return [calls[at] for at in np.unique(np.linspace(0, len(calls) - 1, count).astype(int))]

    def _pieces(self, calls: Sequence[Call], *, one_row: bool = False) -> list[Call]:
        """The same rows in smaller calls, where the model's first axes are all the same dynamic one."""
        if not self._is_batched:
            return list(calls)
        pieces: list[Call] = []
        for call in calls:
            rows = len(next(iter(call.values())))
            elements = sum(array.size for array in call.values()) // max(rows, 1)
            step = 1 if one_row else max(1, ELEMENTS // max(elements, 1))
            pieces += [{n: a[at : at + step] for n, a in call.items()} for at in range(0, rows, step)]
        return pieces

    @cached_property
    def _is_batched(self) -> bool:
        graph = self._model.graph
        stored = {each.name for each in graph.initializer}
        first = set()
        for value in (*(each for each in graph.input if each.name not in stored), *graph.output):
            dims = value.type.tensor_type.shape.dim
            first.add(dims[0].dim_param if dims else "")
        return len(first) == 1 and "" not in first

    def _answers(self, model: Any, calls: Sequence[Call]) -> list[np.ndarray]:
        session = _session(model)
        name = session.get_outputs()[0].name
        return [session.run([name], dict(call))[0] for call in calls]


def _session(model: Any, *, optimize: bool = True) -> Any:
    runtime = load_tool("onnxruntime")
    options = runtime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # x86 without VNNI saturates otherwise
    if not optimize:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with quiet("loading into ONNX Runtime"):
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
