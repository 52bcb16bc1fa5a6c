"""MIL operators with weights, pooling, normalization and quantization."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from converters.mil.operands import Operands, aligned, axes_of

__all__ = ["batch_norm", "conv", "dequantize", "layer_norm", "linear", "matmul", "pool", "quantize", "stored"]


def linear(o: Operands) -> tuple[np.ndarray, ...]:
    y = o.tensor("x") @ np.asarray(o.constant("weight"), np.float32).T
    return (y + np.asarray(o.constant("bias"), np.float32) if o.has("bias") else y,)


def matmul(o: Operands) -> tuple[np.ndarray, ...]:
    x, y = aligned(o.tensor("x"), o.tensor("y"))
    x = np.swapaxes(x, -1, -2) if o.constant("transpose_x", False) else x
    y = np.swapaxes(y, -1, -2) if o.constant("transpose_y", False) else y
    return (x @ y,)


def _paddings(o: Operands, sizes: tuple[int, ...], kernel: list[int], strides: list[int], dilations: list[int]) -> Any:
    """(before, after) for each spatial axis, by the operator's ``pad_type``."""
    kind = str(o.constant("pad_type", "valid"))
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        return [(int(a), int(b)) for a, b in np.asarray(o.constant("pad")).reshape(-1, 2)]
    result = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        result.append((more, less) if kind == "same_lower" else (less, more))
    return result


def _positions(x: np.ndarray, kernel: list[int], strides: list[int], dilations: list[int]) -> Any:
    """For each kernel position, its index and the view of the padded ``x`` that it multiplies."""
    spatial = x.shape[2:]
    counts = [
        (size - (k - 1) * d - 1) // s + 1 for size, k, s, d in zip(spatial, kernel, strides, dilations, strict=True)
    ]
    for position in np.ndindex(*kernel):
        window = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(position, dilations, counts, strides, strict=True)
        )
        yield position, x[(slice(None), slice(None), *window)]


def conv(o: Operands) -> tuple[np.ndarray, ...]:
    x, weight = o.tensor("x"), np.asarray(o.constant("weight"), np.float32)
    kernel, rank = list(weight.shape[2:]), weight.ndim - 2
    strides = [int(v) for v in o.constant("strides", [1] * rank)]
    dilations = [int(v) for v in o.constant("dilations", [1] * rank)]
    groups = int(o.constant("groups", 1))
    flat = x.reshape(-1, *x.shape[2:])  # rows and the program's own batch together
    pads = _paddings(o, flat.shape[2:], kernel, strides, dilations)
    flat = np.pad(flat, [(0, 0), (0, 0), *pads])
    out_channels, per_group = weight.shape[:2]
    total: Any = 0
    for position, view in _positions(flat, kernel, strides, dilations):
        part = weight[(slice(None), slice(None), *position)]  # (out, in / groups)
        shape = view.shape[2:]
        if per_group == 1:
            spread = np.repeat(view, out_channels // groups, axis=1)
            product = spread * part.reshape(1, out_channels, *(1,) * rank)
        else:
            grouped = view.reshape(len(flat), groups, per_group, -1)
            product = part.reshape(groups, out_channels // groups, per_group) @ grouped
            product = product.reshape(len(flat), out_channels, *shape)
        total = product if isinstance(total, int) else np.add(total, product, out=total)
    if o.has("bias"):
        total = total + np.asarray(o.constant("bias"), np.float32).reshape(1, out_channels, *(1,) * rank)
    return (total.reshape(*x.shape[:2], *total.shape[1:]),)


def pool(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    kernel = [int(v) for v in o.constant("kernel_sizes")]
    strides = [int(v) for v in o.constant("strides", [1] * len(kernel))]
    if o.constant("ceil_mode", False):
        raise o.refuse("ceil_mode is not evaluated")
    flat = x.reshape(-1, *x.shape[2:])
    ones = [1] * len(kernel)
    pads = [(0, 0), (0, 0), *_paddings(o, flat.shape[2:], kernel, strides, ones)]
    if o.kind == "max_pool":
        padded = np.pad(flat, pads, constant_values=-np.inf)
        result = np.maximum.reduce([view for _, view in _positions(padded, kernel, strides, ones)])
    else:
        result = sum(view for _, view in _positions(np.pad(flat, pads), kernel, strides, ones))
        if o.constant("exclude_padding_from_average", False):
            covered = np.pad(np.ones_like(flat[:1, :1]), pads)
            result = result / sum(view for _, view in _positions(covered, kernel, strides, ones))
        else:
            result = result / math.prod(kernel)
    return (result.reshape(*x.shape[:2], *result.shape[1:]),)


def batch_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    shape = (1, 1, -1, *(1,) * (x.ndim - 3))
    mean, variance = (np.asarray(o.constant(name), np.float32).reshape(shape) for name in ("mean", "variance"))
    y = (x - mean) / np.sqrt(variance + np.float32(o.constant("epsilon", 1e-5)))
    gamma, beta = o.constant("gamma"), o.constant("beta")
    y = y if gamma is None else y * np.asarray(gamma, np.float32).reshape(shape)
    return (y if beta is None else y + np.asarray(beta, np.float32).reshape(shape),)


def layer_norm(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axes = axes_of(o.constant("axes", range(x.ndim - 1)), x.ndim)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(
        x.var(axes, keepdims=True) + np.float32(o.constant("epsilon", 1e-5))
    )
    gamma, beta = o.constant("gamma"), o.constant("beta")
    y = y if gamma is None else y * np.asarray(gamma, np.float32)
    return (y if beta is None else y + np.asarray(beta, np.float32),)


def _scale_and_zero(o: Operands, rank: int) -> tuple[np.ndarray, np.ndarray]:
    scale = np.asarray(o.constant("scale"), np.float32)
    zero = np.asarray(o.constant("zero_point", 0), np.float32)
    if scale.ndim:
        shape = [1] * rank
        shape[axes_of(o.constant("axis", 0), rank)[0]] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.ndim else zero
    return scale, zero


def quantize(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("input")
    scale, zero = _scale_and_zero(o, x.ndim)
    limits = np.iinfo(str(o.constant("output_dtype")))
    return (np.clip(np.rint(x / scale) + zero, limits.min, limits.max).astype(limits.dtype),)


def dequantize(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("input")
    scale, zero = _scale_and_zero(o, x.ndim)
    return ((x.astype(np.float32) - zero) * scale,)


def stored(o: Operands) -> tuple[np.ndarray, ...]:
    """A compressed constant; coremltools itself says what it stands for."""
    return (np.asarray(o.operation.materialized_val_inference())[np.newaxis],)
