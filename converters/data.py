"""Rows of inputs with labels: what calibration, evaluation and distillation are given. Checked once, by name."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters.errors import (
    DataUnreadable,
    LabelMismatch,
    NonFiniteData,
    TooLittleData,
    WrongDtype,
    WrongNames,
    WrongShape,
)
from converters.sources.base import is_batched
from edge_runtime.bundle import TensorSpec

__all__ = ["LABELS", "Dataset", "check_dataset", "load_dataset", "rows_of_shape"]

LABELS = "labels"
KIND = {"f": "fiub", "i": "iub", "u": "u", "b": "b"}  # dtype kinds that may be given for each kind of input


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """``inputs`` by name, each ``(rows, …)``; ``labels`` are class indices ``(rows,)`` or None. ``name`` is for errors.

    For a model whose first axis is not ``batch``, every row is one whole input.
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def sha256(self) -> str:
        """Digest of names, dtypes, shapes and values; independent of the file that they came from."""
        digest = hashlib.sha256()
        arrays = {**self.inputs} if self.labels is None else {**self.inputs, LABELS: self.labels}
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def take(self, rows: int) -> Dataset:
        """At most ``rows`` rows, evenly spread, in order."""
        if rows >= self.rows:
            return self
        chosen = np.linspace(0, self.rows - 1, rows).round().astype(np.intp)
        labels = None if self.labels is None else self.labels[chosen]
        return Dataset(name=self.name, inputs={k: v[chosen] for k, v in self.inputs.items()}, labels=labels)


def load_dataset(path: str | Path) -> Dataset:
    """Read an ``.npz``: one array for each input, by name, and class indices under ``labels`` where there are any.

    Raises `DataUnreadable`. Arrays of Python objects are refused, not unpickled.
    """
    path = Path(path)
    if not path.is_file():
        raise DataUnreadable(f"{path}: no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataUnreadable(f"{path} is not an .npz file; write it with numpy.savez(path, window=…, labels=…)")
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataUnreadable(f"{path} is not a readable .npz file of plain arrays: {error}") from error
    labels = arrays.pop(LABELS, None)
    if not arrays:
        raise DataUnreadable(f"{path} holds no input arrays")
    return Dataset(name=str(path), inputs=arrays, labels=labels)


def check_dataset(
    data: Dataset,
    inputs: tuple[TensorSpec, ...],
    *,
    classes: int | None = None,
    minimum: int = 1,
    labelled: bool = False,
) -> Dataset:
    """``data`` with its arrays in the inputs' dtypes, or the error that names what is wrong with which key.

    ``classes`` bounds the labels; ``labelled`` demands them; ``minimum`` is the fewest rows that will do.
    """
    wanted, given = {spec.name for spec in inputs}, set(data.inputs)
    if wanted != given:
        missing, extra = ", ".join(sorted(wanted - given)), ", ".join(sorted(given - wanted))
        raise WrongNames(
            f"{data.name}: the model takes {', '.join(sorted(wanted))}"
            + (f"; missing: {missing}" if missing else "")
            + (f"; not an input: {extra}" if extra else "")
        )
    arrays = {spec.name: _checked_array(data, spec, is_batched(inputs)) for spec in inputs}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise WrongShape(f"{data.name}: inputs with different numbers of rows: {counts}")
    rows = next(iter(counts.values()))
    if rows < minimum:
        raise TooLittleData(f"{data.name}: {rows} rows, at least {minimum} are needed")
    labels = None if data.labels is None else _checked_labels(data, rows, classes)
    if labelled and labels is None:
        raise LabelMismatch(f"{data.name}: no array named {LABELS!r} with the class of each row")
    return Dataset(name=data.name, inputs=arrays, labels=labels)


def rows_of_shape(spec: TensorSpec, batched: bool) -> tuple[int | str, ...]:
    """The shape of one row of data for an input."""
    return spec.shape[1:] if batched else spec.shape


def _checked_array(data: Dataset, spec: TensorSpec, batched: bool) -> np.ndarray:
    array, where = np.asarray(data.inputs[spec.name]), f"{data.name}: {spec.name}"
    kind = np.dtype(spec.dtype).kind
    if array.dtype.kind not in KIND.get(kind, kind):
        raise WrongDtype(f"{where} is of dtype {array.dtype}, the model takes {spec.dtype}")
    shape = rows_of_shape(spec, batched)
    fits = array.ndim == len(shape) + 1 and all(
        isinstance(want, str) or want == have for want, have in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in ("rows", *shape))
        raise WrongShape(f"{where} has shape {array.shape}, the model takes ({wanted})")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0]
        raise NonFiniteData(f"{where} holds NaN or infinity, first at {tuple(int(i) for i in bad)}")
    return np.ascontiguousarray(array, dtype=spec.dtype)


def _checked_labels(data: Dataset, rows: int, classes: int | None) -> np.ndarray:
    labels = np.asarray(data.labels)
    where = f"{data.name}: {LABELS}"
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise LabelMismatch(f"{where} must be whole numbers of shape (rows,), not {labels.dtype} {labels.shape}")
    if len(labels) != rows:
        raise LabelMismatch(f"{where} has {len(labels)} entries for {rows} rows")
    if labels.size and (labels.min() < 0 or (classes is not None and labels.max() >= classes)):
        limit = "" if classes is None else f" to {classes - 1}"
        raise LabelMismatch(f"{where} range from {labels.min()} to {labels.max()}, the model's classes are 0{limit}")
    return labels.astype(np.int64)
