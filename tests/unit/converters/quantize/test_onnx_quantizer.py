from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.errors import InvalidRequest, QuantizationRefused, TooLittleData, UnsupportedOperator
from converters.quantize.onnx import OnnxQuantizer
from converters.quantize.recipes import ladder_from, load_recipe, recipe_names
from converters.quantize.search import search
from tests.unit.converters.quantize.onnx_models import (
    agreement,
    answers,
    depthwise_net,
    drawn,
    images,
    model,
    node,
    table,
    tabular_net,
)

STATIC = load_recipe("static_wi8c_ai8")
ANY_SHARE = replace(STATIC, minimum_weight_share=0)


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).mean() / np.square(expected - actual).mean()))


def tool_default(data: bytes, rows: np.ndarray) -> bytes:
    """What onnxruntime's `quantize_static` makes of a model when nothing is chosen."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter([{"x": rows}])

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self._rows, None)

    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(data)
        quantization.quantize_static(source, result, Reader())
        return result.read_bytes()


def one_layer(nodes: list[Any], constants: dict[str, Any], **more: Any) -> bytes:
    ends = {"inputs": {"x": ["batch", 8]}, "outputs": {"y": ["batch", 6]}}
    return model(nodes, constants, **(ends | more))


# --- what tools' defaults break, and ours must not --------------------------------------------------------------------


def test_wide_columns_behind_a_normalization_in_the_graph_keep_their_accuracy() -> None:
    data, rows = tabular_net(normalized=True), table(1000, 2)
    expected = answers(data, x=rows)
    assert agreement(expected, answers(tool_default(data, table(200, 1)), x=rows)) < 0.67, "no trap any more?"
    made = OnnxQuantizer(data, [{"x": table(200, 1)}]).quantize(load_recipe())
    assert agreement(expected, answers(made, x=rows)) > 0.98


def test_depthwise_filters_of_very_different_sizes_keep_their_accuracy() -> None:
    data, rows = depthwise_net(), images(400, 2)
    expected = answers(data, x=rows)
    assert decibels(expected, answers(tool_default(data, images(100, 1)), x=rows)) < 10, "no trap any more?"
    made = OnnxQuantizer(data, [{"x": images(100, 1)}]).quantize(load_recipe())
    assert decibels(expected, answers(made, x=rows)) > 19


def test_the_first_layer_over_raw_wide_columns_stays_float_and_is_said_to() -> None:
    data, held_out = tabular_net(normalized=False), table(300, 3)
    quantizer = OnnxQuantizer(data, [{"x": table(200, 1)}])
    expected = answers(data, x=held_out)

    def drop(candidate: bytes) -> float:
        return 1 - agreement(expected, answers(candidate, x=held_out))

    assert drop(quantizer.quantize(load_recipe())) > 0.5
    found = search(quantizer, data, drop, recipes=ladder_from("int8"), limit=0.02)
    assert (found.precision, found.holds) == ("int8", True)
    assert [each.unit.name for each in found.kept] == ["g0"]
    assert "Gemm" in found.quantized.float_operators
    assert 0.9 <= found.quantized.share < 1
    rows = table(1000, 2)
    assert agreement(answers(data, x=rows), answers(found.data, x=rows)) > 0.97


def test_bias_correction_needs_calibration_rows_and_is_worth_them() -> None:
    data, rows = depthwise_net(), images(200, 2)
    recipe, expected = load_recipe("weights_wi8c_af32"), answers(depthwise_net(), x=rows)
    blind = OnnxQuantizer(data, []).quantize(recipe)
    seeing = OnnxQuantizer(data, [{"x": images(100, 1)}]).quantize(recipe)
    assert decibels(expected, answers(seeing, x=rows)) > decibels(expected, answers(blind, x=rows)) + 1


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_gives_a_file_with_the_same_ends_that_answers_alike(name: str) -> None:
    data, rows, recipe = tabular_net(normalized=True), table(300, 2), load_recipe(name)
    quantizer = OnnxQuantizer(data, [{"x": table(200, 1)}])
    made = quantizer.quantize(recipe)
    before, after = onnx.load_from_string(data).graph, onnx.load_from_string(made).graph
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)
    assert agreement(answers(data, x=rows), answers(made, x=rows)) > 0.96
    inside = quantizer.inspect(made)
    assert inside.share == (0 if recipe.precision == "fp16" else 1)
    assert len(made) < len(data) * (0.55 if recipe.precision == "fp16" else 0.36)
    assert ("Gemm" in inside.float_operators) == (recipe.precision in ("int8-weights", "fp16"))
    assert "Sub" in inside.float_operators, "the normalization stays float, and is said to"
    assert made == quantizer.quantize(recipe)


def test_the_biases_and_constants_of_a_normalization_are_not_counted_as_weights() -> None:
    quantizer = OnnxQuantizer(tabular_net(normalized=True), [{"x": table(50, 1)}])
    inside = quantizer.inspect(quantizer.quantize(STATIC))
    assert inside.weights == inside.quantized == 8 * 96 + 96 * 96 + 96 * 4


def test_only_the_units_that_are_named_stay_float() -> None:
    quantizer = OnnxQuantizer(depthwise_net(), [{"x": images(50, 1)}])
    whole = quantizer.inspect(quantizer.quantize(STATIC))
    part = quantizer.inspect(quantizer.quantize(ANY_SHARE, ["c1"]))
    assert whole.weights == part.weights
    assert whole.quantized - part.quantized == {unit.name: unit.weights for unit in quantizer.units}["c1"]
    assert "Conv" in part.float_operators
    assert "Conv" not in whole.float_operators
    with pytest.raises(InvalidRequest, match="nothere"):
        quantizer.quantize(STATIC, ["nothere"])


@pytest.mark.parametrize("pooled", [False, True])
def test_what_is_left_in_float_between_quantized_operators_is_not_rounded_by_the_engine(pooled: bool) -> None:
    """ONNX Runtime's WeightBiasQuantization would do so, with one scale for filters of very different sizes."""
    data = depthwise_net()
    if pooled:  # codes pass through what only moves values
        changed = onnx.load_from_string(data)
        changed.graph.node.insert(2, node("MaxPool", ["a0"], "p0", kernel_shape=[3, 3], pads=[1, 1, 1, 1]))
        changed.graph.node[3].input[0] = "p0"
        data = changed.SerializeToString()
    quantizer, rows = OnnxQuantizer(data, [{"x": images(100, 1)}]), images(400, 2)
    expected = answers(data, x=rows)
    whole, part = (answers(quantizer.quantize(ANY_SHARE, kept), x=rows) for kept in ([], ["c1"]))
    assert decibels(expected, part) > decibels(expected, whole) - 1
    plain = answers(quantizer.quantize(ANY_SHARE, ["c1"]), optimize=False, x=rows)
    assert decibels(plain, part) > 35, "one file, two meanings"


