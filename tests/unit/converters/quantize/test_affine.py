from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converters.quantize.affine import activation_parameters, quantize_bias, quantize_weight

FINITE = st.floats(-1e6, 1e6, width=32)


@given(FINITE, FINITE)
def test_zero_has_a_code_of_its_own_and_both_ends_are_within_a_step(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    scale, zero = activation_parameters(low, high)
    ends = (np.clip(np.rint(np.array([low, 0.0, high]) / scale) + zero, 0, 255) - zero) * scale
    assert ends[1] == 0
    assert np.abs(ends - [low, 0.0, high]).max() <= scale * 1.01


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, -1, None]))
def test_weights_come_back_within_half_a_step_of_their_channel(seed: int, axis: int | None) -> None:
    weight = np.random.default_rng(seed).normal(size=(4, 3, 5)).astype(np.float32) * np.array([1, 100, 1e-3])[:, None]
    codes, scales = quantize_weight(weight, axis)
    assert codes.dtype == np.int8
    assert codes.min() >= -127
    others = tuple(at for at in range(3) if axis is None or at != axis % 3)
    step = scales if axis is None else np.expand_dims(scales, others)
    assert (np.abs(codes * step - weight) <= step * 0.501).all()


def test_a_channel_without_weights_keeps_its_bias() -> None:
    weight = np.array([[0.0, 0.0], [1.0, -2.0]], np.float32)
    bias = np.array([3.5, -0.25], np.float32)
    _, scales = quantize_weight(weight, 0, bias=bias, input_scale=0.01)
    steps = scales * np.float32(0.01)
    np.testing.assert_allclose(quantize_bias(bias, steps) * steps.astype(np.float64), bias, rtol=1e-3)


def test_a_bias_far_above_its_channels_weights_does_not_wrap_around() -> None:
    weight = np.full((1, 8), 1e-7, np.float32)
    bias = np.array([5e4], np.float32)
    _, scales = quantize_weight(weight, 0, bias=bias, input_scale=1e-3)
    steps = scales * np.float32(1e-3)
    np.testing.assert_allclose(quantize_bias(bias, steps) * steps.astype(np.float64), bias, rtol=1e-6)
