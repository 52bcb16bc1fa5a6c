"""Operators whose result coremltools does not infer, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.errors import ConversionFailed, UnsupportedOperator
from tests.unit.converters.mil.programs import evaluated

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 1, 4, 6, 5)).astype(np.float32)
ROWS = RNG.normal(size=(3, 1, 4, 6)).astype(np.float32)


def test_normalizations_and_moves_of_images_are_their_definitions() -> None:
    """One program for all, since packing one costs half a second."""
    gamma, beta = np.linspace(0.5, 2, 4, dtype=np.float32), np.linspace(-1, 1, 4, dtype=np.float32)

    def everything(mb: Any, x: Any) -> Any:
        return (
            mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=1e-3),
            mb.local_response_norm(x=x, size=3, alpha=0.2, beta=0.7, k=1.5),
            mb.pixel_shuffle(x=x, upscale_factor=2),
            mb.depth_to_space(x=x, block_size=2),
            mb.pixel_unshuffle(x=mb.pixel_shuffle(x=x, upscale_factor=2), downscale_factor=np.uint32(2)),
            mb.space_to_depth(x=mb.depth_to_space(x=x, block_size=2), block_size=2),
            mb.sliding_windows(x=x, axis=3, size=3, stride=2),
            mb.concat(values=[x, mb.mul(x=x, y=2.0)], axis=1, interleave=True),
            mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3),
            mb.l2_pool(x=x, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid"),
            mb.batch_to_space(
                x=mb.space_to_batch(x=x, block_shape=[2, 2], paddings=[[0, 0], [1, 0]]),
                block_shape=[2, 2],
                crops=[[0, 0], [1, 0]],
            ),
        )

    x = IMAGE
    mean, variance = x.mean((3, 4), keepdims=True), x.var((3, 4), keepdims=True)
    shaped = (1, 1, 4, 1, 1)
    squares = np.pad(x**2, ((0, 0), (0, 0), (1, 1), (0, 0), (0, 0)))
    near = squares[:, :, :-2] + squares[:, :, 1:-1] + squares[:, :, 2:]
    shuffled = x.reshape(2, 1, 1, 2, 2, 6, 5).transpose(0, 1, 2, 5, 3, 6, 4).reshape(2, 1, 1, 12, 10)
    slow = x.reshape(2, 1, 2, 2, 1, 6, 5).transpose(0, 1, 4, 5, 2, 6, 3).reshape(2, 1, 1, 12, 10)
    blocks = x[..., :4].reshape(2, 1, 4, 3, 2, 2, 2) ** 2
    expected = [
        (x - mean) / np.sqrt(variance + 1e-3) * gamma.reshape(shaped) + beta.reshape(shaped),
        x / (1.5 + 0.2 / 3 * near) ** 0.7,
        shuffled,
        slow,
        x,
        x,
        np.stack([x[..., 0:3], x[..., 2:5]], axis=4),
        np.stack([x, 2 * x], axis=3).reshape(2, 1, 8, 6, 5),
        x.repeat(2, axis=3).repeat(3, axis=4),
        np.sqrt(blocks.sum(axis=(4, 6))),
        x,
    ]
    for index, (actual, wanted) in enumerate(zip(evaluated(everything, x), expected, strict=True)):
        np.testing.assert_allclose(actual, wanted, rtol=2e-5, atol=2e-6, err_msg=str(index))


def test_pooling_in_ceil_mode_has_a_last_window_that_averages_what_is_there() -> None:
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 1, 6)

    def pools(mb: Any, v: Any) -> Any:
        settings = {"kernel_sizes": [3], "strides": [2], "pad_type": "valid", "ceil_mode": True}
        return (
            mb.avg_pool(x=v, exclude_padding_from_average=True, **settings),
            mb.max_pool(x=v, **settings),
        )

    average, largest = evaluated(pools, x)
    np.testing.assert_allclose(average.ravel(), [2, 4, 5.5])
    np.testing.assert_allclose(largest.ravel(), [3, 5, 6])


def test_bilinear_grids_are_those_of_the_documentation() -> None:
    """The examples for an input [0, 1] that coremltools' documentation of `resize_bilinear` gives."""
    x = np.array([0, 1], np.float32).reshape(1, 1, 1, 2)
    grids = {
        "UNALIGN_CORNERS": [0.0, 0.1, 0.5, 0.9, 1.0],
        "STRICT_ALIGN_CORNERS": [0.0, 0.25, 0.5, 0.75, 1.0],
        "DEFAULT": [0.0, 0.4, 0.8, 1.0, 1.0],
        "OFFSET_CORNERS": [0.1, 0.3, 0.5, 0.7, 0.9],
    }

    def resized(mb: Any, v: Any) -> Any:
        return tuple(
            mb.resize_bilinear(x=v, target_size_height=1, target_size_width=5, sampling_mode=mode) for mode in grids
        )

    for actual, (mode, wanted) in zip(evaluated(resized, x), grids.items(), strict=True):
        np.testing.assert_allclose(actual.ravel(), wanted, atol=1e-6, err_msg=mode)


