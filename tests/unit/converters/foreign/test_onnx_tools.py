from __future__ import annotations

import numpy as np
import pytest

from converters.coreml_reference import CoreMLReference
from converters.errors import UnsupportedModel, UnsupportedOperator
from converters.foreign.onnx_model import renamed
from converters.foreign.onnx_tools import onnx_to_coreml, onnx_to_tflite
from converters.quiet import load_tool
from edge_runtime.bundle import TensorSpec
from tests.unit.converters.foreign.models import BRANCH, SPELLED, onnx_model


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=shape)


def test_core_ml_computes_reciprocals_and_logarithms_as_onnx_does() -> None:
    model = onnx_model(SPELLED)
    x = np.array([[1e-3, 2e-3, 3e-3, 5e-3], [1.0, -1.0, 1.0, -1.0], [7.0, 0.5, -3.0, 2.0]], np.float32)
    session = load_tool("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": x})
    package = onnx_to_coreml(model, (spec("x", "batch", 4),), (spec("y", "batch", 4),))
    answer = CoreMLReference(package).run({"x": x[:, None]})["y"][:, 0]
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_core_ml_gets_names_that_it_accepts() -> None:
    onnx = load_tool("onnx")
    model = renamed(onnx.load_from_string(onnx_model(SPELLED)), {"x": "serving/in:0", "y": "Call:1"})
    package = onnx_to_coreml(
        model.SerializeToString(), (spec("serving/in:0", "batch", 4),), (spec("Call:1", "batch", 4),)
    )
    reference = CoreMLReference(package)
    assert set(reference.inputs) == {"serving_in_0"}
    assert set(reference.outputs) == {"Call_1"}


def test_the_same_model_gives_the_same_package() -> None:
    arguments = (onnx_model(SPELLED), (spec("x", "batch", 4),), (spec("y", "batch", 4),))
    assert onnx_to_coreml(*arguments) == onnx_to_coreml(*arguments)


def test_what_cannot_be_converted_is_refused_before_an_environment_is_made() -> None:
    arguments = (onnx_model(BRANCH), (spec("x", "batch", 2),), (spec("y", "batch", 2),))
    with pytest.raises(UnsupportedOperator, match=r"^If: onnx2tf"):
        onnx_to_tflite(*arguments, say=pytest.fail)
    with pytest.raises(UnsupportedOperator, match=r"^If: onnx2coreml"):
        onnx_to_coreml(*arguments)


def test_a_result_without_axes_is_refused() -> None:
    total = "total (float[batch, 2] x) => (float y) { y = ReduceSum <keepdims = 0> (x) }"
    with pytest.raises(UnsupportedModel, match="y is a single number without axes"):
        onnx_to_tflite(onnx_model(total), (spec("x", "batch", 2),), (spec("y"),), say=pytest.fail)
