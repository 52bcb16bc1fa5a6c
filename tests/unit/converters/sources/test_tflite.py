from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.engines import open_engine
from converters.errors import ModelUnreadable, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool, quiet
from converters.sources.opening import open_source
from converters.sources.tflite import TfliteSource
from tests.support import tiny


def converted(path: Path, module: Any, functions: list[Any], **options: Any) -> Path:
    tf = load_tool("tensorflow")
    converter = tf.lite.TFLiteConverter.from_concrete_functions(functions, module)
    for name, value in options.items():
        setattr(converter, name, value)
    with quiet("TFLiteConverter"):
        path.write_bytes(converter.convert())
    return path


def dense(path: Path, *, samples: bool = False, **options: Any) -> Path:
    """One matrix product of 64 × 32 and a softmax."""
    tf = load_tool("tensorflow")
    rng = np.random.default_rng(0)
    module = tf.Module()
    module.weight = tf.constant(rng.normal(size=(64, 32)).astype(np.float32))
    call = tf.function(lambda x: {"scores": tf.nn.softmax(x @ module.weight)})
    function = call.get_concrete_function(tf.TensorSpec([1, 64], tf.float32, name="x"))
    if samples:
        options["representative_dataset"] = lambda: ([rng.normal(size=(1, 64)).astype(np.float32)] for _ in range(20))
    return converted(path, module, [function], **options)


