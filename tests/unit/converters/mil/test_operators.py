"""The evaluator against coremltools' own inference of the same operator on constants, and against definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from converters import CoreMLReference
from converters.errors import UnsupportedOperator
from converters.mil.operators import OPERATORS
from converters.quiet import load_tool
from converters.targets.coreml import pack_program

SHAPE = (1, 4, 6)
X = np.random.default_rng(0).uniform(0.1, 2.0, (2, *SHAPE)).astype(np.float32)
OTHER = np.linspace(0.5, 1.5, 6, dtype=np.float32)
Operator = Callable[[Any, Any], Any]

CASES: dict[str, Operator] = {
    "abs": lambda mb, x: mb.abs(x=mb.sub(x=x, y=OTHER)),
    "add_outer": lambda mb, x: mb.add(x=x, y=OTHER.reshape(1, 1, 6)),
    "clip": lambda mb, x: mb.clip(x=x, alpha=0.5, beta=1.0),
    "concat": lambda mb, x: mb.concat(values=[x, mb.mul(x=x, y=OTHER)], axis=-2),
    "elu": lambda mb, x: mb.elu(x=mb.sub(x=x, y=OTHER), alpha=0.7),
    "erf": lambda mb, x: mb.erf(x=x),
    "exp": lambda mb, x: mb.exp(x=x),
    "expand_dims": lambda mb, x: mb.expand_dims(x=x, axes=[1, -1]),
    "floor_div": lambda mb, x: mb.floor_div(x=x, y=OTHER),
    "gather": lambda mb, x: mb.gather(x=x, indices=np.array([2, 0], np.int32), axis=1),
    "gelu": lambda mb, x: mb.gelu(x=x, mode="EXACT"),
    "gelu_tanh": lambda mb, x: mb.gelu(x=x, mode="TANH_APPROXIMATION"),
    "inverse": lambda mb, x: mb.inverse(x=x, epsilon=1e-3),
    "leaky_relu": lambda mb, x: mb.leaky_relu(x=mb.sub(x=x, y=OTHER), alpha=0.2),
    "log": lambda mb, x: mb.log(x=x),
    "matmul": lambda mb, x: mb.matmul(x=x, y=np.outer(OTHER, OTHER)[None], transpose_y=True),
    "pad": lambda mb, x: mb.pad(x=x, pad=[0, 0, 1, 2, 2, 1], mode="constant", constant_val=3.0),
    "pow": lambda mb, x: mb.pow(x=x, y=OTHER),
    "real_div": lambda mb, x: mb.real_div(x=x, y=OTHER),
    "reduce_max": lambda mb, x: mb.reduce_max(x=x, axes=[-1], keep_dims=True),
    "reduce_min": lambda mb, x: mb.reduce_min(x=x, axes=[1], keep_dims=False),
    "reduce_sum": lambda mb, x: mb.reduce_sum(x=x, axes=[1, 2], keep_dims=False),
    "relu6": lambda mb, x: mb.relu6(x=mb.mul(x=x, y=OTHER * 5)),
    "reshape": lambda mb, x: mb.reshape(x=x, shape=[1, 6, -1]),
    "rsqrt": lambda mb, x: mb.rsqrt(x=x, epsilon=1e-3),
    "select": lambda mb, x: mb.select(cond=mb.greater(x=x, y=OTHER), a=x, b=mb.sub(x=x, y=OTHER)),
    "sigmoid_hard": lambda mb, x: mb.sigmoid_hard(x=x, alpha=0.3, beta=0.1),
    "slice_by_index": lambda mb, x: mb.slice_by_index(
        x=x, begin=[0, 1, 0], end=[1, 4, 5], stride=[1, 2, 1], end_mask=[True, False, False]
    ),
    "slice_by_size": lambda mb, x: mb.slice_by_size(x=x, begin=[0, 1, 2], size=[1, -1, 3]),
    "softmax": lambda mb, x: mb.softmax(x=x, axis=1),
    "softplus": lambda mb, x: mb.softplus(x=x),
    "split": lambda mb, x: mb.split(x=x, split_sizes=[1, 3], axis=1)[1],
    "sqrt": lambda mb, x: mb.sqrt(x=x),
    "squeeze": lambda mb, x: mb.squeeze(x=x, axes=[0]),
    "stack": lambda mb, x: mb.stack(values=[x, mb.mul(x=x, y=OTHER)], axis=1),
    "tile": lambda mb, x: mb.tile(x=x, reps=[1, 2, 1]),
    "transpose": lambda mb, x: mb.transpose(x=x, perm=[0, -1, 1]),
    "argsort": lambda mb, x: mb.cast(x=mb.argsort(x=x, axis=-1, ascending=True), dtype="fp32"),
    "band_part": lambda mb, x: mb.band_part(x=x, lower=1, upper=2),
    "clamped_relu": lambda mb, x: mb.clamped_relu(x=mb.sub(x=x, y=OTHER), alpha=0.3, beta=0.4),
    "cumsum": lambda mb, x: mb.cumsum(x=x, axis=1, reverse=True),
    "einsum": lambda mb, x: mb.einsum(values=(x, np.ones((6, 4, 3), np.float32)), equation="chw,whr->chr"),
    "fill_like": lambda mb, x: mb.add(x=x, y=mb.fill_like(ref_tensor=x, value=2.0)),
    "flatten2d": lambda mb, x: mb.flatten2d(x=x, axis=2),
    "gather_along_axis": lambda mb, x: mb.gather_along_axis(x=x, indices=np.array([[[3, 0, 2, 1, 1, 0]]]), axis=1),
    "gather_batch": lambda mb, x: mb.gather(x=x, indices=np.array([[1, 3, 0]]), axis=1, batch_dims=1),
    "l2_norm": lambda mb, x: mb.l2_norm(x=x, epsilon=1e-3),
    "layer_norm": lambda mb, x: mb.layer_norm(x=x, axes=[-1], gamma=OTHER, beta=OTHER, epsilon=1e-3),
    "linear": lambda mb, x: mb.linear(x=x, weight=np.outer(OTHER[:2], OTHER), bias=OTHER[:2]),
    "linear_activation": lambda mb, x: mb.linear_activation(x=x, alpha=0.7, beta=-0.2),
    "logical": lambda mb, x: mb.cast(
        x=mb.logical_xor(x=mb.logical_not(x=mb.less(x=x, y=OTHER)), y=mb.greater(x=x, y=1.5)), dtype="fp32"
    ),
    "matmul_vector": lambda mb, x: mb.matmul(x=OTHER[:4], y=x),
    "prelu": lambda mb, x: mb.prelu(x=mb.sub(x=x, y=OTHER), alpha=np.full(4, 0.2, np.float32)),
    "reduce_argmax": lambda mb, x: mb.cast(x=mb.reduce_argmax(x=x, axis=-1), dtype="fp32"),
    "reduce_argmin": lambda mb, x: mb.cast(x=mb.reduce_argmin(x=x, axis=1, keep_dims=True), dtype="fp32"),
    "reduce_l2_norm": lambda mb, x: mb.reduce_l2_norm(x=x, axes=[-1], keep_dims=False),
    "reduce_log_sum_exp": lambda mb, x: mb.reduce_log_sum_exp(x=x, axes=[1], keep_dims=False),
    "reverse": lambda mb, x: mb.reverse(x=x, axes=[-1]),
    "scaled_tanh": lambda mb, x: mb.scaled_tanh(x=x, alpha=1.7, beta=0.6),
    "threshold": lambda mb, x: mb.threshold(x=x, alpha=1.1),
    "topk": lambda mb, x: mb.topk(x=x, k=3, axis=-1, ascending=False)[0],
}


def program(build: Operator, shape: tuple[int, ...] = SHAPE) -> Any:
    ct = load_tool("coremltools")
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    @mb.program(input_specs=[mb.TensorSpec(shape=shape)], opset_version=ct.target.iOS17)
    def made(x: Any) -> Any:
        return mb.identity(x=build(mb, x), name="y")

    return made


def inferred(x: np.ndarray) -> dict[str, np.ndarray]:
    """What coremltools computes itself for each case when the input is a constant."""
    ct = load_tool("coremltools")
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    values: dict[str, np.ndarray] = {}

    @mb.program(input_specs=[mb.TensorSpec(shape=(1,))], opset_version=ct.target.iOS17)
    def made(unused: Any) -> Any:
        for case, build in CASES.items():
            values[case] = np.asarray(build(mb, mb.const(val=x)).val)
        return mb.identity(x=unused)

    assert made is not None
    return values


def evaluated(build: Operator, x: np.ndarray) -> np.ndarray:
    reference = CoreMLReference(pack_program(program(build, x.shape[1:])))
    (name,) = reference.inputs
    (result,) = reference.run({name: x}).values()
    return result


def test_operators_mean_what_coremltools_infers_for_constants() -> None:
    """One program for all cases, since packing one costs half a second."""
    ct = load_tool("coremltools")
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    @mb.program(input_specs=[mb.TensorSpec(shape=SHAPE)], opset_version=ct.target.iOS17)
    def everything(x: Any) -> Any:
        return tuple(mb.identity(x=build(mb, x), name=f"out_{name}") for name, build in CASES.items())

    reference = CoreMLReference(pack_program(everything))
    (name,) = reference.inputs
    results = reference.run({name: X})
    for row in range(len(X)):
        for case, expected in inferred(X[row]).items():
            assert expected.dtype.kind != "O", f"coremltools infers nothing for {case}"
            np.testing.assert_allclose(results[f"out_{case}"][row], expected, rtol=2e-5, atol=1e-6, err_msg=case)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution_is_the_sum_over_its_kernel(groups: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 1, 4, 9)).astype(np.float32)
    weight = rng.normal(size=(8, 4 // groups, 3)).astype(np.float32)
    bias = rng.normal(size=8).astype(np.float32)
    actual = evaluated(
        lambda mb, v: mb.conv(
            x=v, weight=weight, bias=bias, strides=[2], dilations=[2], groups=groups, pad_type="custom", pad=[1, 3]
        ),
        x,
    )
    padded = np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 3)))
    expected = np.zeros((3, 1, 8, 5))
    for out in range(8):
        group = out // (8 // groups)
        channels = slice(group * (4 // groups), (group + 1) * (4 // groups))
        for position in range(5):
            patch = padded[:, :, channels, position * 2 : position * 2 + 5 : 2]
            expected[:, :, out, position] = (patch * weight[out]).sum(axis=(2, 3)) + bias[out]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_pooling_with_same_padding_ignores_or_counts_the_padding_as_asked() -> None:
    x = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 1, 6)

    def pool(exclude: bool) -> np.ndarray:
        return evaluated(
            lambda mb, v: mb.avg_pool(
                x=v, kernel_sizes=[3], strides=[2], pad_type="same", exclude_padding_from_average=exclude
            ),
            x,
        ).ravel()

    np.testing.assert_allclose(pool(True), [2, 4, 5.5])
    np.testing.assert_allclose(pool(False), [2, 4, 11 / 3], rtol=1e-6)


def test_quantize_and_dequantize_round_half_to_even_clip_and_use_the_zero_point() -> None:
    x = np.array([-10.0, -0.5, 0.25, 0.75, 1.25, 200.0], np.float32).reshape(1, 1, 6)

    def pair(mb: Any, v: Any) -> Any:
        settings = {"scale": np.float32(0.5), "zero_point": np.int8(-3)}
        return mb.dequantize(input=mb.quantize(input=v, output_dtype="int8", **settings), **settings)

    np.testing.assert_allclose(evaluated(pair, x).ravel(), [-10.0, -0.5, 0.0, 1.0, 1.0, 65.0])


def test_what_a_program_declares_fp16_is_rounded_to_it_unless_asked_not_to() -> None:
    def root(mb: Any, v: Any) -> Any:
        return mb.cast(x=mb.sqrt(x=mb.cast(x=v, dtype="fp16")), dtype="fp32")

    package = pack_program(program(root, (1,)))
    two = {"x": np.full((1, 1), 2, np.float32)}
    assert CoreMLReference(package).run(two)["y"].item() == np.float16(np.sqrt(2))
    assert CoreMLReference(package, round_fp16=False).run(two)["y"].item() == np.sqrt(np.float32(2))


def test_an_operator_outside_the_table_is_named_before_anything_runs() -> None:
    assert "random_normal" not in OPERATORS
    with pytest.raises(UnsupportedOperator, match="random_normal") as raised:
        evaluated(lambda mb, x: mb.add(x=x, y=mb.random_normal(shape=[1, 4, 6])), X)
    assert raised.value.operator == "random_normal"


def test_rows_of_another_shape_are_refused() -> None:
    reference = CoreMLReference(pack_program(program(lambda mb, x: mb.relu(x=x))))
    with pytest.raises(ValueError, match="the program takes"):
        reference.run({"x": np.zeros((2, 1, 4, 5), np.float32)})
