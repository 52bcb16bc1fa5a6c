"""MIL operators that move values without computing with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.mil.operands import Operands, aligned, axes_of

__all__ = [
    "concat",
    "crop",
    "expand_dims",
    "gather",
    "pad",
    "reshape",
    "select",
    "slice_by_index",
    "slice_by_size",
    "split",
    "squeeze",
    "stack",
    "tile",
    "transpose",
]


def transpose(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    return (x.transpose(0, *axes_of(o.constant("perm"), x.ndim)),)


def reshape(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    shape = [int(x.shape[i + 1]) if size == 0 else int(size) for i, size in enumerate(o.constant("shape"))]
    return (x.reshape(len(x), *shape),)


def expand_dims(o: Operands) -> tuple[np.ndarray, ...]:
    x, axes = o.tensor("x"), np.atleast_1d(o.constant("axes"))
    return (np.expand_dims(x, axes_of(axes, x.ndim + len(axes))),)


def squeeze(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    if not o.has("axes"):
        return (x.reshape(len(x), *(size for size in x.shape[1:] if size != 1)),)
    return (np.squeeze(x, axes_of(o.constant("axes"), x.ndim)),)


def _same_rows(tensors: list[np.ndarray]) -> list[np.ndarray]:
    rows = max(len(each) for each in tensors)
    return [np.broadcast_to(each, (rows, *each.shape[1:])) for each in tensors]


def concat(o: Operands) -> tuple[np.ndarray, ...]:
    if o.constant("interleave", False):
        raise o.refuse("interleaved concatenation is not evaluated")
    tensors = _same_rows(o.tensors("values"))
    return (np.concatenate(tensors, axis=axes_of(o.constant("axis"), tensors[0].ndim)[0]),)


def stack(o: Operands) -> tuple[np.ndarray, ...]:
    tensors = _same_rows(o.tensors("values"))
    return (np.stack(tensors, axis=axes_of(o.constant("axis"), tensors[0].ndim + 1)[0]),)


def split(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    axis = axes_of(o.constant("axis"), x.ndim)[0]
    sizes = o.constant("split_sizes")
    cuts = int(o.constant("num_splits")) if sizes is None else np.cumsum(sizes)[:-1]
    return tuple(np.split(x, cuts, axis=axis))


def slice_by_index(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    begin, end = o.constant("begin"), o.constant("end")
    rank = x.ndim - 1
    no = np.zeros(rank, bool)
    stride = o.constant("stride", np.ones(rank, int))
    begin_mask, end_mask, squeeze = (o.constant(name, no) for name in ("begin_mask", "end_mask", "squeeze_mask"))
    index: list[Any] = [slice(None)]
    for axis in range(rank):
        if squeeze[axis]:
            index.append(int(begin[axis]))
            continue
        first = None if begin_mask[axis] else int(begin[axis])
        last = None if end_mask[axis] else int(end[axis])
        index.append(slice(first, last, int(stride[axis])))
    return (x[tuple(index)],)


def slice_by_size(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    index: list[Any] = [slice(None)]
    for begin, size in zip(o.constant("begin"), o.constant("size"), strict=True):
        index.append(slice(int(begin), None if size == -1 else int(begin) + int(size)))
    return (x[tuple(index)],)


def pad(o: Operands) -> tuple[np.ndarray, ...]:
    x, pad, mode = o.tensor("x"), np.asarray(o.constant("pad")).reshape(-1, 2), str(o.constant("mode", "constant"))
    widths = [(0, 0)] * (x.ndim - len(pad)) + [(int(before), int(after)) for before, after in pad]
    if mode == "constant":
        return (np.pad(x, widths, constant_values=o.constant("constant_val", 0)),)
    return (np.pad(x, widths, mode="edge" if mode == "replicate" else "reflect"),)


def crop(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    (top, bottom), (left, right) = o.constant("crop_height"), o.constant("crop_width")
    return (x[..., int(top) : x.shape[-2] - int(bottom), int(left) : x.shape[-1] - int(right)],)


def gather(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    if int(o.constant("batch_dims", 0)):
        raise o.refuse("batch_dims other than 0 is not evaluated")
    return (np.take(x, np.asarray(o.constant("indices")), axis=axes_of(o.constant("axis", 0), x.ndim)[0]),)


def tile(o: Operands) -> tuple[np.ndarray, ...]:
    return (np.tile(o.tensor("x"), (1, *(int(n) for n in o.constant("reps")))),)


def select(o: Operands) -> tuple[np.ndarray, ...]:
    condition, a = aligned(o.tensor("cond"), o.tensor("a"))
    condition, b = aligned(condition, o.tensor("b"))
    a, b = aligned(a, b)
    return (np.where(condition, a, b),)
