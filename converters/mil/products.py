"""MIL matrix products, and normalization over axes."""

from __future__ import annotations

import math

import numpy as np

from converters.mil.operands import Function, Operands, aligned, axes_of

__all__ = ["NORMALIZATION", "PRODUCTS"]

NORMAL_EINSUM = {4: ([0, 1, 2, 3], [0, 3, 2, 4], [0, 1, 2, 4]), 3: ([0, 1, 2], [2, 1, 3], [0, 1, 3])}


def _linear(o: Operands) -> tuple[np.ndarray, ...]:
    x, weight, bias = o.tensor("x"), np.asarray(o.weight("weight")), o.weight("bias")
    # One product of all rows: BLAS is slow on a stack of thin ones.
    y = (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], len(weight))
    return (y if bias is None else y + bias,)


def _matmul(o: Operands) -> tuple[np.ndarray, ...]:
    x, y = o.tensor("x"), o.tensor("y")
    vectors = x.ndim == 2, y.ndim == 2  # a vector's axis is put back after the product
    x = x[:, np.newaxis] if vectors[0] else x
    y = y[..., np.newaxis] if vectors[1] else y
    x, y = aligned(x, y)
    x = np.swapaxes(x, -1, -2) if o.constant("transpose_x", False) and not vectors[0] else x
    y = np.swapaxes(y, -1, -2) if o.constant("transpose_y", False) and not vectors[1] else y
    if y.shape[:-2] == (1,) * (y.ndim - 2) and x.shape[-2] > 0:
        result = (x.reshape(-1, x.shape[-1]) @ y.reshape(y.shape[-2:])).reshape(*x.shape[:-1], y.shape[-1])
    else:
        result = x @ y
    result = result[..., 0, :] if vectors[0] else result
    return (result[..., 0] if vectors[1] else result,)


def _einsum(o: Operands) -> tuple[np.ndarray, ...]:
    """The two equations that MIL has: ``nchw,nwhu->nchu`` and ``chw,whr->chr``, with broadcasting."""
    x, y = o.tensors("values")
    equation = str(o.constant("equation")).replace(" ", "")
    letters = {letter: index for index, letter in enumerate(dict.fromkeys(filter(str.isalpha, equation)))}
    given = tuple([letters[each] for each in part] for part in equation.replace("->", ",").split(","))
    if given != NORMAL_EINSUM.get(x.ndim - 1):
        raise o.refuse(f"the equation {equation} is not evaluated")
    return (np.swapaxes(np.swapaxes(x, -3, -2) @ np.swapaxes(y, -3, -2), -3, -2),)


def _attention(o: Operands) -> tuple[np.ndarray, ...]:
    query, key, value = o.tensor("query"), o.tensor("key"), o.tensor("value")
    scores = query @ np.swapaxes(key, -1, -2) / np.float32(math.sqrt(query.shape[-1]))
    if o.has("attn_mask"):
        scores, mask = aligned(scores, o.tensor("attn_mask"))
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return ((e / e.sum(axis=-1, keepdims=True)).astype(np.float32) @ value,)


def _shaped(o: Operands, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    value = o.weight(name)
    return None if value is None else value.reshape(shape)


def _affine(o: Operands, y: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    gamma, beta = _shaped(o, "gamma", shape), _shaped(o, "beta", shape)
    y = y if gamma is None else y * gamma
    return (y if beta is None else y + beta,)


def _batch_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    shape = (1, 1, -1, *(1,) * (x.ndim - 3))
    mean, variance = np.asarray(o.weight("mean")).reshape(shape), np.asarray(o.weight("variance")).reshape(shape)
    return _affine(o, (x - mean) / np.sqrt(variance + o.number("epsilon", 1e-5)), shape)


def _instance_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return _affine(o, _normalized(o, x, tuple(range(3, x.ndim))), (1, 1, -1, *(1,) * (x.ndim - 3)))


def _layer_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axes = axes_of(o.constant("axes"), x.ndim) if o.has("axes") else tuple(range(1, x.ndim))
    shape = tuple(x.shape[axis] if axis in axes else 1 for axis in range(x.ndim))
    return _affine(o, _normalized(o, x, axes), shape)


def _normalized(o: Operands, x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred * centred).mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + o.number("epsilon", 1e-5)))


def _l2_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return (x / np.sqrt(np.sum(x * x, axis=(-3, -2, -1), keepdims=True) + o.number("epsilon", 1e-6)),)


def _local_response_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x, size = o.tensor("x"), int(o.constant("size"))
    squares = np.pad(x * x, [(0, 0), (0, 0), (size // 2, (size - 1) // 2), *[(0, 0)] * (x.ndim - 3)])
    near = np.add.reduce([squares[:, :, start : start + x.shape[2]] for start in range(size)])
    return (x / (o.number("k", 1) + o.number("alpha", 1e-4) / size * near) ** o.number("beta", 0.75),)


PRODUCTS: dict[str, Function] = {
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}
NORMALIZATION: dict[str, Function] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
}