def test_what_is_left_in_float_reads_floats_where_nothing_else_reads_the_codes() -> None:
    data, rows = depthwise_net(), images(400, 2)
    quantizer, expected = OnnxQuantizer(data, [{"x": images(100, 1)}]), answers(data, x=rows)
    whole, part = (answers(quantizer.quantize(ANY_SHARE, kept), x=rows) for kept in ([], ["c2"]))
    assert decibels(expected, part) > decibels(expected, whole) + 6
    assert quantizer.spared(ANY_SHARE, ["c2"]) == ("c1",), "what it reads is computed in float, and said to be"
    assert quantizer.spared(ANY_SHARE, ["c1"]) == (), "the sum reads the codes before it too"
    assert quantizer.spared(ANY_SHARE, []) == ()


def test_too_much_in_float_is_not_int8() -> None:
    quantizer = OnnxQuantizer(tabular_net(normalized=True), [{"x": table(50, 1)}])
    with pytest.raises(QuantizationRefused, match="only 11% of 10368"):
        quantizer.quantize(STATIC, ["g1"])


def test_a_convolution_and_the_clip_behind_it_are_one_unit() -> None:
    units = {unit.name: unit for unit in OnnxQuantizer(depthwise_net(), []).units}
    assert {name: unit.operators for name, unit in units.items()} == {
        "c0": ("Conv", "Clip"),
        "c1": ("Conv", "Clip"),
        "c2": ("Conv",),
        "logits": ("MatMul",),
    }


