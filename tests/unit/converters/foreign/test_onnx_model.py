from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.errors import UnsupportedModel
from converters.foreign.onnx_model import fix_axes, for_one_example, refuse_scalars, renamed
from converters.quiet import load_tool
from edge_runtime.bundle import TensorSpec
from tests.unit.converters.foreign.models import BRANCH, FLATTEN, RAGGED, onnx_model

X = TensorSpec(name="x", dtype="float32", shape=("batch", 2, 3))


def sizes(value: Any) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_the_batch_becomes_one_and_what_depended_on_it_is_computed() -> None:
    static = for_one_example(onnx_model(FLATTEN), (X,), target="tflite")
    assert sizes(static.graph.input[0]) == [1, 2, 3]
    assert sizes(static.graph.output[0]) == [1, 6]
    assert {node.op_type for node in static.graph.node} == {"Reshape"}


def test_the_static_model_answers_as_the_dynamic_one() -> None:
    runtime = load_tool("onnxruntime")
    static = for_one_example(onnx_model(FLATTEN), (X,), target="tflite")
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    for model in (static.SerializeToString(), onnx_model(FLATTEN)):
        (answer,) = runtime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        np.testing.assert_array_equal(answer, x.reshape(1, 6))


def test_another_dynamic_axis_is_refused_by_name_unless_its_size_is_given() -> None:
    specs = (TensorSpec(name="x", dtype="float32", shape=("batch", "length")),)
    with pytest.raises(UnsupportedModel, match="input x has the dynamic axis length, which tflite cannot hold"):
        for_one_example(onnx_model(RAGGED), specs, target="tflite")
    static = for_one_example(onnx_model(RAGGED), specs, target="tflite", fixed_axes={"length": 4})
    assert sizes(static.graph.input[0]) == [1, 4]


def test_fixing_axes_leaves_the_batch_and_the_others() -> None:
    specs = (TensorSpec(name="x", dtype="int64", shape=("batch", "length", "width", 3)),)
    assert fix_axes(specs, {"length": 4})[0].shape == ("batch", 4, "width", 3)


def test_tensors_are_renamed_inside_branches_too() -> None:
    model = load_tool("onnx").load_from_string(onnx_model(BRANCH))
    other = renamed(model, {"x": "first", "y": "last"})
    assert other.graph.input[0].name == "first"
    assert other.graph.output[0].name == "last"
    bodies = [attribute.g for node in other.graph.node for attribute in node.attribute if attribute.HasField("g")]
    assert len(bodies) == 2
    assert {name for body in bodies for node in body.node for name in node.input} == {"first"}
    assert model.graph.input[0].name == "x"


def test_a_number_without_axes_is_refused_with_the_way_around() -> None:
    refuse_scalars("tflite", (X,))
    with pytest.raises(UnsupportedModel, match=r"rate is .* to coreml .* \(an initializer of that name\)"):
        refuse_scalars("coreml", (X, TensorSpec(name="rate", dtype="int64", shape=())))
