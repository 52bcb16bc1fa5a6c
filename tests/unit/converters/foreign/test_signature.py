from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.errors import CheckFailed
from converters.foreign.signature import custom_operators, rename_signature
from converters.quiet import load_tool
from edge_runtime.bundle import TensorSpec

LEFT = TensorSpec(name="serving/left:0", dtype="float32", shape=("batch", 3))
RIGHT = TensorSpec(name="right", dtype="int32", shape=("batch", 3))
SUM = TensorSpec(name="sum", dtype="float32", shape=("batch", 3))
TWICE = TensorSpec(name="twice", dtype="int32", shape=("batch", "width"))
INPUTS = {"a": LEFT, "b": RIGHT}
OUTPUTS = {"p": SUM, "q": TWICE}


@pytest.fixture(scope="module")
def tool_made() -> bytes:
    """A model whose signature is ``made`` with inputs a and b and outputs p (their sum) and q (twice b)."""
    tf = load_tool("tensorflow")
    module = tf.Module()
    module.call = tf.function(lambda a, b: {"p": a + tf.cast(b, tf.float32), "q": b * 2}, autograph=False)
    concrete = module.call.get_concrete_function(
        a=tf.TensorSpec((1, 3), tf.float32, name="a"), b=tf.TensorSpec((1, 3), tf.int32, name="b")
    )
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert())


def test_names_change_and_answers_stay(tool_made: bytes) -> None:
    data = rename_signature(tool_made, INPUTS, OUTPUTS)
    interpreter = load_tool("ai_edge_litert.interpreter").Interpreter(model_content=data)
    assert list(interpreter.get_signature_list()) == ["serving_default"]
    assert {each["name"] for each in interpreter.get_input_details()} == {"serving/left:0", "right"}
    left, right = np.array([[0.5, 1, 2]], np.float32), np.array([[1, 2, 3]], np.int32)
    answer = interpreter.get_signature_runner()(**{"serving/left:0": left, "right": right})
    np.testing.assert_array_equal(answer["sum"], left + right)
    np.testing.assert_array_equal(answer["twice"], right * 2)


def test_a_tool_that_names_other_tensors_is_found_out(tool_made: bytes) -> None:
    with pytest.raises(CheckFailed, match=r"inputs are \['a', 'b'\], not \['a', 'c'\]"):
        rename_signature(tool_made, {"a": LEFT, "c": RIGHT}, OUTPUTS)


def test_a_tensor_of_another_dtype_or_shape_is_found_out(tool_made: bytes) -> None:
    with pytest.raises(CheckFailed, match=r"right is int32 \[1, 3\], not int64 \[1, 3\]"):
        rename_signature(tool_made, {"a": LEFT, "b": replace(RIGHT, dtype="int64")}, OUTPUTS)
    with pytest.raises(CheckFailed, match=r"sum is float32 \[1, 3\], not float32 \[1, 3, 1\]"):
        rename_signature(tool_made, INPUTS, {"p": replace(SUM, shape=("batch", 3, 1)), "q": TWICE})


def test_a_model_of_builtin_operators_has_no_custom_ones(tool_made: bytes) -> None:
    assert custom_operators(tool_made) == ()


def test_custom_operators_are_named(tool_made: bytes) -> None:
    schema, flatbuffers = load_tool("ai_edge_litert.schema_py_generated"), load_tool("flatbuffers")
    model = schema.ModelT.InitFromPackedBuf(tool_made, 0)
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = "ONNX_IF"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    assert custom_operators(bytes(builder.Output())) == ("ONNX_IF",)
