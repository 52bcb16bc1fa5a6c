from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converters.errors import ConversionFailed, InvalidRequest, QuantizationRefused, TooLittleData
from converters.quantize.recipes import Recipe, ladder_from, load_recipe, recipe_names
from converters.quantize.search import search
from converters.quantize.tflite import TfliteQuantizer
from converters.quantize.tflite_compact import compacted, packed
from converters.quantize.tflite_graph import tensor_name, unpacked
from converters.quiet import load_tool
from converters.targets.tflite import tflite_signature
from tests.unit.converters.quantize.onnx_models import agreement, images, table

STATIC = load_recipe("static_wi8c_ai8")


def calls(rows: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"x": rows[at : at + 1]} for at in range(len(rows))]


def pictures(rows: int, seed: int) -> np.ndarray:
    return np.ascontiguousarray(images(rows, seed).transpose(0, 2, 3, 1))


def answers(data: bytes, rows: np.ndarray, output: str = "logits") -> np.ndarray:
    interpreter = load_tool("ai_edge_litert.interpreter").Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    return np.concatenate([runner(**call)[output] for call in calls(rows)])


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).mean() / np.square(expected - actual).mean()))


def tool_default(data: bytes, given: Sequence[dict[str, np.ndarray]]) -> bytes:
    """ai-edge-quantizer's own static recipe with its own calibration; the ends stay float, to be comparable."""
    from ai_edge_quantizer import qtyping, quantizer, recipe

    tool = quantizer.Quantizer(bytearray(data), recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        tool.update_quantization_recipe(regex=".*", operation_name=end, algorithm_key="no_quantize")
    return bytes(tool.quantize(tool.calibrate({"serving_default": list(given)})).quantized_model)


def test_wide_columns_behind_a_normalization_in_the_graph_keep_their_accuracy(tabular_tflite: bytes) -> None:
    rows = table(400, 2)
    expected = answers(tabular_tflite, rows)
    made = TfliteQuantizer(tabular_tflite, calls(table(200, 1))).quantize(load_recipe())
    assert agreement(expected, answers(made, rows)) > 0.97
    default = tool_default(tabular_tflite, calls(table(200, 1)))
    assert agreement(expected, answers(default, rows)) < 0.67, "no trap any more?"


def test_bias_correction_brings_back_what_depthwise_filters_lose(depthwise_tflite: bytes) -> None:
    rows, recipe = pictures(60, 2), load_recipe("weights_wi8c_af32")
    expected = answers(depthwise_tflite, rows)
    blind = TfliteQuantizer(depthwise_tflite, []).quantize(recipe)
    seeing = TfliteQuantizer(depthwise_tflite, calls(pictures(60, 1))).quantize(recipe)
    assert decibels(expected, answers(seeing, rows)) > decibels(expected, answers(blind, rows)) + 1


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_gives_a_file_with_the_same_signature_that_answers_alike(
    name: str, depthwise_tflite: bytes
) -> None:
    recipe, rows = load_recipe(name), pictures(40, 2)
    quantizer = TfliteQuantizer(depthwise_tflite, calls(pictures(60, 1)))
    made = quantizer.quantize(recipe)
    inside = quantizer.inspect(made)
    assert inside.share == (0 if recipe.precision == "fp16" else 1)
    assert (
        inside.weights == quantizer.inspect(depthwise_tflite).weights == sum(unit.weights for unit in quantizer.units)
    )
    assert ("CONV_2D" in inside.float_operators) == (recipe.precision in ("int8-weights", "fp16"))
    assert "ADD" in inside.float_operators
    for output in ("logits", "pooled"):
        assert decibels(answers(depthwise_tflite, rows, output), answers(made, rows, output)) > 20
    assert made == quantizer.quantize(recipe)


def test_only_the_units_that_are_named_stay_float(depthwise_tflite: bytes) -> None:
    quantizer = TfliteQuantizer(depthwise_tflite, calls(pictures(30, 1)))
    units = {unit.operators[0]: unit for unit in quantizer.units}
    small = units["DEPTHWISE_CONV_2D"]
    with pytest.raises(QuantizationRefused, match="weight elements are in INT8"):
        quantizer.quantize(STATIC, [unit.name for unit in quantizer.units][:2])
    whole = quantizer.inspect(quantizer.quantize(load_recipe("weights_wi8c_af32")))
    assert whole.quantized == whole.weights
    with pytest.raises(InvalidRequest, match="nothere"):
        quantizer.quantize(STATIC, ["nothere"])
    try:
        part = quantizer.inspect(quantizer.quantize(STATIC, [small.name]))
    except QuantizationRefused:
        assert small.weights > 0.1 * whole.weights
    else:
        assert part.weights - part.quantized == small.weights
        assert "DEPTHWISE_CONV_2D" in part.float_operators


def test_what_is_left_in_float_reads_floats_where_nothing_else_reads_the_codes(depthwise_tflite: bytes) -> None:
    quantizer, rows = TfliteQuantizer(depthwise_tflite, calls(pictures(60, 1))), pictures(60, 2)
    (last,) = (unit.name for unit in quantizer.units if unit.name.startswith("add_3"))
    expected = answers(depthwise_tflite, rows, "pooled")
    any_share = replace(STATIC, minimum_weight_share=0)
    whole, part = (answers(quantizer.quantize(any_share, kept), rows, "pooled") for kept in ([], [last]))
    assert decibels(expected, part) > decibels(expected, whole) + 10
    inside = quantizer.inspect(quantizer.quantize(any_share, [last]))
    assert "DEPTHWISE_CONV_2D" in inside.float_operators
    (before,) = quantizer.spared(any_share, [last])
    assert before.startswith("Relu6_1"), "what it reads is computed in float, and said to be"
    assert inside.weights - inside.quantized == {unit.name: unit.weights for unit in quantizer.units}[last]


def test_where_the_tool_cannot_mix_both_kinds_of_int8_every_unit_is_of_one_kind(
    depthwise_tflite: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = TfliteQuantizer(depthwise_tflite, calls(pictures(30, 1)))
    (last,) = (unit.name for unit in quantizer.units if unit.name.startswith("add_3"))
    honest = quantizer._with

    def failing(recipe: Any, names: Any, *, giving_floats: Any = ()) -> bytes:
        if giving_floats:
            raise ConversionFailed("ai-edge-quantizer", "TypeError: can only concatenate str")
        return honest(recipe, names)

    monkeypatch.setattr(quantizer, "_with", failing)
    inside = quantizer.inspect(quantizer.quantize(replace(STATIC, minimum_weight_share=0), [last]))
    assert "DEPTHWISE_CONV_2D" not in inside.float_operators
    assert quantizer.spared(replace(STATIC, minimum_weight_share=0), [last]) == ()


def test_sensitivities_compare_the_output_that_is_asked_for(depthwise_tflite: bytes) -> None:
    given = calls(pictures(30, 1))
    found = TfliteQuantizer(depthwise_tflite, given, output="pooled").sensitivities(STATIC)
    (head,) = (
        unit.name for unit in TfliteQuantizer(depthwise_tflite, given).units if unit.operators == ("FULLY_CONNECTED",)
    )
    assert found[head] == float("inf"), "the head lies behind the pooled values"
    assert all(20 < value < 80 for name, value in found.items() if name != head)


def test_a_unit_that_the_tool_fails_on_alone_has_no_sensitivity_and_the_others_have_theirs(
    depthwise_tflite: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer = TfliteQuantizer(depthwise_tflite, calls(pictures(30, 1)))
    whole = quantizer.sensitivities(STATIC)
    failing = next(iter(whole))
    given = TfliteQuantizer._with

    def fails_on_one(self: TfliteQuantizer, recipe: Recipe, names: Iterable[str], **more: Any) -> bytes:
        if list(names) == [failing]:
            raise ConversionFailed("ai-edge-quantizer", "TypeError: can only concatenate str")
        return given(self, recipe, names, **more)

    monkeypatch.setattr(TfliteQuantizer, "_with", fails_on_one)
    assert quantizer.sensitivities(STATIC) == {name: value for name, value in whole.items() if name != failing}


def test_the_first_layer_over_raw_wide_columns_stays_float_and_the_reason_is_measured(folded_tflite: bytes) -> None:
    """Its steps are so coarse that XNNPACK would refuse the whole model; that must not end the search."""
    rows = table(200, 3)
    expected = answers(folded_tflite, rows)
    found = search(
        TfliteQuantizer(folded_tflite, calls(table(100, 1))),
        folded_tflite,
        lambda data: 1 - agreement(expected, answers(data, rows)),
        recipes=ladder_from("int8"),
        limit=0.03,
        error=lambda data: float(np.square(expected - answers(data, rows)).mean()),
    )
    (kept,) = found.kept
    assert kept.unit.weights == 8 * 96
    assert kept.drop_without is not None
    assert kept.drop_without > 0.5
    assert (found.precision, found.holds) == ("int8", True)
    assert "FULLY_CONNECTED" in found.quantized.float_operators


def test_static_ranges_need_rows(tabular_tflite: bytes) -> None:
    quantizer = TfliteQuantizer(tabular_tflite, [])
    with pytest.raises(TooLittleData):
        quantizer.quantize(STATIC)
    with pytest.raises(TooLittleData):
        quantizer.sensitivities(STATIC)


def test_a_model_that_is_quantized_already_is_refused(tabular_tflite: bytes) -> None:
    made = TfliteQuantizer(tabular_tflite, calls(table(50, 1))).quantize(STATIC)
    with pytest.raises(QuantizationRefused, match="give the float model"):
        TfliteQuantizer(made, [])


def test_a_file_without_a_signature_is_called_by_its_tensors_names(tabular_tflite: bytes) -> None:
    model = unpacked(tabular_tflite)
    model.signatureDefs = None
    bare = packed(model)
    interpreter = load_tool("ai_edge_litert.interpreter").Interpreter(model_content=bare)
    (name,) = tflite_signature(interpreter).inputs
    made = TfliteQuantizer(bare, [{name: row["x"]} for row in calls(table(50, 1))]).quantize(STATIC)
    loaded = load_tool("ai_edge_litert.interpreter").Interpreter(model_content=made)
    loaded.allocate_tensors()
    assert set(tflite_signature(loaded).outputs) == set(tflite_signature(interpreter).outputs)


def test_tensors_of_one_name_are_told_apart(tabular_tflite: bytes) -> None:
    model = unpacked(tabular_tflite)
    ends = {int(at) for at in (*model.subgraphs[0].inputs, *model.subgraphs[0].outputs)}
    for at, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = tensor.name if at in ends else b"same"
    quantizer = TfliteQuantizer(packed(model), calls(table(50, 1)))
    assert len({unit.name for unit in quantizer.units}) == 3
    assert quantizer.inspect(quantizer.quantize(STATIC)).share == 1


def buffers(data: bytes) -> list[Any]:
    model = load_tool("ai_edge_litert.schema_py_generated").Model.GetRootAs(data, 0)
    return [model.Buffers(at) for at in range(model.BuffersLength())]


def test_a_compact_file_is_smaller_answers_the_same_bits_and_keeps_constants_aligned(depthwise_tflite: bytes) -> None:
    rows = pictures(10, 2)
    quantizer = TfliteQuantizer(depthwise_tflite, calls(pictures(30, 1)))
    plain = quantizer._with(STATIC, [unit.name for unit in quantizer.units])
    small = compacted(unpacked(plain))
    assert len(small) < 0.95 * len(plain)
    np.testing.assert_array_equal(answers(small, rows), answers(plain, rows))
    for buffer in buffers(small):
        if buffer.DataLength():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
    names = {tensor_name(each) for each in unpacked(small).subgraphs[0].tensors}
    graph = unpacked(plain).subgraphs[0]
    assert {tensor_name(graph.tensors[at]) for at in (*graph.inputs, *graph.outputs)} <= names
