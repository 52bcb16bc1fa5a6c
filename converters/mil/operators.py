"""The table of MIL operators: each takes `Operands` and returns the operator's outputs in order."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from converters.mil import layers, shapes
from converters.mil.operands import Function, Operands, aligned, axes_of

__all__ = ["OPERATORS"]


def _unary(function: Callable[[np.ndarray], np.ndarray]) -> Function:
    return lambda o: (function(o.tensor("x")),)


def _binary(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Function:
    return lambda o: (function(*aligned(o.tensor("x"), o.tensor("y"))),)


def _parametric(function: Callable[..., np.ndarray], *names: str) -> Function:
    return lambda o: (function(o.tensor("x"), *(o.constant(name) for name in names)),)


def _reduction(function: Callable[..., np.ndarray]) -> Function:
    def apply(o: Operands) -> tuple[np.ndarray, ...]:
        x = o.tensor("x")
        axes = axes_of(o.constant("axes"), x.ndim) if o.has("axes") else tuple(range(1, x.ndim))
        return (function(x, axis=axes, keepdims=bool(o.constant("keep_dims", False))),)

    return apply


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x.astype(np.float64)), dtype=np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _gelu(o: Operands) -> tuple[np.ndarray, ...]:
    x, mode = o.tensor("x"), str(o.constant("mode", "EXACT"))
    if mode == "EXACT":
        return (x * 0.5 * (1 + _erf(x / math.sqrt(2))),)
    if mode == "TANH_APPROXIMATION":
        return (0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),)
    return (x * _sigmoid(1.702 * x),)


def _softmax(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = axes_of(o.constant("axis", -1), x.ndim)[0]
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True),)


def _cast(o: Operands) -> tuple[np.ndarray, ...]:
    x, dtype = o.tensor("x"), str(o.constant("dtype"))
    if dtype in ("fp16", "fp32"):
        x = x.astype(np.float16) if dtype == "fp16" else x
        return (x.astype(np.float32),)
    return (x.astype({"int32": np.int32, "int16": np.int16, "int8": np.int8, "uint8": np.uint8, "bool": bool}[dtype]),)


OPERATORS: dict[str, Function] = {
    "abs": _unary(np.abs),
    "add": _binary(np.add),
    "avg_pool": layers.pool,
    "batch_norm": layers.batch_norm,
    "cast": _cast,
    "ceil": _unary(np.ceil),
    "clip": _parametric(np.clip, "alpha", "beta"),
    "concat": shapes.concat,
    "constexpr_affine_dequantize": layers.stored,
    "constexpr_blockwise_shift_scale": layers.stored,
    "conv": layers.conv,
    "crop": shapes.crop,
    "cos": _unary(np.cos),
    "dequantize": layers.dequantize,
    "elu": _parametric(lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), "alpha"),
    "equal": _binary(np.equal),
    "erf": _unary(_erf),
    "exp": _unary(np.exp),
    "expand_dims": shapes.expand_dims,
    "floor": _unary(np.floor),
    "floor_div": _binary(np.floor_divide),
    "gather": shapes.gather,
    "gelu": _gelu,
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "identity": _unary(lambda x: x),
    "inverse": _parametric(lambda x, e: 1 / (x + np.float32(e)), "epsilon"),
    "layer_norm": layers.layer_norm,
    "leaky_relu": _parametric(lambda x, a: np.where(x >= 0, x, np.float32(a) * x), "alpha"),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "linear": layers.linear,
    "log": _parametric(lambda x, e: np.log(x + np.float32(e)), "epsilon"),
    "logical_and": _binary(np.logical_and),
    "logical_not": _unary(np.logical_not),
    "logical_or": _binary(np.logical_or),
    "matmul": layers.matmul,
    "max_pool": layers.pool,
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pad": shapes.pad,
    "pow": _binary(np.power),
    "quantize": layers.quantize,
    "real_div": _binary(np.divide),
    "reduce_max": _reduction(np.max),
    "reduce_mean": _reduction(np.mean),
    "reduce_min": _reduction(np.min),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "reduce_sum_square": _reduction(lambda x, **where: np.sum(x * x, **where)),
    "relu": _unary(lambda x: np.maximum(x, 0)),
    "relu6": _unary(lambda x: np.clip(x, 0, 6)),
    "reshape": shapes.reshape,
    "round": _unary(np.rint),
    "rsqrt": _parametric(lambda x, e: 1 / np.sqrt(x + np.float32(e)), "epsilon"),
    "select": shapes.select,
    "sigmoid": _unary(_sigmoid),
    "sigmoid_hard": _parametric(lambda x, a, b: np.clip(a * x + b, 0, 1), "alpha", "beta"),
    "sign": _unary(np.sign),
    "silu": _unary(lambda x: x * _sigmoid(x)),
    "sin": _unary(np.sin),
    "slice_by_index": shapes.slice_by_index,
    "slice_by_size": shapes.slice_by_size,
    "softmax": _softmax,
    "softplus": _unary(lambda x: np.logaddexp(0, x)),
    "softsign": _unary(lambda x: x / (1 + np.abs(x))),
    "split": shapes.split,
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "squeeze": shapes.squeeze,
    "stack": shapes.stack,
    "sub": _binary(np.subtract),
    "tanh": _unary(np.tanh),
    "tile": shapes.tile,
    "transpose": shapes.transpose,
}
