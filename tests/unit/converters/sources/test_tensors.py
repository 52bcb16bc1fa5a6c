from __future__ import annotations

import numpy as np
import pytest

from converters.errors import UnsupportedModel
from converters.sources.base import is_batched
from converters.sources.tensors import CHUNK, RawTensor, rows_of_a_call, run_rows, sign


def tensor(name: str, *sizes: int | str | None, dtype: str = "float32") -> RawTensor:
    return RawTensor(name=name, dtype=dtype, sizes=sizes)


def test_dynamic_first_axes_are_the_batch_whatever_they_are_called() -> None:
    signed = sign("m", [tensor("a", "unk__1", 3), tensor("b", None, "length")], [tensor("y", "n", 2)])
    assert [spec.shape for spec in (*signed.inputs, *signed.outputs)] == [
        ("batch", 3),
        ("batch", "length"),
        ("batch", 2),
    ]
    assert not signed.one_at_a_time


def test_first_axes_of_one_everywhere_are_a_batch_that_is_fed_row_by_row() -> None:
    signed = sign("m", [tensor("a", 1, 3)], [tensor("y", 1, 2)])
    assert signed.inputs[0].shape == ("batch", 3)
    assert signed.one_at_a_time
    seen: list[tuple[int, ...]] = []

    def call(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        seen.append(arrays["a"].shape)
        return [arrays["a"][:, :2] * 2]

    rows = np.arange(12.0).reshape(4, 3)
    answers = run_rows(call, signed, {"a": rows})
    assert seen == [(1, 3)] * 4
    np.testing.assert_array_equal(answers["y"], rows[:, :2] * 2)


@pytest.mark.parametrize(
    "tensors",
    [
        ([tensor("a", None, 3), tensor("state", 2, None, 8)], [tensor("y", None, 1)]),
        ([tensor("a", None, 3), tensor("rate", dtype="int64")], [tensor("y", None, 1)]),
        ([tensor("a", None, 3)], [tensor("y", 1, 4)]),
        ([tensor("a", 1, 3)], [tensor("y", 4)]),
    ],
    ids=["state", "scalar", "pooled", "vector"],
)
def test_where_one_first_axis_is_something_else_a_row_of_data_is_a_whole_input(
    tensors: tuple[list[RawTensor], list[RawTensor]],
) -> None:
    signed = sign("m", *tensors)
    assert not is_batched(signed.inputs)
    assert "batch" not in [size for spec in (*signed.inputs, *signed.outputs) for size in spec.shape]


def test_whole_inputs_are_stacked_and_scalars_stay_arrays() -> None:
    signed = sign("m", [tensor("a", 2, 3), tensor("rate", dtype="int64")], [tensor("y", 3)])

    def call(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert isinstance(arrays["rate"], np.ndarray)
        return [arrays["a"].sum(axis=0) * arrays["rate"]]

    a = np.ones((5, 2, 3))
    assert run_rows(call, signed, {"a": a, "rate": np.arange(5)})["y"].tolist() == [[2.0 * i] * 3 for i in range(5)]


def test_large_data_goes_through_a_dynamic_batch_in_chunks_with_the_models_dtype() -> None:
    signed = sign("m", [tensor("a", None)], [tensor("y", None)])
    sizes: list[int] = []

    def call(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert arrays["a"].dtype == np.float32
        sizes.append(len(arrays["a"]))
        return [arrays["a"]]

    answers = run_rows(call, signed, {"a": np.arange(10)}, chunk=4)
    assert sizes == [4, 4, 2]
    np.testing.assert_array_equal(answers["y"], np.arange(10))


def test_an_axis_in_the_middle_is_never_called_batch() -> None:
    signed = sign("m", [tensor("state", 2, "batch", 8)], [tensor("y", 2, "batch", 8)])
    assert signed.inputs[0].shape == (2, "state_1", 8)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([], [tensor("y", 1)], "no inputs"),
        ([tensor("x", 1)], [], "no outputs"),
        ([tensor("x", 1)], [tensor("x", 1)], "different names"),
        ([tensor("x", 1, dtype="float64")], [tensor("y", 1)], "tensor x is of type float64"),
        ([RawTensor(name="x", dtype="float32", sizes=None)], [tensor("y", 1)], "how many axes tensor x has"),
    ],
)
def test_what_a_manifest_cannot_state_is_refused_by_name(
    inputs: list[RawTensor], outputs: list[RawTensor], message: str
) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        sign("m", inputs, outputs)


def test_a_call_has_fewer_rows_where_they_are_large() -> None:
    assert rows_of_a_call({"x": np.zeros((1000, 8))}) == CHUNK
    assert rows_of_a_call({"image": np.zeros((1, 3, 224, 224), np.float32)}) == 27
    assert rows_of_a_call({"x": np.broadcast_to(np.zeros(()), (3, 1 << 23))}) == 1