@pytest.mark.parametrize("name", ["dynamic", "fixed"])
def test_a_file_is_taken_as_it_is_and_answers_as_it_should(name: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.tflite").write_bytes(tiny.tflite_bytes(name))
    source = open_source(tmp_path / "tiny.tflite")
    assert isinstance(source, TfliteSource)
    assert (source.kind, source.name, source.precision, source.parameters) == ("tflite", "tiny", "fp32", 244)
    assert source.data == tiny.tflite_bytes(name)
    assert source.inputs[0].shape == ("batch", 20, 3)
    assert source.one_at_a_time == (name == "fixed")
    x = tiny.windows(3)
    np.testing.assert_allclose(source.predict({"window": x})["logits"], tiny.expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"), [("fp32", "fp32"), ("fp16", "fp16"), ("dynamic", "int8-dynamic"), ("static", "int8")]
)
def test_the_precision_is_what_the_file_holds(kind: str, expected: str, tmp_path: Path) -> None:
    tf = load_tool("tensorflow")
    optimized = {"optimizations": [tf.lite.Optimize.DEFAULT]}
    options = {
        "fp32": {},
        "fp16": optimized | {"target_spec": tf.lite.TargetSpec(supported_types=[tf.float16])},
        "dynamic": optimized,
        "static": optimized | {"samples": True},
    }[kind]
    source = TfliteSource(dense(tmp_path / "a.tflite", **options))
    assert source.precision == expected
    assert source.activation == "softmax"
    assert not source.stateful


def test_integer_inputs_and_outputs_stay_integers_and_say_how_they_are_scaled(tmp_path: Path) -> None:
    tf = load_tool("tensorflow")
    whole = {"inference_input_type": tf.int8, "inference_output_type": tf.uint8}
    path = dense(tmp_path / "a.tflite", samples=True, optimizations=[tf.lite.Optimize.DEFAULT], **whole)
    source = TfliteSource(path)
    assert (source.inputs[0].dtype, source.outputs[0].dtype) == ("int8", "uint8")
    scale, zero = source.quantization["scores"]
    assert (scale, zero) == (1 / 256, 0)
    answers = source.predict({"x": np.zeros((2, 64), np.int8)})["scores"]
    assert answers.dtype == np.uint8
    assert source.activation == "softmax"


def test_answers_are_those_of_the_kernels_that_a_device_uses(tmp_path: Path) -> None:
    """LiteRT's plain kernels round a quantized model in another way: a file would not agree with itself."""
    tf = load_tool("tensorflow")
    rng = np.random.default_rng(0)
    module = tf.Module()
    module.first = tf.constant(rng.normal(size=(3, 3, 3, 16)).astype(np.float32))
    module.second = tf.constant(rng.normal(size=(1, 1, 16, 32)).astype(np.float32))
    call = tf.function(lambda x: {"y": tf.nn.conv2d(tf.nn.relu6(tf.nn.conv2d(x, module.first, 1, "SAME")),
                                                    module.second, 1, "SAME")})  # fmt: skip
    function = call.get_concrete_function(tf.TensorSpec([1, 16, 16, 3], tf.float32, name="x"))
    options = {
        "optimizations": [tf.lite.Optimize.DEFAULT],
        "representative_dataset": lambda: ([rng.normal(size=(1, 16, 16, 3)).astype(np.float32)] for _ in range(20)),
        "inference_input_type": tf.int8,
        "inference_output_type": tf.int8,
    }
    source = TfliteSource(converted(tmp_path / "a.tflite", module, [function], **options))
    x = {"x": rng.integers(-128, 128, (50, 16, 16, 3)).astype(np.int8)}
    on_device = open_engine("tflite", source.data, source.inputs, source.outputs).run(x)
    np.testing.assert_array_equal(source.predict(x)["y"], on_device["y"])


def test_a_model_with_variables_takes_rows_as_the_steps_of_one_stream(tmp_path: Path) -> None:
    tf = load_tool("tensorflow")
    module = tf.Module()
    module.total = tf.Variable(np.zeros((1, 2), np.float32))

    def call(x: Any) -> Any:
        return {"y": module.total.assign_add(x) + 0.0}

    function = tf.function(call).get_concrete_function(tf.TensorSpec([1, 2], tf.float32, name="x"))
    path = converted(tmp_path / "a.tflite", module, [function], experimental_enable_resource_variables=True)
    source = TfliteSource(path)
    assert source.stateful
    x = np.ones((3, 2), np.float32)
    for _ in range(2):  # every call is a stream of its own
        assert source.predict({"x": x})["y"][:, 0].tolist() == [1.0, 2.0, 3.0]


def test_an_axis_of_any_size_is_resized_as_the_rows_ask(tmp_path: Path) -> None:
    tf = load_tool("tensorflow")
    module = tf.Module()
    spec = tf.TensorSpec([1, None, 2], tf.float32, name="x")
    function = tf.function(lambda x: {"y": tf.reduce_sum(x, axis=1)}).get_concrete_function(spec)
    source = TfliteSource(converted(tmp_path / "a.tflite", module, [function]))
    assert source.inputs[0].shape == ("batch", "x_1", 2)
    for length in (3, 5):
        assert source.predict({"x": np.ones((2, length, 2))})["y"].tolist() == [[length, length]] * 2


def test_several_signatures_without_the_default_one_are_listed(tmp_path: Path) -> None:
    tf = load_tool("tensorflow")
    module = tf.Module()
    spec = tf.TensorSpec([1, 2], tf.float32, name="x")
    module.one = tf.function(lambda x: {"y": x + 1}, input_signature=[spec])
    module.two = tf.function(lambda x: {"y": x + 2}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"one": module.one, "two": module.two})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "m"), signature_keys=["one", "two"])
    with quiet("TFLiteConverter"):
        (tmp_path / "a.tflite").write_bytes(converter.convert())
    with pytest.raises(UnsupportedModel, match="signatures one, two"):
        TfliteSource(tmp_path / "a.tflite")


def test_an_operator_that_needs_tensorflow_is_refused_by_name(tmp_path: Path) -> None:
    tf = load_tool("tensorflow")
    module = tf.Module()
    spec = tf.TensorSpec([1, 2], tf.float32, name="x")
    function = tf.function(lambda x: {"y": tf.math.erf(x)}).get_concrete_function(spec)
    flex = tf.lite.TargetSpec(supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS])
    path = converted(tmp_path / "a.tflite", module, [function], target_spec=flex)
    with pytest.raises(UnsupportedOperator, match="builtin operators only") as raised:
        TfliteSource(path)
    assert raised.value.operator == "FlexErf"


def test_a_truncated_file_is_unreadable_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = tiny.tflite_bytes("fixed")
    path = tmp_path / "a.tflite"
    for cut in (7, 40, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelUnreadable):
            TfliteSource(path)
