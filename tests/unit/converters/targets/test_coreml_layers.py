"""Keras layers as Core ML programs, compared with Keras on random rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from converters import CoreMLReference, KerasSource
from converters.errors import UnsupportedModel, UnsupportedOperator
from converters.quiet import load_tool
from converters.targets.coreml import coreml_program, minimum_engine_version, pack_program

RNG = np.random.default_rng(0)


def convolutional(keras: Any, x: Any) -> dict[str, Any]:
    layers = keras.layers
    h = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu6")(x)
    h = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same")(h)
    up = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(h)
    odd = layers.Conv2DTranspose(2, 4, strides=3, padding="valid")(h)
    return {
        "transposed": up,
        "odd_transposed": odd,
        "pooled": layers.AveragePooling2D(3, 2, padding="same")(layers.MaxPooling2D(2, padding="same")(h)),
        "grouped": layers.Conv2D(6, 3, groups=3, activation="silu")(h),
        "resized": layers.Resizing(9, 7)(h),
        "normed": layers.GroupNormalization(2)(h),
        "shifted": keras.ops.roll(h, 2, axis=1),
        "mish": layers.Conv2D(2, 1, activation="mish")(h),
        "cumsum": keras.ops.cumsum(h, axis=1),
    }


def sequential(keras: Any, x: Any) -> dict[str, Any]:
    layers = keras.layers
    attended = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
    hidden = layers.Dense(7, activation=keras.activations.gelu)(attended)
    return {
        "attention": layers.Dense(3)(layers.GlobalAveragePooling1D()(hidden)),
        "lstm": layers.LSTM(4)(x),
        "gru": layers.GRU(4, return_sequences=True)(x),
        "both_ways": layers.Bidirectional(layers.GRU(2, reset_after=False))(x),
        "backwards": layers.LSTM(3, go_backwards=True, return_sequences=True)(x),
        "causal": layers.Conv1D(3, 3, padding="causal", dilation_rate=2, activation="selu")(x),
        "sum_exp": keras.ops.logsumexp(x, axis=1),
    }


def indexed(keras: Any, x: Any) -> dict[str, Any]:
    layers = keras.layers
    h = layers.Embedding(20, 5)(x)
    return {
        "pooled": layers.Dense(3)(layers.GlobalMaxPooling1D()(h)),
        "hot": keras.ops.one_hot(x, 20),
        "doubled": x * 2,
    }


CASES: dict[str, tuple[Callable[[Any, Any], dict[str, Any]], np.ndarray]] = {
    "convolutional": (convolutional, RNG.normal(size=(3, 13, 11, 3)).astype(np.float32)),
    "sequential": (sequential, RNG.normal(size=(3, 6, 5)).astype(np.float32)),
    "indexed": (indexed, RNG.integers(0, 20, (3, 7)).astype(np.int32)),
}


def made(case: str) -> tuple[KerasSource, np.ndarray]:
    keras = load_tool("keras")
    keras.utils.set_random_seed(3)
    build, x = CASES[case]
    given = keras.Input(x.shape[1:], name="x", dtype=str(x.dtype))
    model = keras.Model(given, build(keras, given))
    for weight in model.weights:
        if weight.path.rsplit("/", 1)[-1] in ("bias", "beta"):
            weight.assign(RNG.normal(0, 0.3, weight.shape))
    return KerasSource(model), x


@pytest.mark.parametrize("case", CASES)
def test_layers_answer_as_in_keras(case: str) -> None:
    source, x = made(case)
    data = pack_program(coreml_program(source.frozen(batch=1), source.inputs))
    reference = CoreMLReference(data)
    results = reference.run({"x": x[:, np.newaxis]})
    for name, expected in source.predict({"x": x}).items():
        assert results[name].dtype == expected.dtype
        np.testing.assert_allclose(results[name].reshape(expected.shape), expected, rtol=2e-4, atol=2e-5, err_msg=name)
    assert reference.specification_version == 7, "iOS 16"


def test_a_loop_gives_the_same_bytes_again_and_its_names_hold_no_counters() -> None:
    keras = load_tool("keras")
    x = keras.Input((4, 2), name="x")
    source = KerasSource(keras.Model(x, keras.layers.SimpleRNN(2)(x)))
    data = pack_program(coreml_program(source.frozen(batch=1), source.inputs))
    assert data == pack_program(coreml_program(source.frozen(batch=1), source.inputs))
    reference = CoreMLReference(data)
    assert "while_loop" in reference.operators
    assert not any("edgeshiploop" in operation.name for operation in reference.operations())
    rows = RNG.normal(size=(5, 4, 2)).astype(np.float32)
    (expected,) = source.predict({"x": rows}).values()
    (actual,) = reference.run({"x": rows[:, np.newaxis]}).values()
    np.testing.assert_allclose(actual[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_w8a8_needs_ios_17_and_everything_else_16() -> None:
    assert minimum_engine_version("int8") == "17.0"
    assert {minimum_engine_version(each) for each in ("fp32", "fp16", "int8-weights")} == {"16.0"}


def test_what_core_ml_cannot_hold_is_refused_with_its_name() -> None:
    keras = load_tool("keras")
    flags = keras.Input((4,), name="flags", dtype="bool")
    source = KerasSource(keras.Model(flags, keras.ops.cast(flags, "float32")))
    with pytest.raises(UnsupportedModel, match="input flags is bool"):
        coreml_program(source.frozen(batch=1), source.inputs)
    x = keras.Input((4,), name="x")
    source = KerasSource(keras.Model(x, keras.ops.arctan2(x, x + 1)))
    with pytest.raises(UnsupportedOperator, match="Atan2") as raised:
        coreml_program(source.frozen(batch=1), source.inputs)
    assert raised.value.operator == "Atan2"
