"""TFLite twins of the small ONNX models, converted once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from converters.quiet import load_tool, quiet
from tests.unit.converters.quantize.onnx_models import OFFSETS, SCALES, drawn

HIDDEN, CLASSES, CHANNELS = 96, 4, 24


def tflite(function: Callable[..., dict[str, Any]], **shapes: tuple[int, ...]) -> bytes:
    """Convert ``function`` of keyword arguments to a file with a ``serving_default`` signature."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    tf = load_tool("tensorflow")
    module = tf.Module()
    module.call = tf.function(function, autograph=False)
    specs = {name: tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()}
    with quiet("converting a test model"):
        concrete = module.call.get_concrete_function(**specs)
        return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert())


def perceptron(normalized: Callable[[Any], Any]) -> bytes:
    """`tabular_net` with that normalization of ``x`` in the graph."""
    tf = load_tool("tensorflow")
    weights = drawn(0, 8, HIDDEN), drawn(2, HIDDEN, HIDDEN), drawn(4, HIDDEN, CLASSES)
    biases = drawn(1, HIDDEN, 1)[:, 0], drawn(3, HIDDEN, 1)[:, 0], np.zeros(CLASSES, np.float32)

    def call(x: Any) -> dict[str, Any]:
        h = normalized(x)
        for at, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            h = tf.matmul(h, weight) + bias
            h = h if at == 2 else tf.nn.relu(h)
        return {"logits": h}

    return tflite(call, x=(1, 8))


@pytest.fixture(scope="session")
def tabular_tflite() -> bytes:
    """Clipped, so that the normalization stays an operation of its own."""
    tf = load_tool("tensorflow")
    return perceptron(lambda x: tf.clip_by_value((x - OFFSETS) / SCALES, -9.0, 9.0))


@pytest.fixture(scope="session")
def folded_tflite() -> bytes:
    """TFLiteConverter folds this factor into the first weights, so that they read raw columns."""
    return perceptron(lambda x: (x - OFFSETS) * (1 / SCALES).astype(np.float32))


@pytest.fixture(scope="session")
def depthwise_tflite() -> bytes:
    """Conv and ReLU6, depthwise by channel of very different sizes, 1×1, a residual, a head; as `depthwise_net`."""
    tf = load_tool("tensorflow")
    spread = np.geomspace(0.05, 20, CHANNELS).astype(np.float32)
    first = drawn(0, CHANNELS, 3, 3, 3).transpose(2, 3, 1, 0)
    depthwise = (drawn(2, CHANNELS, 1, 3, 3) * spread[:, None, None, None]).transpose(2, 3, 0, 1)
    last = (drawn(4, CHANNELS, CHANNELS, 1, 1) / spread[None, :, None, None]).transpose(2, 3, 1, 0)
    biases = [drawn(at, CHANNELS, 1)[:, 0] for at in (1, 3, 5)]
    head = drawn(6, CHANNELS, 10)

    def call(x: Any) -> dict[str, Any]:
        a = tf.nn.relu6(tf.nn.conv2d(x, first, 1, "SAME") + biases[0] + 0.5)
        b = tf.nn.relu6(tf.nn.depthwise_conv2d(a, depthwise, [1, 1, 1, 1], "SAME") + biases[1])
        c = tf.nn.conv2d(b, last, 1, "SAME") + biases[2]
        pooled = tf.reduce_mean(a + c, axis=[1, 2])
        return {"logits": tf.matmul(pooled, head), "pooled": pooled}

    return tflite(call, x=(1, 16, 16, 3))
