"""MIL operators that compute each value on its own: arithmetic, comparisons, activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from converters.mil.operands import Function, Operands, aligned
from converters.quiet import load_tool

__all__ = ["ELEMENTWISE", "sigmoid"]

CASTS = {"int32": np.int32, "int16": np.int16, "int8": np.int8, "uint8": np.uint8, "uint16": np.uint16, "bool": bool}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def _unary(function: Callable[[np.ndarray], np.ndarray]) -> Function:
    return lambda o: (function(o.tensor("x")),)


def _binary(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Function:
    return lambda o: (function(*aligned(o.tensor("x"), o.tensor("y"))),)


def _parametric(function: Callable[..., np.ndarray], **defaults: float) -> Function:
    """A function of ``x`` and of the named scalars, in this order."""
    return lambda o: (function(o.tensor("x"), *(o.number(name, value) for name, value in defaults.items())),)


def _by_channel(function: Callable[..., np.ndarray], *names: str) -> Function:
    """A function of ``x`` and of vectors with one value a channel (the specification's axis 1)."""

    def apply(o: Operands) -> tuple[np.ndarray, ...]:
        x = o.tensor("x")
        shape = (1, 1, -1, *(1,) * (x.ndim - 3))
        return (function(x, *(np.asarray(o.weight(name)).reshape(shape) for name in names)),)

    return apply


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(load_tool("scipy.special").erf(x))


def _gelu(o: Operands) -> tuple[np.ndarray, ...]:
    x, mode = o.tensor("x"), str(o.constant("mode", "EXACT"))
    if mode == "EXACT":
        return (x * 0.5 * (1 + _erf(x / np.float32(math.sqrt(2)))),)
    if mode == "TANH_APPROXIMATION":
        return (0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + 0.044715 * x**3))),)
    return (x * sigmoid(np.float32(1.702) * x),)


def _cast(o: Operands) -> tuple[np.ndarray, ...]:
    x, dtype = o.tensor("x"), str(o.constant("dtype"))
    if dtype in ("fp16", "fp32"):
        x = x.astype(np.float16) if dtype == "fp16" else x
        return (x.astype(np.float32, copy=False),)
    return (x.astype(CASTS[dtype]),)


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    quotient = np.divide(x, y)
    return np.asarray(np.trunc(quotient) if x.dtype.kind in "iu" and y.dtype.kind in "iu" else quotient)


def _select(o: Operands) -> tuple[np.ndarray, ...]:
    condition, a, b = aligned(o.tensor("cond"), o.tensor("a"), o.tensor("b"))
    return (np.where(condition.astype(bool), a, b),)


def _identity(o: Operands) -> tuple[Any, ...]:
    value = o.operation.inputs["x"]
    return (o.list_of_tensors("x") if hasattr(value, "elem_type") else o.tensor("x"),)


ELEMENTWISE: dict[str, Function] = {
    "abs": _unary(np.abs),
    "acos": _unary(np.arccos),
    "add": _binary(np.add),
    "asin": _unary(np.arcsin),
    "atan": _unary(np.arctan),
    "atanh": _unary(np.arctanh),
    "cast": _cast,
    "ceil": _unary(np.ceil),
    "clamped_relu": _parametric(lambda x, a, b: np.minimum(b, np.where(x >= 0, x, a * x)), alpha=0, beta=0),
    "clip": _parametric(np.clip, alpha=-np.inf, beta=np.inf),
    "cos": _unary(np.cos),
    "cosh": _unary(np.cosh),
    "elu": _parametric(lambda x, a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), alpha=1),
    "equal": _binary(np.equal),
    "erf": _unary(_erf),
    "exp": _unary(np.exp),
    "exp2": _unary(np.exp2),
    "floor": _unary(np.floor),
    "floor_div": _binary(np.floor_divide),
    "gelu": _gelu,
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "identity": _identity,
    "inverse": _parametric(lambda x, e: 1 / (x + e), epsilon=1e-4),
    "leaky_relu": _parametric(lambda x, a: np.where(x >= 0, x, a * x), alpha=0.01),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "linear_activation": _parametric(lambda x, a, b: a * x + b, alpha=1, beta=0),
    "log": _parametric(lambda x, e: np.log(x + e), epsilon=1e-45),
    "logical_and": _binary(np.logical_and),
    "logical_not": _unary(np.logical_not),
    "logical_or": _binary(np.logical_or),
    "logical_xor": _binary(np.logical_xor),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "mod": _binary(np.mod),
    "mul": _binary(np.multiply),
    "not_equal": _binary(np.not_equal),
    "pow": _binary(np.power),
    "prelu": _by_channel(lambda x, a: np.where(x > 0, x, a * x), "alpha"),
    "real_div": _binary(_divide),
    "relu": _unary(lambda x: np.maximum(x, 0)),
    "relu6": _unary(lambda x: np.clip(x, 0, 6)),
    "round": _unary(np.rint),
    "rsqrt": _parametric(lambda x, e: 1 / np.sqrt(x + e), epsilon=1e-12),
    "scaled_tanh": _parametric(lambda x, a, b: a * np.tanh(b * x), alpha=1, beta=1),
    "select": _select,
    "sigmoid": _unary(sigmoid),
    "sigmoid_hard": _parametric(lambda x, a, b: np.clip(a * x + b, 0, 1), alpha=0.2, beta=0.5),
    "sign": _unary(np.sign),
    "silu": _unary(lambda x: x * sigmoid(x)),
    "sin": _unary(np.sin),
    "sinh": _unary(np.sinh),
    "softplus": _unary(lambda x: np.logaddexp(np.float32(0), x)),
    "softplus_parametric": _by_channel(lambda x, a, b: a * np.logaddexp(np.float32(0), b * x), "alpha", "beta"),
    "softsign": _unary(lambda x: x / (1 + np.abs(x))),
    "sqrt": _unary(np.sqrt),
    "square": _unary(np.square),
    "sub": _binary(np.subtract),
    "tan": _unary(np.tan),
    "tanh": _unary(np.tanh),
    "threshold": _parametric(np.maximum, alpha=0),
    "thresholded_relu": _parametric(lambda x, a: np.where(x >= a, x, np.float32(0)), alpha=1),
}
