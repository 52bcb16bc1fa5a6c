"""Rows of inputs with what is known of them: what calibration, evaluation and distillation are given.

Read from a file once, checked once against a model's inputs, by name; later stages trust what was checked.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from converters.data_hints import RENAME_INPUT, cast_hint, label_hint, reshape_hint
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

__all__ = [
    "GROUP",
    "LABEL",
    "SEGMENT",
    "TARGET",
    "Dataset",
    "check_dataset",
    "load_dataset",
    "rows_of_shape",
    "save_dataset",
]

LABEL, TARGET, GROUP, SEGMENT = "label", "target", "group", "segment."
KIND = {"f": "fiub", "i": "iub", "u": "u", "b": "b"}  # dtype kinds that may be given for each kind of input
MAX_BYTES = 16 << 30  # of arrays in one file, as its own headers declare them


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """``inputs`` by name, each ``(rows, …)``. ``name`` is for errors.

    ``labels`` are class indices ``(rows,)`` of a classifier, ``targets`` the values ``(rows, …)`` of a regressor;
    ``groups`` says which subject, customer or device each row is of; ``segments`` are further columns to measure by.
    For a model whose first axis is not ``batch``, every row is one whole input.
    """

    name: str
    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None
    segments: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def sha256(self) -> str:
        """Digest of names, dtypes, shapes and values; independent of the file that they came from."""
        digest = hashlib.sha256()
        arrays = self.arrays()
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def arrays(self) -> dict[str, np.ndarray]:
        """Every array under the name that it has in a file."""
        known = {LABEL: self.labels, TARGET: self.targets, GROUP: self.groups}
        return {
            **self.inputs,
            **{name: array for name, array in known.items() if array is not None},
            **{f"{SEGMENT}{name}": array for name, array in self.segments.items()},
        }

    def at(self, chosen: np.ndarray) -> Dataset:
        """The rows of these numbers, in that order."""

        def rows(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[chosen]

        return replace(
            self,
            inputs={name: array[chosen] for name, array in self.inputs.items()},
            labels=rows(self.labels),
            targets=rows(self.targets),
            groups=rows(self.groups),
            segments={name: array[chosen] for name, array in self.segments.items()},
        )

    def take(self, rows: int) -> Dataset:
        """At most ``rows`` rows, evenly spread, in order."""
        if rows >= self.rows:
            return self
        return self.at(np.linspace(0, self.rows - 1, rows).round().astype(np.intp))


def load_dataset(path: str | Path) -> Dataset:
    """Read an ``.npz``: one array for each input, by name, with ``label``, ``target``, ``group`` and ``segment.<name>``
    beside them where there are any.

    Raises `DataUnreadable`, and `WrongNames` for a segment that would be mistaken for the accuracy by class or by
    group. Arrays of Python objects are refused, not unpickled; so is a file whose headers declare
    more than 16 GiB, before anything is allocated.
    """
    path = Path(path)
    if not path.is_file():
        raise DataUnreadable(f"{path}: no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataUnreadable(f"{path} is not an .npz file; write it with numpy.savez(path, window=…, label=…)")
        with loaded:
            declared = sum(entry.file_size for entry in loaded.zip.infolist())
            if declared > MAX_BYTES:
                raise DataUnreadable(f"{path} declares {declared:,} bytes of arrays, at most {MAX_BYTES:,} are read")
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataUnreadable(f"{path} is not a readable .npz file of plain arrays: {error}") from error
    known = {name: arrays.pop(name, None) for name in (LABEL, TARGET, GROUP)}
    segments = {name: arrays.pop(name) for name in list(arrays) if name.startswith(SEGMENT)}
    if not arrays:
        beside = ", ".join([*(name for name, array in known.items() if array is not None), *segments])
        raise DataUnreadable(f"{path} holds no input arrays{beside and f', but only {beside}'}")
    for name in (LABEL, GROUP):
        if SEGMENT + name in segments:
            raise WrongNames(
                f"{path}: accuracy by {name} is reported from the array {name}, for which {SEGMENT}{name} would be "
                "mistaken; give this column another name"
            )
    return Dataset(
        name=str(path),
        inputs=arrays,
        labels=known[LABEL],
        targets=known[TARGET],
        groups=known[GROUP],
        segments={name.removeprefix(SEGMENT): array for name, array in segments.items()},
    )


def save_dataset(data: Dataset, path: Path) -> None:
    """Write what `load_dataset` reads."""
    np.savez(path, allow_pickle=False, **data.arrays())


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
    _refuse_reserved(data, wanted)
    if wanted != given:
        missing, extra = ", ".join(sorted(wanted - given)), ", ".join(sorted(given - wanted))
        raise WrongNames(
            f"{data.name}: the model takes {', '.join(sorted(wanted))}"
            + (f"; missing: {missing}" if missing else "")
            + (f"; not an input: {extra}" if extra else "")
            + ("; class indices go under the name label" if "labels" in given - wanted else "")
        )
    arrays = {spec.name: _checked_array(data, spec, is_batched(inputs)) for spec in inputs}
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise WrongShape(f"{data.name}: inputs with different numbers of rows: {counts}; each row needs all of them")
    rows = next(iter(counts.values()))
    if rows < minimum:
        raise TooLittleData(f"{data.name}: {rows} rows, at least {minimum} are needed")
    labels = None if data.labels is None else _checked_labels(data, rows, classes)
    if labelled and labels is None:
        raise LabelMismatch(f"{data.name}: no array named {LABEL!r} with the class of each row")
    return Dataset(
        name=data.name,
        inputs=arrays,
        labels=labels,
        targets=None if data.targets is None else _checked_targets(data, rows),
        groups=None if data.groups is None else _checked_column(data, GROUP, data.groups, rows),
        segments={name: _checked_column(data, SEGMENT + name, each, rows) for name, each in data.segments.items()},
    )


def _refuse_reserved(data: Dataset, wanted: set[str]) -> None:
    """An input under a name that means something else in a file of data could not be told from that."""
    for name in sorted(wanted):
        if name in (LABEL, TARGET, GROUP) or name.startswith(SEGMENT):
            raise WrongNames(
                f"{data.name}: the model has an input called {name}, but in a file of data {LABEL}, {TARGET}, {GROUP} "
                f"and {SEGMENT}<name> say something of the rows; {RENAME_INPUT}"
            )


def rows_of_shape(spec: TensorSpec, batched: bool) -> tuple[int | str, ...]:
    """The shape of one row of data for an input."""
    return spec.shape[1:] if batched else spec.shape


def _checked_array(data: Dataset, spec: TensorSpec, batched: bool) -> np.ndarray:
    array, where = np.asarray(data.inputs[spec.name]), f"{data.name}: {spec.name}"
    kind = np.dtype(spec.dtype).kind
    if array.dtype.kind not in KIND.get(kind, kind):
        raise WrongDtype(
            f"{where} is of dtype {array.dtype}, the model takes {spec.dtype}{cast_hint(array, spec.dtype)}"
        )
    shape = rows_of_shape(spec, batched)
    if batched and array.ndim == len(shape) + 2 and array.shape[1] == 1:
        array = array[:, 0]  # whole calls of one example each, as a model with a fixed batch of 1 takes them
    fits = array.ndim == len(shape) + 1 and all(
        isinstance(want, str) or want == have for want, have in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in ("rows", *shape))
        raise WrongShape(f"{where} has shape {array.shape}, the model takes ({wanted}){reshape_hint(array, shape)}")
    _refuse_not_finite(array, where)
    if kind in "iu" and array.size:
        limits = np.iinfo(spec.dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise WrongDtype(f"{where} holds values outside {spec.dtype}, which the model takes")
    result = np.ascontiguousarray(array, dtype=spec.dtype)
    if kind == "f" and result.size and not np.isfinite(result).all():
        raise WrongDtype(f"{where} holds values too large for {spec.dtype}, which the model takes")
    return result


def _refuse_not_finite(array: np.ndarray, where: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = ~np.isfinite(array)
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        hit = int(bad.reshape(len(array), -1).any(axis=1).sum())
        raise NonFiniteData(
            f"{where} holds NaN or infinity, first at {first}, in {hit:,} of {len(array):,} rows; drop these rows of "
            "every array in the file, or fill in what the device, too, puts for a missing value"
        )


def _checked_labels(data: Dataset, rows: int, classes: int | None) -> np.ndarray:
    labels = np.asarray(data.labels)
    where = f"{data.name}: {LABEL}"
    if labels.ndim != 1 or labels.dtype.kind not in "iub":
        raise LabelMismatch(
            f"{where} must be whole numbers of shape (rows,), not {labels.dtype} {labels.shape}{label_hint(labels)}"
        )
    if len(labels) != rows:
        raise LabelMismatch(f"{where} has {len(labels)} entries for {rows} rows; each row needs one, in the same order")
    if labels.size and (labels.min() < 0 or (classes is not None and labels.max() >= classes)):
        limit = "" if classes is None else f" to {classes - 1}"
        outside = int(((labels < 0) | (False if classes is None else labels >= classes)).sum())
        from_one = classes is not None and labels.min() == 1 and labels.max() == classes
        raise LabelMismatch(
            f"{where} range from {labels.min()} to {labels.max()}, the model's classes are 0{limit}; "
            + ("they seem to count from 1: give label - 1" if from_one else f"{outside:,} of {rows:,} rows are of none")
        )
    return labels.astype(np.int64)


def _checked_targets(data: Dataset, rows: int) -> np.ndarray:
    targets = np.asarray(data.targets)
    where = f"{data.name}: {TARGET}"
    if targets.dtype.kind not in "fiub" or targets.ndim < 1:
        raise LabelMismatch(f"{where} must be numbers of shape (rows, …), not {targets.dtype} {targets.shape}")
    if len(targets) != rows:
        raise LabelMismatch(f"{where} has {len(targets)} entries for {rows} rows; each row needs one")
    _refuse_not_finite(targets, where)
    return targets.astype(np.float64)


def _checked_column(data: Dataset, name: str, column: np.ndarray, rows: int) -> np.ndarray:
    array = np.asarray(column)
    if array.ndim != 1 or array.dtype.kind not in "iubU" or len(array) != rows:
        raise LabelMismatch(
            f"{data.name}: {name} must be whole numbers or texts of shape ({rows},), not {array.dtype} {array.shape}"
        )
    return array
