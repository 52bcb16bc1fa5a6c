"""MIL convolutions and pooling: windows are gathered into columns, so that BLAS does the products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from converters.mil.operands import Function, Operands

__all__ = ["CONVOLUTION"]

COLUMN_BYTES = 1 << 25  # gathered windows held at once; more would leave the processor's caches for nothing
Pads = list[tuple[int, int]]


def _paddings(o: Operands, sizes: Sequence[int], kernel: Sequence[int], strides: Any, dilations: Any) -> Pads:
    """(before, after) for each spatial axis, by the operator's ``pad_type``."""
    kind = str(o.constant("pad_type", "valid"))
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    if kind == "custom":
        return _pairs(o.integers("pad"))
    result = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        result.append((more, less) if kind == "same_lower" else (less, more))
    return result


def _pairs(values: Sequence[int]) -> Pads:
    return list(zip(values[::2], values[1::2], strict=True))


def _counts(sizes: Sequence[int], kernel: Sequence[int], strides: Any, dilations: Any) -> list[int]:
    """Window positions along each spatial axis of the padded input."""
    return [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)]


def _positions(
    x: np.ndarray, kernel: Sequence[int], strides: Any, dilations: Any, counts: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """For each kernel position, its index and the view of the padded ``x`` that it multiplies."""
    for position in np.ndindex(*kernel):
        window: tuple[Any, ...] = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s)
            for p, d, n, s in zip(position, dilations, counts, strides, strict=True)
        )
        yield position, x[..., *window]


def _conv(o: Operands) -> tuple[np.ndarray, ...]:
    x, weight = o.tensor("x"), np.asarray(o.weight("weight"))
    kernel, rank = weight.shape[2:], weight.ndim - 2
    strides, dilations = o.integers("strides", [1] * rank), o.integers("dilations", [1] * rank)
    groups = int(o.constant("groups", 1))
    flat = x.reshape(-1, *x.shape[2:])  # rows and the program's own batch together
    pads = _paddings(o, flat.shape[2:], kernel, strides, dilations)
    if any(map(any, pads)):
        flat = np.pad(flat, [(0, 0), (0, 0), *pads])
    counts = _counts(flat.shape[2:], kernel, strides, dilations)
    bias = o.weight("bias")
    result = np.empty((len(flat), len(weight), *counts), np.float32)
    if weight.shape[1] == 1 and groups > 1:
        _depthwise(flat, weight, result, strides, dilations, groups)
    else:
        _by_columns(flat, weight, result, strides, dilations, groups)
    if bias is not None:
        result += bias.reshape(1, -1, *(1,) * rank)
    return (result.reshape(*x.shape[:2], *result.shape[1:]),)


