"""MIL operators that reduce, sort or accumulate along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converters.mil.operands import Function, Operands, axes_of

__all__ = ["REDUCTIONS"]


def _reduction(function: Callable[..., np.ndarray]) -> Function:
    def apply(o: Operands) -> tuple[np.ndarray, ...]:
        x = o.tensor("x")
        axes = axes_of(o.constant("axes"), x.ndim) if o.has("axes") else tuple(range(1, x.ndim))
        return (function(x, axis=axes, keepdims=bool(o.constant("keep_dims", False))),)

    return apply


def _log_sum_exp(x: np.ndarray, *, axis: tuple[int, ...], keepdims: bool) -> np.ndarray:
    largest = x.max(axis=axis, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0).astype(x.dtype)
    total = np.log(np.exp(x - largest).sum(axis=axis, keepdims=True)) + largest
    return np.asarray(total if keepdims else np.squeeze(total, axis))


def _arg(function: Callable[..., np.ndarray]) -> Function:
    def apply(o: Operands) -> tuple[np.ndarray, ...]:
        x = o.tensor("x")
        axis = axes_of(o.constant("axis", -1), x.ndim)[0]
        return (function(x, axis=axis, keepdims=bool(o.constant("keep_dims", False))).astype(np.int32),)

    return apply


def _softmax(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = axes_of(o.constant("axis", -1), x.ndim)[0]
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return (e / e.sum(axis=axis, keepdims=True),)


def _cumsum(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = axes_of(o.constant("axis", 0), x.ndim)[0]
    flipped = bool(o.constant("reverse", False))
    ordered = np.flip(x, axis) if flipped else x
    total = np.cumsum(ordered, axis=axis, dtype=x.dtype)
    if o.constant("exclusive", False):
        total = total - ordered
    return (np.flip(total, axis) if flipped else total,)


def _order(x: np.ndarray, axis: int, *, ascending: bool) -> np.ndarray:
    """Indices that sort; of equal values the first comes first."""
    return np.argsort(x if ascending else -x.astype(np.float64), axis=axis, kind="stable").astype(np.int32)


def _topk(o: Operands) -> tuple[Any, ...]:
    x = o.tensor("x")
    axis = axes_of(o.constant("axis", -1), x.ndim)[0]
    order = _order(x, axis, ascending=bool(o.constant("ascending", False)))
    chosen = np.take(order, np.arange(int(o.constant("k", 1))), axis=axis)
    values = np.take_along_axis(x, chosen, axis)
    return (values, chosen) if o.constant("return_indices", True) else (values,)


def _argsort(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = axes_of(o.constant("axis", -1), x.ndim)[0]
    return (_order(x, axis, ascending=bool(o.constant("ascending", False))),)


REDUCTIONS: dict[str, Function] = {
    "argsort": _argsort,
    "cumsum": _cumsum,
    "reduce_argmax": _arg(np.argmax),
    "reduce_argmin": _arg(np.argmin),
    "reduce_l1_norm": _reduction(lambda x, **where: np.sum(np.abs(x), **where)),
    "reduce_l2_norm": _reduction(lambda x, **where: np.sqrt(np.sum(x * x, **where))),
    "reduce_log_sum": _reduction(lambda x, **where: np.log(np.sum(x, **where))),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_max": _reduction(np.max),
    "reduce_mean": _reduction(np.mean),
    "reduce_min": _reduction(np.min),
    "reduce_prod": _reduction(np.prod),
    "reduce_sum": _reduction(np.sum),
    "reduce_sum_square": _reduction(lambda x, **where: np.sum(x * x, **where)),
    "softmax": _softmax,
    "topk": _topk,
}
