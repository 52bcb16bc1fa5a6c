from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters import Dataset, load_dataset
from converters.data import check_dataset
from converters.errors import (
    DataUnreadable,
    LabelMismatch,
    NonFiniteData,
    TooLittleData,
    WrongDtype,
    WrongNames,
    WrongShape,
)
from edge_runtime.bundle import TensorSpec

INPUTS = (TensorSpec(name="window", dtype="float32", shape=("batch", 4, 2)),)
X = np.zeros((6, 4, 2), np.float32)
Y = np.arange(6) % 3


def given(x: Any = X, y: Any = Y, **more: Any) -> Dataset:
    return Dataset(name="e.npz", inputs={"window": x, **more}, labels=y)


def poisoned(value: float) -> np.ndarray:
    x = X.copy()
    x[3, 1, 1] = value
    return x


BAD = [
    (Dataset(name="e.npz", inputs={"wimdow": X}), WrongNames, "missing: window; not an input: wimdow"),
    (given(other=X), WrongNames, "not an input: other"),
    (given(X[0]), WrongShape, r"has shape \(4, 2\), the model takes \(rows, 4, 2\)"),
    (given(X[:, :3]), WrongShape, r"has shape \(6, 3, 2\)"),
    (given(X.astype("U1")), WrongDtype, "dtype <U1"),
    (given(X.astype(np.complex64)), WrongDtype, "complex64"),
    (given(poisoned(np.nan)), NonFiniteData, r"NaN or infinity, first at \(3, 1, 1\), in 1 of 6 rows; drop these rows"),
    (given(poisoned(np.inf)), NonFiniteData, "NaN or infinity"),
    (given(y=Y[:5]), LabelMismatch, "5 entries for 6 rows"),
    (given(y=Y + 1), LabelMismatch, "range from 1 to 3, the model's classes are 0 to 2; .* give label - 1"),
    (given(y=Y - 1), LabelMismatch, "range from -1 to 1, .* 2 of 6 rows are of none"),
    (given(y=Y.astype(float)), LabelMismatch, r"whole numbers .* give label\.astype\(np\.int64\)"),
    (given(y=Y[:, None]), LabelMismatch, r"whole numbers .* give label\.ravel\(\)"),
    (given(y=Y + 0.5), LabelMismatch, "whole numbers .* values to be predicted go under the name target"),
    (given(y=np.eye(3)[Y]), LabelMismatch, r"they are one-hot, so give label\.argmax\(axis=1\)"),
    (given(y=Y.astype("U1")), LabelMismatch, "the place of each text in the order of the model's outputs"),
    (given(y=np.int64(1)), LabelMismatch, "whole numbers"),
    (given(X[0]), WrongShape, r"if this is one row, give array\[np\.newaxis\]"),
    (given(X.swapaxes(1, 2)), WrongShape, r"in another order: array\.transpose\(0, 2, 1\)"),
    (given(y=None), LabelMismatch, "no array named 'label'"),
    (given(X[:3], Y[:3]), TooLittleData, "3 rows, at least 4"),
]


@pytest.mark.parametrize(
    ("data", "error", "message"), BAD, ids=[f"{e.__name__}-{i}" for i, (_, e, _) in enumerate(BAD)]
)
def test_bad_data_is_refused_with_the_file_and_the_key(data: Dataset, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        check_dataset(data, INPUTS, classes=3, minimum=4, labelled=True)
    assert str(raised.value).startswith("e.npz: ")


def test_whole_floats_for_a_model_of_whole_numbers_come_with_the_cast() -> None:
    ids = (TensorSpec(name="ids", dtype="int64", shape=("batch", 4)),)
    for values, said in (
        (np.ones((6, 4)), r"give \.astype\('int64'\)"),
        (np.full((6, 4), 0.5), "not all values are whole"),
    ):
        with pytest.raises(WrongDtype, match=said):
            check_dataset(Dataset(name="e.npz", inputs={"ids": values}), ids)


@pytest.mark.parametrize("name", ["label", "target", "group", "segment.time"])
def test_an_input_called_as_what_is_said_of_rows_has_to_be_renamed(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", **{name: X, "window": X})
    inputs = (*INPUTS, TensorSpec(name=name, dtype="float32", shape=("batch", 4, 2)))
    with pytest.raises(WrongNames, match=rf"an input called {name}, .* rename the input in the model"):
        check_dataset(load_dataset(tmp_path / "e.npz"), inputs)


@pytest.mark.parametrize("name", ["label", "group"])
def test_a_segment_that_would_be_mistaken_for_a_built_in_one_is_refused(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", **{"window": X, "label": Y, f"segment.{name}": Y})
    with pytest.raises(WrongNames, match=rf"segment\.{name} would be mistaken; give this column another"):
        load_dataset(tmp_path / "e.npz")


def test_good_data_comes_back_in_the_models_dtype() -> None:
    checked = check_dataset(given(X.astype(np.float64)), INPUTS, classes=3, minimum=6, labelled=True)
    assert checked.inputs["window"].dtype == np.float32
    assert checked.labels is not None
    assert checked.labels.dtype == np.int64


def test_rows_of_a_model_that_takes_whole_inputs_have_one_axis_more() -> None:
    context = (TensorSpec(name="context", dtype="float32", shape=("n", 4, 2)),)
    data = Dataset(name="e", inputs={"context": np.zeros((5, 8, 4, 2))})
    assert check_dataset(data, context).rows == 5
    with pytest.raises(WrongShape, match=r"takes \(rows, n, 4, 2\)"):
        check_dataset(Dataset(name="e", inputs={"context": X}), context)


def test_a_file_reads_back_and_labels_are_set_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", window=X, label=Y)
    data = load_dataset(tmp_path / "e.npz")
    assert list(data.inputs) == ["window"]
    assert data.labels is not None
    assert data.name.endswith("e.npz")


def test_files_that_are_not_plain_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", window=np.array([{"a": 1}], dtype=object))
    np.save(tmp_path / "one.npy", X)
    np.savez(tmp_path / "labels.npz", label=Y)
    (tmp_path / "text.npz").write_text("hello")
    np.savez_compressed(tmp_path / "whole.npz", window=np.arange(4000.0))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:500])
    for name in ("objects.npz", "one.npy", "labels.npz", "text.npz", "cut.npz", "none.npz"):
        with pytest.raises(DataUnreadable, match=name):
            load_dataset(tmp_path / name)


def test_the_digest_depends_on_values_names_and_labels_alone() -> None:
    same = Dataset(name="other", inputs={"window": X.copy()}, labels=Y.copy())
    assert same.sha256 == given().sha256
    for different in (
        given(X + 1),
        given(y=None),
        given(X.astype(np.float64)),
        Dataset(name="e", inputs={"w": X}, labels=Y),
    ):
        assert different.sha256 != given().sha256


def test_taking_fewer_rows_spreads_them_evenly_and_keeps_labels_with_them() -> None:
    data = Dataset(name="e", inputs={"x": np.arange(100.0)[:, None]}, labels=np.arange(100))
    few = data.take(5)
    assert few.labels is not None
    assert few.labels.tolist() == [0, 25, 50, 74, 99]
    np.testing.assert_array_equal(few.inputs["x"][:, 0], few.labels)
    assert data.take(1000) is data