def test_sensitivities_find_the_unit_that_loses_most() -> None:
    quantizer = OnnxQuantizer(tabular_net(normalized=False), [{"x": table(200, 1)}])
    found = quantizer.sensitivities(STATIC)
    assert set(found) == {"g0", "g1", "logits"}
    assert found["g0"] < 3
    assert min(found["g1"], found["logits"]) > 25


def test_static_ranges_need_rows_and_weights_alone_do_not() -> None:
    quantizer = OnnxQuantizer(tabular_net(normalized=True), [])
    with pytest.raises(TooLittleData):
        quantizer.quantize(STATIC)
    assert quantizer.inspect(quantizer.quantize(load_recipe("weights_wi8c_af32"))).share == 1


# --- graphs as exporters write them -----------------------------------------------------------------------------------


def test_weights_behind_transpose_reshape_identity_and_cast_are_found() -> None:
    nodes = [
        node("Transpose", ["stored"], "turned", perm=[1, 0]),
        node("Identity", ["turned"], "same"),
        node("MatMul", ["x", "same"], "h"),
        node("Cast", ["wide"], "narrow", to=TensorProto.FLOAT),
        node("Reshape", ["narrow", "shape"], "square"),
        node("MatMul", ["h", "square"], "y"),
    ]
    constants = {
        "stored": drawn(0, 10, 8), "wide": drawn(1, 10, 6).astype(np.float64).ravel(),
        "shape": np.array([10, 6], np.int64),
    }  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    data = one_layer(nodes, constants)
    quantizer = OnnxQuantizer(data, [{"x": rows}])
    assert sum(unit.weights for unit in quantizer.units) == 140
    made = quantizer.quantize(STATIC)
    assert quantizer.inspect(made).share == 1
    assert decibels(answers(data, x=rows), answers(made, x=rows)) > 30


def test_constants_that_are_cheaper_to_compute_are_not_stored_and_weights_are_found_all_the_same() -> None:
    nodes = [
        node("Transpose", ["stored"], "turned", perm=[1, 0]),
        node("MatMul", ["x", "turned"], "h"),
        node("Expand", ["one", "large"], "grid"),
        node("ReduceMean", ["grid"], "mean", axes=[0, 1], keepdims=1),
        node("Mul", ["h", "mean"], "scaled"),
        node("Gather", ["grid", "kind"], "picked", axis=0),
        node("ReduceMean", ["picked"], "level", axes=[1], keepdims=1),
        node("Add", ["scaled", "level"], "y"),
    ]
    constants = {
        "stored": drawn(0, 6, 8), "one": np.ones((1, 1), np.float32), "large": np.array([300, 300]),
    }  # fmt: skip
    data = one_layer(nodes, constants, inputs={"x": ["batch", 8], "kind": ["batch"]}, types={"kind": TensorProto.INT64})
    rows = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    quantizer = OnnxQuantizer(data, [{"x": rows, "kind": np.arange(64)}])
    made = quantizer.quantize(STATIC)
    assert len(made) < 3 * len(data), "not 90,000 ones"
    assert quantizer.inspect(made).share == 1
    assert [unit.name for unit in quantizer.units] == ["h"]


def test_weights_in_constant_nodes_and_a_scalar_clip_are_found() -> None:
    nodes = [
        node("Constant", [], "w", value=helper.make_tensor("w", TensorProto.FLOAT, [8, 6], drawn(0, 8, 6).ravel())),
        node("Constant", [], "low", value=helper.make_tensor("low", TensorProto.FLOAT, [], [0.0])),
        node("MatMul", ["x", "w"], "h"),
        node("Clip", ["h", "low"], "y"),
    ]
    (unit,) = OnnxQuantizer(one_layer(nodes, {}), []).units
    assert (unit.operators, unit.weights) == (("MatMul", "Clip"), 48)


