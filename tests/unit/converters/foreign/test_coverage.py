from __future__ import annotations

import pytest

from converters.errors import UnsupportedModel, UnsupportedOperator
from converters.foreign.coverage import Unsupported, refuse_unsupported, unsupported_operators, way_around
from converters.foreign.onnx_model import for_one_example
from edge_runtime.bundle import TensorSpec
from tests.unit.converters.foreign.models import BRANCH, FLATTEN, SPELLED, TREES, onnx_model

FOUR = (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)
TWO = (TensorSpec(name="x", dtype="float32", shape=("batch", 2)),)
SIX = (TensorSpec(name="x", dtype="float32", shape=("batch", 2, 3)),)


@pytest.mark.parametrize("target", ["onnx", "tflite", "coreml"])
def test_operators_that_only_compute_shapes_count_for_nothing(target: str) -> None:
    assert unsupported_operators(onnx_model(FLATTEN), target, SIX) == ()
    assert unsupported_operators(onnx_model(SPELLED), target, FOUR) == ()


@pytest.mark.parametrize("target", ["tflite", "coreml"])
def test_operators_of_classic_models_are_refused_with_their_domain_and_distillation(target: str) -> None:
    (found,) = unsupported_operators(onnx_model(TREES), target, FOUR)
    assert isinstance(found, Unsupported)
    assert (found.operator, found.count) == ("ai.onnx.ml::Scaler", 1)
    assert "edgeship-convert distill" in found.way_around


@pytest.mark.parametrize("target", ["tflite", "coreml"])
def test_a_branch_that_depends_on_data_is_refused(target: str) -> None:
    (found,) = unsupported_operators(onnx_model(BRANCH), target, TWO)
    assert found.operator == "If"
    assert "without branches and loops" in found.way_around


def test_a_refusal_names_operator_tool_target_and_way() -> None:
    static = for_one_example(onnx_model(BRANCH), TWO, target="tflite")
    with pytest.raises(UnsupportedOperator, match="If: onnx2tf cannot convert it to tflite; export the model without"):
        refuse_unsupported(static, "tflite")


def test_an_input_without_axes_is_refused_unless_an_operator_already_is() -> None:
    scaled = "scaled (float[batch, 2] x, float rate) => (float[batch, 2] y) { y = Mul (x, rate) }"
    with pytest.raises(UnsupportedModel, match="rate is a single number without axes"):
        unsupported_operators(onnx_model(scaled), "tflite", (*TWO, TensorSpec(name="rate", dtype="float32", shape=())))


def test_a_gru_has_another_way_to_core_ml_than_to_tflite() -> None:
    assert "LSTM" in way_around("GRU", "coreml")
    assert "leave tflite out" in way_around("GRU", "tflite")
