"""How to come from an array that was given to one that fits, where that is plain: the ends of data errors. Pure."""

from __future__ import annotations

import numpy as np

__all__ = ["RENAME_INPUT", "cast_hint", "label_hint", "reshape_hint"]

RENAME_INPUT = (
    "rename the input in the model, which needs no training: in Keras the name of keras.Input, in PyTorch the argument "
    "of forward, in a SavedModel the argument of the signature's function, in ONNX the name in graph.input and in the "
    "nodes that read it"
)


def cast_hint(array: np.ndarray, dtype: str) -> str:
    """For an array whose kind of dtype is not the model's."""
    if array.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        return f"; all values are whole, so give .astype({dtype!r})" if _whole(array) else "; not all values are whole"
    if array.dtype.kind in "US":
        return "; texts have to become numbers before, as they do on the device"
    return f"; if no value is lost by it, give .astype({dtype!r})" if array.dtype.kind in "iub" else ""


def reshape_hint(array: np.ndarray, row: tuple[int | str, ...]) -> str:
    """For an array that is not ``(rows, *row)``."""
    if _fits(array.shape, row):
        return "; if this is one row, give array[np.newaxis]"
    if array.ndim == len(row) + 2 and array.shape[1] == 1:
        return "; an axis of size 1 is too much, so give array.squeeze(1)"
    if array.ndim == len(row) and row[-1:] == (1,) and _fits(array.shape[1:], row[:-1]):
        return "; an axis of size 1 is missing, so give array[..., np.newaxis]"
    if array.ndim > 2:
        for axes in ((0, *range(2, array.ndim), 1), (0, array.ndim - 1, *range(1, array.ndim - 1))):
            if _fits(tuple(array.shape[axis] for axis in axes[1:]), row):
                return f"; its axes seem to be in another order: array.transpose{axes}"
    return ""


def label_hint(labels: np.ndarray) -> str:
    """For labels that are not whole numbers ``(rows,)``."""
    if labels.dtype.kind in "US":
        return "; give the place of each text in the order of the model's outputs"
    if labels.dtype.kind not in "fiub" or not labels.size or not labels.ndim:
        return ""
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
        return f"; {'they are one-hot' if one_hot else 'if they are scores of classes'}, so give label.argmax(axis=1)"
    if labels.size != len(labels):
        return ""
    if not _whole(labels):
        return "; not all are whole: values to be predicted go under the name target"
    flat = "" if labels.ndim == 1 else ".ravel()"
    return f"; all are whole, so give label{flat}{'.astype(np.int64)' if labels.dtype.kind == 'f' else ''}"


def _whole(array: np.ndarray) -> bool:
    return bool(array.size and np.isfinite(array).all() and (array == np.rint(array)).all())


def _fits(have: tuple[int, ...], want: tuple[int | str, ...]) -> bool:
    return len(have) == len(want) and all(isinstance(w, str) or w == h for h, w in zip(have, want, strict=True))