def test_several_operators_may_share_one_weight_which_is_stored_once() -> None:
    """As in basic-pitch. ONNX Runtime's fix for processors without VNNI fails where two operators read one INT8
    constant."""
    nodes, last = [], "x"
    for at in range(5):
        nodes += [node("Conv", [last, "w"], f"c{at}", pads=[1, 1, 1, 1]), node("Relu", [f"c{at}"], f"r{at}")]
        last = f"r{at}"
    nodes.append(node("GlobalAveragePool", [last], "y"))
    data = model(
        nodes, {"w": drawn(0, 12, 12, 3, 3)},
        inputs={"x": ["batch", 12, 6, 6]}, outputs={"y": ["batch", 12, 1, 1]},
    )  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(32, 12, 6, 6)).astype(np.float32)
    quantizer = OnnxQuantizer(data, [{"x": rows}])
    made = quantizer.quantize(STATIC)
    assert quantizer.inspect(made).weights == 12 * 12 * 9
    assert len(made) < len(data)
    assert decibels(answers(data, x=rows), answers(made, x=rows)) > 20
    half = quantizer.quantize(ANY_SHARE, ["c0", "c1"])
    assert quantizer.inspect(half).share == 0.5, "the float copy counts beside the INT8 one"


def test_several_inputs_integer_inputs_and_several_outputs_keep_their_names_and_types() -> None:
    nodes = [
        node("Gather", ["table", "kind"], "embedded"),
        node("Concat", ["x", "embedded"], "both", axis=1),
        node("Gemm", ["both", "w", "b"], "y"),
        node("ArgMax", ["y"], "best", axis=1, keepdims=0),
    ]
    constants = {"table": drawn(0, 5, 4), "w": drawn(1, 12, 6), "b": drawn(2, 6, 1)[:, 0]}
    data = one_layer(
        nodes,
        constants,
        inputs={"x": ["batch", 8], "kind": ["batch"]},
        outputs={"y": ["batch", 6], "best": ["batch"]},
        types={"kind": TensorProto.INT64, "best": TensorProto.INT64},
    )
    rng = np.random.default_rng(0)
    call = {"x": rng.normal(size=(40, 8)).astype(np.float32), "kind": rng.integers(0, 5, 40)}
    quantizer = OnnxQuantizer(data, [call])
    made = quantizer.quantize(STATIC)
    graph = onnx.load_from_string(made).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["x", "kind", "y", "best"]
    assert graph.input[1].type.tensor_type.elem_type == TensorProto.INT64
    assert decibels(answers(data, **call), answers(made, **call)) > 30
    assert quantizer.inspect(made).weights == 72, "an embedding is no weight of a product"


def branching_net() -> bytes:
    """Two convolutions inside an If, and a product behind it, as in silero-vad."""
    branches = {}
    for name, seed in (("then_branch", 0), ("else_branch", 1)):
        weight = helper.make_tensor(f"w_{name}", TensorProto.FLOAT, [4, 3, 3], drawn(seed, 4, 3, 3).ravel())
        branches[name] = helper.make_graph(
            [node("Conv", ["x", f"w_{name}"], f"c_{name}")],
            name,
            [],
            [helper.make_tensor_value_info(f"c_{name}", TensorProto.FLOAT, None)],
            [weight],
        )
    nodes = [
        helper.make_node("If", ["flag"], ["c"], name="choice", **branches),
        node("ReduceMean", ["c"], "m", axes=[2], keepdims=0),
        node("MatMul", ["m", "w"], "y"),
    ]
    return model(
        nodes, {"w": drawn(3, 4, 2)},
        inputs={"x": ["batch", 3, 9], "flag": []}, outputs={"y": ["batch", 2]}, types={"flag": TensorProto.BOOL},
    )  # fmt: skip


def test_weights_inside_branches_are_quantized_where_no_ranges_are_needed_and_refused_where_they_are() -> None:
    data = branching_net()
    call = {"x": np.random.default_rng(0).normal(size=(20, 3, 9)).astype(np.float32), "flag": np.array(True)}
    quantizer = OnnxQuantizer(data, [call])
    assert [unit.weights for unit in quantizer.units] == [36, 36, 8]
    with pytest.raises(QuantizationRefused, match=r"10% of 80 .*float operators: Conv, "):
        quantizer.quantize(STATIC)
    for name in ("weights_wi8c_af32", "dynamic_wi8c_af32"):
        made = quantizer.quantize(load_recipe(name))
        assert quantizer.inspect(made).share == 1
        for flag in (True, False):
            one = call | {"flag": np.array(flag)}
            assert decibels(answers(data, **one), answers(made, **one)) > 30


