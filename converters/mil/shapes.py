"""MIL operators that move values without computing with them, and those that make or ask shapes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from converters.mil.operands import Function, Operands, axes_of, same_rows

__all__ = ["SHAPES", "index_of"]


def _transpose(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return (x.transpose(0, *axes_of(o.constant("perm"), x.ndim)),)


def _reshape(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    wanted = [int(size) for size in np.atleast_1d(o.constant("shape"))]
    shape = [x.shape[axis + 1] if size == 0 else size for axis, size in enumerate(wanted)]
    return (x.reshape(len(x), *shape),)


def _reshape_like(o: Operands) -> tuple[np.ndarray, ...]:
    x, shape = o.tensor("x"), []
    columns = (o.tensors(name) for name in ("ref_tensors", "begins", "ends", "end_masks"))
    for reference, begin, end, masked in zip(*columns, strict=True):
        shape.extend(reference.shape[1:][int(begin[0]) : None if masked[0] else int(end[0])])
    return (x.reshape(len(x), *shape),)


def _flatten2d(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    sizes, axis = x.shape[1:], int(o.constant("axis", 1))
    return (x.reshape(len(x), math.prod(sizes[:axis]), math.prod(sizes[axis:])),)


def _expand_dims(o: Operands) -> tuple[np.ndarray, ...]:
    x, axes = o.tensor("x"), np.atleast_1d(o.constant("axes"))
    return (np.expand_dims(x, axes_of(axes, x.ndim + len(axes))),)


def _squeeze(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    if not o.has("axes"):
        return (x.reshape(len(x), *(size for size in x.shape[1:] if size != 1)),)
    return (np.squeeze(x, axes_of(o.constant("axes"), x.ndim)),)


def _concat(o: Operands) -> tuple[np.ndarray, ...]:
    tensors = same_rows(o.tensors("values"))
    if tensors[0].ndim == 1:  # scalars
        return (np.stack(tensors, axis=1),)
    axis = axes_of(o.constant("axis"), tensors[0].ndim)[0]
    if not o.constant("interleave", False):
        return (np.concatenate(tensors, axis=axis),)
    turns = np.stack(tensors, axis=axis + 1)
    return (turns.reshape(*turns.shape[:axis], -1, *turns.shape[axis + 2 :]),)


def _stack(o: Operands) -> tuple[np.ndarray, ...]:
    tensors = same_rows(o.tensors("values"))
    return (np.stack(tensors, axis=axes_of(o.constant("axis"), tensors[0].ndim + 1)[0]),)


def _split(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = axes_of(o.constant("axis"), x.ndim)[0]
    cuts: Any = np.cumsum(o.integers("split_sizes"))[:-1] if o.has("split_sizes") else int(o.constant("num_splits"))
    return tuple(np.split(x, cuts, axis=axis))


def index_of(o: Operands, rank: int) -> tuple[Any, ...]:
    """What ``begin``, ``end``, ``stride`` and the masks of a slice select, the rows' axis included."""
    begin, end = o.integers("begin"), o.integers("end")
    stride = o.integers("stride", [1] * rank)
    masks = (np.atleast_1d(o.constant(name, [False] * rank)) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    begin_mask, end_mask, squeeze = masks
    index: list[Any] = [slice(None)]
    for axis in range(rank):
        if squeeze[axis]:
            index.append(begin[axis])
            continue
        first = None if begin_mask[axis] else begin[axis]
        last = None if end_mask[axis] else end[axis]
        index.append(slice(first, last, stride[axis]))
    return tuple(index)


def _slice_by_index(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return (x[index_of(o, x.ndim - 1)],)


def _slice_by_size(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    index: list[Any] = [slice(None)]
    for begin, size, length in zip(o.integers("begin"), o.integers("size"), x.shape[1:], strict=True):
        first = begin + length if begin < 0 else begin
        index.append(slice(first, None if size == -1 else first + size))
    return (x[tuple(index)],)


def _pad(o: Operands) -> tuple[np.ndarray, ...]:
    x, pad, mode = o.tensor("x"), np.asarray(o.constant("pad")).reshape(-1, 2), str(o.constant("mode", "constant"))
    widths = [(0, 0)] * (x.ndim - len(pad)) + [(int(before), int(after)) for before, after in pad]
    if mode == "constant":
        return (np.pad(x, widths, constant_values=o.constant("constant_val", 0)),)
    return (np.pad(x, widths, mode="edge" if mode == "replicate" else "reflect"),)


def _crop(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    (top, bottom), (left, right) = o.integers("crop_height"), o.integers("crop_width")
    return (x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right],)


def _tile(o: Operands) -> tuple[np.ndarray, ...]:
    return (np.tile(o.tensor("x"), (1, *o.integers("reps"))),)


def _reverse(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return (np.flip(x, axes_of(o.constant("axes"), x.ndim) if o.has("axes") else tuple(range(1, x.ndim))),)


def _sliding_windows(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis, size = axes_of(o.constant("axis"), x.ndim)[0], int(o.constant("size"))
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=axis)
    every = (*[slice(None)] * axis, slice(None, None, int(o.constant("stride", 1))))
    return (np.moveaxis(windows, -1, axis + 1)[every],)


def _depth_to_space(o: Operands) -> tuple[np.ndarray, ...]:
    """The block's position is the channel's slow part (TensorFlow's order); in `pixel_shuffle` its fast part."""
    x = o.tensor("x")
    rows, n, c, h, w = x.shape
    slow = o.kind == "depth_to_space"
    b = int(o.constant("block_size" if slow else "upscale_factor"))
    parts = x.reshape(rows, n, b, b, c // b**2, h, w) if slow else x.reshape(rows, n, c // b**2, b, b, h, w)
    order = (0, 1, 4, 5, 2, 6, 3) if slow else (0, 1, 2, 5, 3, 6, 4)
    return (parts.transpose(order).reshape(rows, n, c // b**2, h * b, w * b),)


def _space_to_depth(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    rows, n, c, h, w = x.shape
    slow = o.kind == "space_to_depth"
    b = int(o.constant("block_size" if slow else "downscale_factor"))
    parts = x.reshape(rows, n, c, h // b, b, w // b, b)
    order = (0, 1, 4, 6, 2, 3, 5) if slow else (0, 1, 2, 4, 6, 3, 5)
    return (parts.transpose(order).reshape(rows, n, c * b**2, h // b, w // b),)


def _space_to_batch(o: Operands) -> tuple[np.ndarray, ...]:
    x, (b, d) = o.tensor("x"), o.integers("block_shape")
    x = np.pad(x, [(0, 0), (0, 0), (0, 0), *((int(p), int(q)) for p, q in o.constant("paddings"))])
    rows, n, c, h, w = x.shape
    parts = x.reshape(rows, n, c, h // b, b, w // d, d).transpose(0, 4, 6, 1, 2, 3, 5)
    return (parts.reshape(rows, b * d * n, c, h // b, w // d),)


def _batch_to_space(o: Operands) -> tuple[np.ndarray, ...]:
    x, (b, d) = o.tensor("x"), o.integers("block_shape")
    rows, n, c, h, w = x.shape
    parts = x.reshape(rows, b, d, n // (b * d), c, h, w).transpose(0, 3, 4, 5, 1, 6, 2)
    whole = parts.reshape(rows, n // (b * d), c, h * b, w * d)
    (top, bottom), (left, right) = ((int(p), int(q)) for p, q in o.constant("crops"))
    return (whole[..., top : h * b - bottom, left : w * d - right],)


def _shape(o: Operands) -> tuple[np.ndarray, ...]:
    return (np.asarray(o.tensor("x").shape[1:], np.int32)[np.newaxis],)


def _lifted(value: np.ndarray) -> tuple[np.ndarray, ...]:
    return ((value.astype(np.float32) if value.dtype.kind == "f" else value)[np.newaxis],)


def _fill(o: Operands) -> tuple[np.ndarray, ...]:
    return _lifted(np.full(o.integers("shape"), o.constant("value", 0.0)))


def _fill_like(o: Operands) -> tuple[np.ndarray, ...]:
    return _lifted(np.full(o.tensor("ref_tensor").shape[1:], o.constant("value", 0.0)))


def _range_1d(o: Operands) -> tuple[np.ndarray, ...]:
    return _lifted(np.arange(o.constant("start"), o.constant("end"), o.constant("step")))


SHAPES: dict[str, Function] = {
    "batch_to_space": _batch_to_space,
    "concat": _concat,
    "crop": _crop,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "fill": _fill,
    "fill_like": _fill_like,
    "flatten2d": _flatten2d,
    "pad": _pad,
    "pixel_shuffle": _depth_to_space,
    "pixel_unshuffle": _space_to_depth,
    "range_1d": _range_1d,
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "reverse": _reverse,
    "shape": _shape,
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "sliding_windows": _sliding_windows,
    "space_to_batch": _space_to_batch,
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
}
