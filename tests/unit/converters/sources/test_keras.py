from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import KerasSource
from converters.engines import open_engine
from converters.errors import ModelUnreadable, UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool
from converters.targets.coreml import coreml_program, pack_program
from converters.targets.onnx import convert_to_onnx
from converters.targets.tflite import convert_to_tflite
from tests.unit.converters.conftest import AXES, LENGTH, small_net, windows

Build = Callable[[Any, Any], Any]


def plain(layers: Any, h: Any) -> Any:
    return layers.Conv1D(8, 3, activation="relu")(h)


def residual(layers: Any, h: Any) -> Any:
    h = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 5, padding="same")(h)))
    other = layers.BatchNormalization()(layers.Conv1D(8, 3, padding="same", use_bias=False)(h))
    return layers.ReLU()(layers.Add()([h, other]))


def dilated_causal(layers: Any, h: Any) -> Any:
    h = layers.Conv1D(8, 3, padding="causal", dilation_rate=2)(h)
    return layers.BatchNormalization()(layers.Conv1D(8, 3, padding="same", dilation_rate=3)(h))


def pooled(layers: Any, h: Any) -> Any:
    h = layers.MaxPooling1D(2)(layers.Conv1D(8, 3, strides=2, padding="same", activation="gelu")(h))
    return layers.AveragePooling1D(2, padding="same")(h)


def gated(layers: Any, h: Any) -> Any:
    gate = layers.Conv1D(8, 1, activation="sigmoid")(h)
    return layers.Multiply()([layers.Conv1D(8, 3, padding="same", activation="tanh")(h), gate])


def shared(layers: Any, h: Any) -> Any:
    """One convolution read by a normalization and, unnormalized, by something else: it must not be folded into."""
    conv = layers.Conv1D(8, 3, padding="same")
    return layers.Concatenate()([layers.BatchNormalization()(conv(h)), conv(h), layers.Activation("elu")(conv(h))])


def dense_normalized(layers: Any, h: Any) -> Any:
    h = layers.BatchNormalization()(layers.Dense(12)(layers.Flatten()(h)))
    return layers.Reshape((3, 4))(layers.LeakyReLU()(h))


BUILDS: list[Build] = [plain, residual, dilated_causal, pooled, gated, shared, dense_normalized]


def network(keras: Any, build: Build) -> Any:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    window = keras.Input((LENGTH, AXES), name="window")
    h = layers.GlobalAveragePooling1D()(build(layers, layers.BatchNormalization()(window)))
    model = keras.Model(window, layers.Dense(3, name="logits")(h))
    rng = np.random.default_rng(0)
    for layer in model.layers:  # statistics that folding must respect
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 2.0, w.shape) for w in layer.get_weights()])
    return model


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("batch", [None, 1], ids=["dynamic", "one"])
def test_a_simplified_graph_computes_what_the_model_does(keras: Any, build: Build, batch: int | None) -> None:
    tf = load_tool("tensorflow")
    model = network(keras, build)
    x = np.random.default_rng(1).normal(0, 2, (batch or 5, LENGTH, AXES)).astype(np.float32)
    graph = KerasSource(model).frozen(batch=batch)
    (result,) = graph.function()(tf.constant(x))
    np.testing.assert_allclose(result, model(x, training=False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [residual, dilated_causal, pooled, gated], ids=lambda build: build.__name__)
def test_every_target_computes_what_the_model_does(keras: Any, build: Build) -> None:
    source = KerasSource(network(keras, build))
    rows = {"window": np.random.default_rng(1).normal(0, 2, (4, LENGTH, AXES)).astype(np.float32)}
    expected = source.predict(rows)["logits"]
    one = source.frozen(batch=1)
    files = {
        "onnx": convert_to_onnx(source.frozen(), source.inputs, source.outputs),
        "coreml": pack_program(coreml_program(one, source.inputs)),
    }
    if build is not pooled:  # its exact GELU has no TFLite kernel
        files["tflite"] = convert_to_tflite(one, source.inputs, source.outputs)
    for target, data in files.items():
        actual = open_engine(target, data, source.inputs, source.outputs).run(rows)["logits"]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=target)


def test_normalization_behind_convolutions_is_folded_away_and_they_stand_side_by_side(keras: Any) -> None:
    kinds = Counter(node.op for node in KerasSource(small_net(keras)).frozen().graph_def.node)
    assert kinds["Conv2D"] == 3
    assert kinds["DepthwiseConv2dNative"] == 2
    assert kinds["ExpandDims"] == 1, "only the first convolution still needs its axis made"
    assert kinds["Squeeze"] == 1
    assert kinds["Mul"] + kinds["AddV2"] == 0


