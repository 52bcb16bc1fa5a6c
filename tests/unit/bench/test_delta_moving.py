from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bench.peers_delta.moving import Change, move_keras, moved, moved_onnx

ALL, LAST = Change(name="5 %", share=0.05), Change(name="last layer", share=0.05, last_only=True)


def test_weights_move_by_a_share_of_their_channel_whatever_its_size():
    channels = np.array([1e-3, 1.0, 100.0], np.float32)
    weights = np.random.default_rng(1).standard_normal((3, 20_000)).astype(np.float32) * channels[:, np.newaxis]
    steps = moved(weights, 0.01, np.random.default_rng(2)) - weights
    assert steps.std(axis=1) / weights.std(axis=1) == pytest.approx([0.01] * 3, rel=0.05)
    assert np.count_nonzero(steps) > 0.99 * steps.size


def test_the_channels_can_be_the_last_axis_and_a_vector_is_one():
    weights = np.ones((20_000, 2), np.float32) * np.array([1, 100], np.float32)
    steps = moved(weights, 0.01, np.random.default_rng(2), channels=-1) - weights
    assert steps.std(axis=0) == pytest.approx([0.01, 1.0], rel=0.05)
    vector = moved(np.full(20_000, 2, np.float32), 0.01, np.random.default_rng(2), channels=-1)
    assert vector.dtype == np.float32
    assert vector.std() == pytest.approx(0.02, rel=0.05)


def model() -> bytes:
    weights = {
        "conv": np.ones((2, 1, 3), np.float32),
        "conv bias": np.ones(2, np.float32),
        "scale": np.full(1, 3, np.float32),
        "shape": np.array([-1, 16], np.int64),
        "dense": np.ones((16, 4), np.float32),
        "dense bias": np.ones(4, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv", "conv bias"], ["c"]),
        helper.make_node("Mul", ["c", "scale"], ["s"]),
        helper.make_node("Reshape", ["s", "shape"], ["r"]),
        helper.make_node("Gemm", ["r", "dense", "dense bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def arrays(data: bytes) -> dict[str, NDArray[np.float32]]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load_from_string(data).graph.initializer}


def changed(before: bytes, after: bytes) -> set[str]:
    old, new = arrays(before), arrays(after)
    return {name for name in old if not np.array_equal(old[name], new[name])}


def test_in_an_onnx_file_only_what_training_changes_moves():
    assert changed(model(), moved_onnx(model(), ALL, 1)) == {"conv", "conv bias", "dense", "dense bias"}


def test_a_last_layer_is_the_last_one_with_weights():
    assert changed(model(), moved_onnx(model(), LAST, 1)) == {"dense", "dense bias"}


def test_a_seed_makes_the_same_file_and_another_seed_another():
    assert moved_onnx(model(), ALL, 1) == moved_onnx(model(), ALL, 1)
    assert changed(moved_onnx(model(), ALL, 1), moved_onnx(model(), ALL, 2)) == changed(
        model(), moved_onnx(model(), ALL, 1)
    )


@dataclass
class Variable:
    value: NDArray[np.float32]

    def numpy(self) -> NDArray[np.float32]:
        return self.value

    def assign(self, value: NDArray[np.float32]) -> None:
        self.value = value


@dataclass
class Layer:
    trainable_variables: list[Variable]


def layers() -> list[Layer]:
    return [Layer([Variable(np.ones((2, 3), np.float32))]), Layer([Variable(np.ones(3, np.float32))]), Layer([])]


@pytest.mark.parametrize(("change", "moves"), [(ALL, [True, True]), (LAST, [False, True])])
def test_of_keras_layers_those_with_weights_move_or_the_last_of_them(change: Change, moves: list[bool]):
    one, same = layers(), layers()
    move_keras(one, change, 1)
    move_keras(same, change, 1)
    values = [layer.trainable_variables[0].value for layer in one[:2]]
    assert [bool((value != 1).all()) for value in values] == moves
    for value, layer in zip(values, same, strict=False):
        assert np.array_equal(value, layer.trainable_variables[0].value)