def test_indices_may_differ_from_row_to_row() -> None:
    """Tops of each row gathered, scattered back and one-hot encoded."""

    def everything(mb: Any, x: Any) -> Any:
        _, top = mb.topk(x=x, k=2, axis=1)
        first = mb.reduce_argmax(x=x, axis=1)
        taken = mb.gather_along_axis(x=x, indices=top, axis=1)
        flat = mb.reshape(x=mb.slice_by_size(x=first, begin=[0, 0], size=[1, 2]), shape=[2])
        table = mb.gather(x=np.arange(20, dtype=np.float32).reshape(4, 5), indices=first, axis=0)
        pairs = mb.stack(values=[mb.mul(x=flat, y=0), flat], axis=1)
        return (
            taken,
            mb.scatter_along_axis(data=mb.mul(x=x, y=0.0), indices=top, updates=taken, axis=1, mode="update"),
            mb.cast(x=mb.one_hot(indices=first, one_hot_vector_size=4), dtype="fp32"),
            table,
            mb.gather(x=x, indices=flat, axis=1),
            mb.gather_nd(x=x, indices=pairs),
            mb.scatter_nd(data=x, indices=pairs, updates=np.ones((2, 6), np.float32), mode="add"),
        )

    results = evaluated(everything, ROWS)
    for row, x in enumerate(ROWS):
        order = np.argsort(-x, axis=1, kind="stable")[:, :2]
        first = x.argmax(1)
        taken = np.take_along_axis(x, order, 1)
        scattered = np.zeros_like(x)
        np.put_along_axis(scattered, order, taken, 1)
        added = x.copy()
        for index in first[0, :2]:
            added[0, index] += 1
        expected = [
            taken, scattered, np.eye(4)[first], np.arange(20).reshape(4, 5)[first], x[:, first[0, :2]],
            x[0, first[0, :2]], added,
        ]  # fmt: skip
        for index, (actual, wanted) in enumerate(zip(results, expected, strict=True)):
            np.testing.assert_allclose(actual[row], wanted, err_msg=f"{index} of row {row}")


def test_rows_that_go_different_ways_are_evaluated_one_at_a_time() -> None:
    """A branch on the input's sum, and a slice whose beginning is in the input."""

    def branching(mb: Any, x: Any) -> Any:
        total = mb.reduce_sum(x=x, axes=[0, 1], keep_dims=False)
        chosen = mb.cond(
            pred=mb.greater(x=total, y=0.0),
            _true_fn=lambda: mb.mul(x=x, y=2.0),
            _false_fn=lambda: mb.sub(x=x, y=1.0),
        )
        place = mb.reduce_argmax(x=x, axis=1, keep_dims=False)
        begin = mb.concat(values=[np.zeros(1, np.int32), mb.minimum(x=place, y=1)], axis=0)
        return chosen, mb.slice_by_size(x=x, begin=begin, size=[1, 2])

    x = np.array([[[1.0, 2, 3]], [[-1, -2, -3]], [[3, 2, 1]]], np.float32)
    chosen, cut = evaluated(branching, x)
    np.testing.assert_array_equal(chosen, [[[2, 4, 6]], [[-2, -3, -4]], [[6, 4, 2]]])
    np.testing.assert_array_equal(cut, [[[2, 3]], [[-1, -2]], [[3, 2]]])


def test_a_loop_runs_until_its_condition_fails_with_a_list_that_it_fills() -> None:
    def powers(mb: Any, x: Any) -> Any:
        made = mb.make_list(init_length=3, dynamic_length=False, elem_shape=(2,), dtype="fp32")
        _, _, filled = mb.while_loop(
            _cond=lambda step, value, values: mb.less(x=step, y=3),
            _body=lambda step, value, values: (
                mb.add(x=step, y=1),
                mb.mul(x=value, y=x),
                mb.list_write(ls=values, index=step, value=value),
            ),
            loop_vars=(np.int32(0), mb.mul(x=x, y=1.0), made),
        )
        return mb.list_gather(ls=filled, indices=[0, 1, 2])

    x = np.array([[2.0, 3.0], [0.5, -1.0]], np.float32)
    (result,) = evaluated(powers, x)
    np.testing.assert_allclose(result, np.stack([x, x**2, x**3], axis=1))


def test_an_index_outside_its_tensor_and_an_unclear_resize_are_named() -> None:
    table = np.zeros((4, 2), np.float32)
    with pytest.raises(ConversionFailed, match=r"gather at .*out of bounds"):
        evaluated(lambda mb, x: mb.gather(x=table, indices=x, axis=0), np.full((1, 3), 9, np.int32), "int32")
    with pytest.raises(UnsupportedOperator, match="ratio that is not whole"):
        evaluated(
            lambda mb, x: mb.resize(
                x=x, shape=[7, 7], resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"
            ),
            IMAGE,
        )


def test_integer_inputs_stay_integers() -> None:
    x = np.array([[5, -7], [9, 4]], np.int32)
    divided, remainder = evaluated(
        lambda mb, v: (mb.floor_div(x=v, y=np.int32(2)), mb.mod(x=v, y=np.int32(3))), x, "int32"
    )
    assert divided.dtype == remainder.dtype == np.int32
    np.testing.assert_array_equal(divided, x // 2)
    np.testing.assert_array_equal(remainder, x % 3)