def test_exact_gelu_converts_where_there_is_an_erf_and_is_refused_by_name_where_not(keras: Any) -> None:
    source = KerasSource(network(keras, pooled))
    assert "Erfc" not in {node.op for node in source.frozen().graph_def.node}
    with pytest.raises(UnsupportedOperator, match=r"Erf.*approximate") as raised:
        convert_to_tflite(source.frozen(batch=1), source.inputs, source.outputs)
    assert raised.value.operator == "Erf"


def test_a_recurrent_layer_converts_to_every_target(keras: Any) -> None:
    keras.utils.set_random_seed(3)
    window = keras.Input((8, AXES), name="window")
    source = KerasSource(keras.Model(window, keras.layers.Dense(3, name="logits")(keras.layers.LSTM(5)(window))))
    rows = {"window": np.random.default_rng(1).normal(size=(4, 8, AXES)).astype(np.float32)}
    expected = source.predict(rows)["logits"]
    lowered = source.frozen(batch=1, lower_control_flow=True)
    for target, data in (
        ("onnx", convert_to_onnx(source.frozen(), source.inputs, source.outputs)),
        ("tflite", convert_to_tflite(lowered, source.inputs, source.outputs)),
        ("coreml", pack_program(coreml_program(source.frozen(batch=1), source.inputs))),
    ):
        actual = open_engine(target, data, source.inputs, source.outputs).run(rows)["logits"]
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5, err_msg=target)


def test_a_dictionary_of_outputs_and_several_inputs_keep_their_names(keras: Any) -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    h = keras.layers.Concatenate()([a, b])
    model = keras.Model([a, b], {"logits": keras.layers.Dense(3)(h), "aux": keras.layers.Dense(1)(h)})
    source = KerasSource(model)
    assert [spec.name for spec in source.inputs] == ["a", "b"]
    assert [spec.name for spec in source.outputs] == ["aux", "logits"]
    rows = {"a": np.ones((3, 4), np.float32), "b": np.zeros((3, 2), np.float32)}
    expected = source.predict(rows)
    assert {name: value.shape for name, value in expected.items()} == {"aux": (3, 1), "logits": (3, 3)}
    for target, data in (
        ("onnx", convert_to_onnx(source.frozen(), source.inputs, source.outputs)),
        ("tflite", convert_to_tflite(source.frozen(batch=1), source.inputs, source.outputs)),
    ):
        actual = open_engine(target, data, source.inputs, source.outputs).run(rows)
        for name in expected:
            np.testing.assert_allclose(actual[name], expected[name], rtol=1e-5, atol=1e-6)


def test_a_saved_file_is_the_same_source_as_the_model(student: Any, tmp_path: Path) -> None:
    student.save(tmp_path / "student.keras")
    source = KerasSource(tmp_path / "student.keras")
    assert source.parameters == student.count_params()
    rows = {"window": windows(8, 5)[0]}
    np.testing.assert_array_equal(source.predict(rows)["logits"], KerasSource(student).predict(rows)["logits"])


def test_a_model_built_for_a_batch_of_one_is_asked_row_by_row(keras: Any) -> None:
    x = keras.Input(batch_shape=(1, 4), name="x")
    source = KerasSource(keras.Model(x, {"y": keras.layers.Dense(3)(x)}))
    assert source.inputs[0].shape == ("batch", 4)
    assert source.one_at_a_time
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    assert source.predict({"x": rows})["y"].shape == (5, 3)
    assert source.frozen().function().inputs[0].shape == (1, 4)
    data = convert_to_onnx(source.frozen(), source.inputs, source.outputs)
    actual = open_engine("onnx", data, source.inputs, source.outputs).run({"x": rows})
    np.testing.assert_allclose(actual["y"], source.predict({"x": rows})["y"], rtol=1e-5, atol=1e-6)


def test_what_is_not_a_keras_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match="no such file"):
        KerasSource(tmp_path / "none.keras")
    (tmp_path / "text.keras").write_text("hello")
    with pytest.raises(ModelUnreadable, match=r"not a \.keras file"):
        KerasSource(tmp_path / "text.keras")


def test_a_damaged_keras_file_is_refused_by_name(student: Any, tmp_path: Path) -> None:
    path = tmp_path / "student.keras"
    student.save(path)
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelUnreadable):
            KerasSource(path)
    path.write_bytes(whole[:200] + bytes(100) + whole[300:])
    with pytest.raises(ModelUnreadable):
        KerasSource(path)


def test_a_file_that_would_run_code_is_refused(keras: Any, tmp_path: Path) -> None:
    window = keras.Input((4,), name="window")
    path = tmp_path / "lambda.keras"
    keras.Model(window, keras.layers.Lambda(lambda x: x * 2)(window)).save(path)
    with pytest.raises(ModelUnreadable, match="Lambda"):
        KerasSource(path)


def test_models_without_symbolic_inputs_are_refused(keras: Any) -> None:
    class Subclassed(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(UnsupportedModel, match="no symbolic inputs"):
        KerasSource(Subclassed())
    with pytest.raises(UnsupportedModel, match=r"not a keras\.Model"):
        KerasSource(object())
