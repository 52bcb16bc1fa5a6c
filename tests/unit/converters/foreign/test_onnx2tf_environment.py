"""ONNX to TFLite through the real environment, which is made if it is not there: about 0.7 GB."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from converters.environments import ONNX2TF, ensure
from converters.foreign.coverage import KNOWN_TO_ONNX2TF
from converters.foreign.onnx_tools import onnx_to_tflite
from converters.quiet import load_tool
from edge_runtime.bundle import TensorSpec
from tests.unit.converters.foreign.models import FLATTEN, RAGGED, SPELLED, onnx_model

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
REGISTRY = "from onnx2tf.tflite_builder.op_registry import _DISPATCH_REGISTRY as known; print(' '.join(known))"
# An image as ONNX lays it out, an integer beside it, results of one shape whose order onnx2tf may swap, odd names.
KERNEL = ", ".join(f"{(7 * k % 11) / 10 - 0.5:.1f}" for k in range(54))
TWO_INPUTS = (
    "two (float[batch, 3, 8, 8] image, int64[batch, 2] place) => (float[batch, 2] first, float[batch, 2] second)\n"
    f"<float[2, 3, 3, 3] kernel = {{{KERNEL}}}, int64[2] flat = {{-1, 2}}> {{"
    """
    features = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (image, kernel)
    pooled = GlobalAveragePool (features)
    second = Reshape (pooled, flat)
    number = Cast <to = 1> (place)
    first = Sub (second, number)
}"""
)


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def answers_alike(
    model: bytes, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], call: dict[str, np.ndarray], **more
) -> None:
    data = onnx_to_tflite(model, inputs, outputs, say=print, **more)
    session = load_tool("onnxruntime").InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = dict(zip([each.name for each in outputs], session.run([o.name for o in outputs], call), strict=True))
    interpreter = load_tool("ai_edge_litert.interpreter").Interpreter(model_content=data)
    actual = interpreter.get_signature_runner()(**call)
    for name, value in expected.items():
        assert actual[name].shape == value.shape
        np.testing.assert_allclose(actual[name], value, atol=1e-5)


def test_the_operators_that_are_refused_early_are_those_that_the_tool_does_not_know() -> None:
    python = ensure(ONNX2TF, print)
    printed = subprocess.run([python, "-c", REGISTRY], capture_output=True, text=True, check=True).stdout
    assert {*printed.splitlines()[-1].split(), "Constant"} == set(KNOWN_TO_ONNX2TF.read_text().split())


def test_layout_names_order_and_integers_are_those_of_the_model() -> None:
    rng = np.random.default_rng(1)
    answers_alike(
        onnx_model(TWO_INPUTS),
        (spec("image", "batch", 3, 8, 8), spec("place", "batch", 2, dtype="int64")),
        (spec("first", "batch", 2), spec("second", "batch", 2)),
        {"image": rng.normal(size=(1, 3, 8, 8)).astype(np.float32), "place": np.array([[3, 5]])},
    )


@pytest.mark.parametrize(
    ("text", "shape", "result", "size"),
    [
        pytest.param(SPELLED, ("batch", 4), ("batch", 4), (1, 4), id="spelled out normalization"),
        pytest.param(FLATTEN, ("batch", 2, 3), ("batch", 6), (1, 2, 3), id="reshape by shape"),
    ],
)
def test_small_models_answer_as_before(
    text: str, shape: tuple[int | str, ...], result: tuple[int | str, ...], size: tuple[int, ...]
) -> None:
    x = np.random.default_rng(2).normal(size=size).astype(np.float32)
    answers_alike(onnx_model(text), (spec("x", *shape),), (spec("y", *result),), {"x": x})


def test_an_axis_whose_size_is_given_is_no_longer_dynamic() -> None:
    x = np.random.default_rng(2).normal(size=(1, 5)).astype(np.float32)
    sized = (spec("x", "batch", "length"),), (spec("y", "batch", "length"),)
    answers_alike(onnx_model(RAGGED), *sized, {"x": x}, fixed_axes={"length": 5})
