"""MIL operators that read or write at indices, which may differ from row to row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from converters.mil.operands import Function, Operands, RowDependent, axes_of, by_row, same_rows
from converters.mil.shapes import index_of

__all__ = ["INDEXING"]

MODES: dict[str, Callable[..., None]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": np.divide.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _gather(o: Operands) -> tuple[np.ndarray, ...]:
    x, indices = o.tensor("x"), o.tensor("indices").astype(np.intp)
    axis, batch = axes_of(o.constant("axis", 0), x.ndim)[0], int(o.constant("batch_dims", 0))
    if batch == 0 and len(indices) == 1:
        return (np.take(x, indices[0], axis=axis),)
    if batch == 0 and len(x) == 1:  # an embedding: one table for all rows
        taken = np.take(x[0], indices, axis=axis - 1)
        return (np.moveaxis(taken, axis - 1, 0),)
    x, indices = same_rows([x, indices])
    return (_batched_take(x, indices, axis, batch + 1),)  # the rows are one more axis that both have


def _batched_take(x: np.ndarray, indices: np.ndarray, axis: int, batch: int) -> np.ndarray:
    if batch == 0:
        return np.take(x, indices, axis=axis)
    pairs = zip(x, indices, strict=True)
    return np.stack([_batched_take(part, index, axis - 1, batch - 1) for part, index in pairs])


def _gather_along_axis(o: Operands) -> tuple[np.ndarray, ...]:
    x, indices = same_rows([o.tensor("x"), o.tensor("indices").astype(np.intp)])
    return (np.take_along_axis(x, indices, axes_of(o.constant("axis", 0), x.ndim)[0]),)


def _gather_nd(o: Operands) -> tuple[np.ndarray, ...]:
    x, indices = same_rows([o.tensor("x"), o.tensor("indices").astype(np.intp)])
    return (_nd_take(x, indices, int(o.constant("batch_dims", 0)) + 1),)


def _nd_take(x: np.ndarray, indices: np.ndarray, batch: int) -> np.ndarray:
    if batch == 0:
        return np.asarray(x[tuple(np.moveaxis(indices, -1, 0))])
    return np.stack([_nd_take(part, index, batch - 1) for part, index in zip(x, indices, strict=True)])


def _written(o: Operands, data: np.ndarray, where: tuple[np.ndarray | slice, ...], updates: np.ndarray) -> np.ndarray:
    result, mode = np.array(data), str(o.constant("mode", "add"))
    if mode == "update":
        result[where] = updates
    else:
        MODES[mode](result, where, updates)
    return result


def _scatter(o: Operands) -> tuple[np.ndarray, ...]:
    data = o.tensor("data")
    axis = axes_of(o.constant("axis", 0), data.ndim)[0] - 1

    def one(values: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        return _written(o, values, (*[slice(None)] * axis, indices), updates)

    return (by_row(one, data, o.tensor("indices").astype(np.intp), o.tensor("updates")),)


def _scatter_along_axis(o: Operands) -> tuple[np.ndarray, ...]:
    data = o.tensor("data")
    axis = axes_of(o.constant("axis", 0), data.ndim)[0] - 1

    def one(values: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        where: list[np.ndarray] = list(np.indices(indices.shape, sparse=True))
        where[axis] = indices
        return _written(o, values, tuple(where), updates)

    return (by_row(one, data, o.tensor("indices").astype(np.intp), o.tensor("updates")),)


def _scatter_nd(o: Operands) -> tuple[np.ndarray, ...]:
    def one(values: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        return _written(o, values, tuple(np.moveaxis(indices, -1, 0)), updates)

    return (by_row(one, o.tensor("data"), o.tensor("indices").astype(np.intp), o.tensor("updates")),)


def _slice_update(o: Operands) -> tuple[np.ndarray, ...]:
    x, update = same_rows([o.tensor("x"), o.tensor("update")])
    result = np.array(x)
    result[index_of(o, x.ndim - 1)] = update
    return (result,)


def _one_hot(o: Operands) -> tuple[np.ndarray, ...]:
    indices, size = o.tensor("indices"), int(o.constant("one_hot_vector_size"))
    axis = axes_of(o.constant("axis", -1), indices.ndim + 1)[0]
    on, off = np.asarray(o.constant("on_value", 1)), np.asarray(o.constant("off_value", 0))
    hot = np.where(indices[..., np.newaxis] == np.arange(size), on, off)
    return (np.moveaxis(hot, -1, axis),)


def _non_zero(o: Operands) -> tuple[np.ndarray, ...]:
    x = o.tensor("x")
    if len(x) != 1:  # each row has another number of them
        raise RowDependent
    return (np.argwhere(x[0]).astype(np.int32)[np.newaxis],)


def _band_part(o: Operands) -> tuple[np.ndarray, ...]:
    x, lower, upper = o.tensor("x"), int(o.constant("lower", -1)), int(o.constant("upper", -1))
    below = np.arange(x.shape[-2])[:, np.newaxis] - np.arange(x.shape[-1])
    inside = ((lower < 0) | (below <= lower)) & ((upper < 0) | (-below <= upper))
    return (np.where(inside, x, np.zeros((), x.dtype)),)


def _reverse_sequence(o: Operands) -> tuple[np.ndarray, ...]:
    x, lengths = same_rows([o.tensor("x"), o.tensor("lengths")])
    axis, batch = axes_of([o.constant("seq_axis", 0), o.constant("batch_axis", 0)], x.ndim)
    places = np.arange(x.shape[axis])
    reach = lengths[..., np.newaxis]  # (rows, batch, 1)
    order = np.where(places < reach, reach - 1 - places, places)
    shape = [1] * x.ndim
    shape[0], shape[batch], shape[axis] = len(x), x.shape[batch], x.shape[axis]
    order = order if batch < axis else order.swapaxes(1, 2)
    return (np.take_along_axis(x, np.broadcast_to(order.reshape(shape), x.shape), axis),)


INDEXING: dict[str, Function] = {
    "band_part": _band_part,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "non_zero": _non_zero,
    "one_hot": _one_hot,
    "reverse_sequence": _reverse_sequence,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
    "slice_update": _slice_update,
}
