from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import Dataset, KerasSource, convert
from converters.errors import UnsupportedModel
from converters.sources.activation import last_activation

Build = Callable[[Any, Any], Any]


def dense(keras: Any, h: Any) -> Any:
    return keras.layers.Dense(3, activation="softmax", name="last")(h)


def activation(keras: Any, h: Any) -> Any:
    return keras.layers.Identity()(keras.layers.Activation("softmax", name="last")(h))


def layer(keras: Any, h: Any) -> Any:
    return keras.layers.Softmax(name="last")(h)


def nested(keras: Any, h: Any) -> Any:
    inside = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="softmax", name="last")])
    return inside(h)


def sigmoid(keras: Any, h: Any) -> Any:
    return keras.layers.Dense(3, activation="sigmoid", name="last")(h)


def spelled_out(keras: Any, h: Any) -> Any:
    exponential = keras.ops.exp(h)
    return exponential / keras.ops.sum(exponential, axis=-1, keepdims=True)


def one_number(keras: Any, h: Any) -> Any:
    return keras.layers.Dense(1)(h)


def log_probabilities(keras: Any, h: Any) -> Any:
    return keras.ops.log(keras.ops.softmax(h))


def gated(keras: Any, h: Any) -> Any:
    return h * keras.ops.sigmoid(h)


def source(keras: Any, build: Build) -> KerasSource:
    keras.utils.set_random_seed(3)
    x = keras.Input((5,), name="x")
    return KerasSource(keras.Model(x, {"scores": build(keras, keras.layers.Dense(3)(x))}), name="net")


def request(tmp_path: Path) -> dict[str, Any]:
    x = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32)
    evaluation = Dataset(name="e", inputs={"x": x}, labels=np.arange(20) % 3)
    return {"evaluation": evaluation, "targets": ["onnx"], "precisions": ["fp32"], "out": tmp_path / "out"}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (dense, r"ends in a softmax \(layer last\).*Give the model without its last softmax"),
        (activation, r"ends in a softmax \(layer last\)"),
        (layer, r"ends in a softmax \(layer last\)"),
        (nested, r"ends in a softmax \(layer last\)"),
        (sigmoid, r"ends in a sigmoid \(layer last\).*Give the model without its last sigmoid"),
        (spelled_out, r"every row of the first output, scores, sums to one.*without its last softmax"),
        (one_number, "scores, is one number for each row. This version measures classifiers"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_without_logits_is_refused_with_what_to_do(
    keras: Any, build: Build, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        convert(source(keras, build), **request(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("build", [log_probabilities, gated], ids=lambda build: build.__name__)
def test_log_probabilities_and_gates_are_logits(keras: Any, build: Build, tmp_path: Path) -> None:
    (artifact,) = convert(source(keras, build), **request(tmp_path))
    assert artifact.agreement == 1.0


def test_the_advice_to_set_the_activation_works(keras: Any, tmp_path: Path) -> None:
    model = source(keras, dense).model
    model.get_layer("last").activation = keras.activations.linear
    model.save(tmp_path / "net.keras")
    without = KerasSource(tmp_path / "net.keras")
    assert last_activation(without.model) is None
    convert(without, **request(tmp_path))


def test_a_recurrent_layers_inner_sigmoid_is_not_its_last_operation(keras: Any) -> None:
    x = keras.Input((4, 5), name="x")
    assert last_activation(keras.Model(x, keras.layers.GRU(3, activation="sigmoid")(x))) is None