def _by_columns(
    x: np.ndarray, weight: np.ndarray, result: np.ndarray, strides: Any, dilations: Any, groups: int
) -> None:
    kernel, counts = weight.shape[2:], result.shape[2:]
    depth, places = weight.shape[1] * math.prod(kernel), math.prod(counts)
    matrices = weight.reshape(groups, len(weight) // groups, depth)
    step = max(1, COLUMN_BYTES // max(1, 4 * groups * depth * places))
    pointwise = math.prod(kernel) == 1 and all(s == 1 for s in strides)
    for start in range(0, len(x), step):
        part = x[start : start + step]
        if pointwise:
            columns = part.reshape(len(part), groups, depth, places)
        else:
            gathered = np.empty((len(part), x.shape[1], math.prod(kernel), *counts), np.float32)
            for index, (_, view) in enumerate(_positions(part, kernel, strides, dilations, counts)):
                gathered[:, :, index] = view
            columns = gathered.reshape(len(part), groups, depth, places)
        result[start : start + step] = (matrices @ columns).reshape(len(part), len(weight), *counts)


def _depthwise(
    x: np.ndarray, weight: np.ndarray, result: np.ndarray, strides: Any, dilations: Any, groups: int
) -> None:
    """One input channel for each output channel; image by image, so that it stays in the caches."""
    kernel, counts = weight.shape[2:], result.shape[2:]
    several = len(weight) // groups
    product = np.empty(result.shape[1:], np.float32)
    factors_by_place = weight.reshape(len(weight), -1)
    for image, total in zip(x, result, strict=True):
        spread = image if several == 1 else np.repeat(image, several, axis=0)
        total[:] = 0
        for index, (_, view) in enumerate(_positions(spread, kernel, strides, dilations, counts)):
            factors = factors_by_place[:, index].reshape(-1, *(1,) * len(kernel))
            total += np.multiply(view, factors, out=product)


def _conv_transpose(o: Operands) -> tuple[np.ndarray, ...]:
    x, weight = o.tensor("x"), np.asarray(o.weight("weight"))  # (in, out / groups, *kernel)
    kernel, rank = weight.shape[2:], weight.ndim - 2
    strides, dilations = o.integers("strides", [1] * rank), o.integers("dilations", [1] * rank)
    groups = int(o.constant("groups", 1))
    flat = x.reshape(-1, *x.shape[2:])
    sizes, channels = flat.shape[2:], weight.shape[1] * groups
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(sizes, strides, kernel, dilations, strict=True)]
    before, wanted = _transposed_extent(o, sizes, strides, full)
    # What `output_shape` asks for beyond the full extent stays zero.
    extent = [max(f, b + w) for f, b, w in zip(full, before, wanted, strict=True)]
    total = np.zeros((len(flat), channels, *extent), np.float32)
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)  # (groups, out·kernel, in)
    columns = matrices @ flat.reshape(len(flat), groups, weight.shape[0] // groups, -1)
    columns = columns.reshape(len(flat), channels, math.prod(kernel), *sizes)
    for index, (_, view) in enumerate(_positions(total, kernel, strides, dilations, sizes)):
        view += columns[:, :, index]
    crop = tuple(slice(b, b + w) for b, w in zip(before, wanted, strict=True))
    result = total[(slice(None), slice(None), *crop)]
    bias = o.weight("bias")
    result = result if bias is None else result + bias.reshape(1, -1, *(1,) * rank)
    return (result.reshape(*x.shape[:2], *result.shape[1:]),)


def _transposed_extent(o: Operands, sizes: Any, strides: Any, full: list[int]) -> tuple[list[int], list[int]]:
    """Where the wanted part of the full transposed convolution begins, and how large it is."""
    kind = str(o.constant("pad_type", "valid"))
    given = o.integers("output_shape")[2:] if o.has("output_shape") else None
    if kind == "custom":
        pads = _pairs(o.integers("pad"))
        return [b for b, _ in pads], given or [f - b - a for f, (b, a) in zip(full, pads, strict=True)]
    if kind == "valid":
        return [0] * len(full), given or full
    wanted = given or [n * s for n, s in zip(sizes, strides, strict=True)]
    cut = [max(0, f - w) for f, w in zip(full, wanted, strict=True)]
    return [c - c // 2 if kind == "same_lower" else c // 2 for c in cut], wanted


def _pool(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    kernel = o.integers("kernel_sizes")
    ones = [1] * len(kernel)
    strides = o.integers("strides", ones)
    flat = x.reshape(-1, *x.shape[2:])
    sizes = flat.shape[2:]
    pads = _paddings(o, sizes, kernel, strides, ones)
    padded_sizes = [n + b + a for n, (b, a) in zip(sizes, pads, strict=True)]
    counts = _counts(padded_sizes, kernel, strides, ones)
    if o.constant("ceil_mode", False):
        counts = [_ceiled(*each) for each in zip(sizes, pads, kernel, strides, strict=True)]
    # A last window may begin inside and end behind the padding.
    missing = [max(0, (c - 1) * s + k - n) for c, s, k, n in zip(counts, strides, kernel, padded_sizes, strict=True)]
    widths = [(0, 0), (0, 0), *((b, a + m) for (b, a), m in zip(pads, missing, strict=True))]
    if o.kind == "max_pool":
        padded = np.pad(flat, widths, constant_values=-np.inf)
        result = np.maximum.reduce([view for _, view in _positions(padded, kernel, strides, ones, counts)])
        return (result.reshape(*x.shape[:2], *result.shape[1:]),)
    squares = o.kind == "l2_pool"
    padded = np.pad(flat * flat if squares else flat, widths)
    result = np.add.reduce([view for _, view in _positions(padded, kernel, strides, ones, counts)])
    if squares:
        result = np.sqrt(result)
    else:
        inside = np.ones((1, 1, *sizes), np.float32)
        if o.constant("exclude_padding_from_average", False):
            covered = np.pad(inside, widths)
        else:
            padding = np.pad(inside, [(0, 0), (0, 0), *pads], constant_values=1)
            covered = np.pad(padding, [(0, 0), (0, 0), *((0, m) for m in missing)])
        result = result / sum(view for _, view in _positions(covered, kernel, strides, ones, counts))
    return (result.reshape(*x.shape[:2], *result.shape[1:]),)


def _ceiled(size: int, pad: tuple[int, int], kernel: int, stride: int) -> int:
    """Window positions in ceil mode: the last one still begins inside the input or the padding before it."""
    count = math.ceil((size + sum(pad) - kernel) / stride) + 1
    return count - 1 if (count - 1) * stride >= size + pad[0] else count


CONVOLUTION: dict[str, Function] = {
    "avg_pool": _pool,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "l2_pool": _pool,
    "max_pool": _pool,
}