def recurrent_net() -> bytes:
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["all", "last"], name="lstm", hidden_size=5),
        node("Squeeze", ["last", "zero"], "h"),
        node("MatMul", ["h", "v"], "y"),
    ]
    constants = {"w": drawn(0, 20, 3)[None], "r": drawn(1, 20, 5)[None], "v": drawn(2, 5, 2), "zero": np.array([0])}
    return model(nodes, constants, inputs={"x": [7, "batch", 3]}, outputs={"y": ["batch", 2]})


def test_recurrent_weights_are_stored_in_int8_by_the_recipes_that_compute_in_float_and_stay_float_in_static() -> None:
    data, rows = recurrent_net(), np.random.default_rng(0).normal(size=(7, 30, 3)).astype(np.float32)
    quantizer = OnnxQuantizer(data, [{"x": rows}])
    static = quantizer.quantize(STATIC)
    weights = quantizer.quantize(load_recipe("weights_wi8c_af32"))
    kinds = [{each.data_type for each in onnx.load_from_string(made).graph.initializer} for made in (static, weights)]
    stored = {
        each.dims[1]: each.data_type for each in onnx.load_from_string(weights).graph.initializer if len(each.dims) == 3
    }
    assert stored[20] == TensorProto.INT8
    assert TensorProto.FLOAT in kinds[0]
    for made in (static, weights):
        inside = quantizer.inspect(made)
        assert "LSTM" in inside.float_operators
        assert inside.weights == 10, "the share is of convolutions and matrix products"
        assert decibels(answers(data, x=rows), answers(made, x=rows)) > 30


def test_a_transposed_convolution_keeps_its_scales_by_output_channel() -> None:
    sizes = np.geomspace(0.01, 100, 6, dtype=np.float32)
    data = model(
        [node("ConvTranspose", ["x", "w", "b"], "y", strides=[2, 2])],
        {"w": drawn(0, 4, 6, 2, 2) * sizes[:, None, None], "b": np.ones(6, np.float32)},
        inputs={"x": ["batch", 4, 5, 5]}, outputs={"y": ["batch", 6, 10, 10]},
    )  # fmt: skip
    rows = np.random.default_rng(0).normal(size=(16, 4, 5, 5)).astype(np.float32)
    made = OnnxQuantizer(data, [{"x": rows}]).quantize(load_recipe("weights_wi8c_af32"))
    for channel in range(6):
        expected, actual = answers(data, x=rows)[:, channel], answers(made, x=rows)[:, channel]
        assert decibels(expected, actual) > 35


@pytest.mark.parametrize("opset", [9, 12, 13, 21, 23])
def test_any_opset_is_taken_and_brought_to_one_with_scales_by_channel(opset: int) -> None:
    nodes = [node("Gemm", ["x", "w", "b"], "h"), node("Relu", ["h"], "y")]
    data = one_layer(nodes, {"w": drawn(0, 8, 6), "b": np.ones(6, np.float32)}, opset=opset)
    rows = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    made = OnnxQuantizer(data, [{"x": rows}]).quantize(STATIC)
    (standard,) = onnx.load_from_string(made).opset_import
    assert standard.version == (opset if opset >= 13 else 17)
    assert decibels(answers(data, x=rows), answers(made, x=rows)) > 30


def test_a_model_that_is_quantized_already_is_refused() -> None:
    made = OnnxQuantizer(tabular_net(normalized=True), [{"x": table(50, 1)}]).quantize(STATIC)
    with pytest.raises(QuantizationRefused, match="DequantizeLinear, QuantizeLinear; give the float model"):
        OnnxQuantizer(made, [])


def test_a_custom_operator_is_refused_by_name_with_the_way_around() -> None:
    custom = helper.make_node("Blur", ["x"], ["y"], name="blur", domain="com.example")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    made = helper.make_model(
        helper.make_graph([custom], "g", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
    )
    with pytest.raises(UnsupportedOperator, match=r"com\.example\.Blur: .*node blur.*standard operators"):
        OnnxQuantizer(made.SerializeToString(), [])
