from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from converters import KerasSource
from converters.sources.activation import last_squashing

Build = Callable[[Any, Any], Any]


def dense(keras: Any, h: Any) -> Any:
    return keras.layers.Dense(3, activation="softmax")(h)


def activation(keras: Any, h: Any) -> Any:
    return keras.layers.Identity()(keras.layers.Activation("softmax")(h))


def layer(keras: Any, h: Any) -> Any:
    return keras.layers.Reshape((3, 1))(keras.layers.Softmax()(h))


def nested(keras: Any, h: Any) -> Any:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="softmax")])(h)


def sigmoid(keras: Any, h: Any) -> Any:
    return keras.layers.Dense(1, activation="sigmoid")(h)


def logits(keras: Any, h: Any) -> Any:
    return keras.layers.Dense(3)(h)


def log_probabilities(keras: Any, h: Any) -> Any:
    return keras.ops.log(keras.ops.softmax(h))


def gated(keras: Any, h: Any) -> Any:
    return h * keras.ops.sigmoid(h)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        *((build, "softmax") for build in (dense, activation, layer, nested)),
        (sigmoid, "sigmoid"),
        *((build, None) for build in (logits, log_probabilities, gated)),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_keras_model_says_what_it_ends_in(keras: Any, build: Build, expected: str | None) -> None:
    x = keras.Input((5,), name="x")
    model = keras.Model(x, {"scores": build(keras, keras.layers.Dense(3)(x))})
    assert KerasSource(model).activation == expected


def test_a_recurrent_layers_inner_sigmoid_is_not_its_last_operation(keras: Any) -> None:
    x = keras.Input((4, 5), name="x")
    assert KerasSource(keras.Model(x, keras.layers.GRU(3, activation="sigmoid")(x))).activation is None


def test_a_graph_is_followed_through_what_keeps_the_values_and_no_further() -> None:
    graph = {
        "out": ("Cast", "r"),
        "r": ("Reshape", "s"),
        "s": ("LOGISTIC", "h"),
        "t": ("Transpose", "s"),
        "l": ("l", "l"),
    }
    assert last_squashing("out", graph.get) == "sigmoid"
    assert last_squashing("t", graph.get) is None
    assert last_squashing("h", graph.get) is None
    assert last_squashing("loop", {"loop": ("Identity", "loop")}.get) is None
