"""What a caller passes is refused by name, routed or taken; never converted silently."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.bundle import TensorSpec
from edge_runtime.errors import NonFiniteInput, WrongDtype, WrongInputs, WrongShape
from edge_runtime.inputs import InputCheck
from tests.support import tiny

CHECK = InputCheck((tiny.WINDOW,), (tiny.CONTEXT,))
WINDOW = tiny.windows(1)[0]
CONTEXT = tiny.windows(5)


def test_one_example_may_leave_out_the_batch_axis() -> None:
    for window in (WINDOW, WINDOW[np.newaxis]):
        checked = CHECK.example({"window": window})
        assert checked.local["window"].shape == (1, 20, 3)
        assert checked.cloud is None
        assert checked.bytes == 240


def test_cloud_inputs_are_optional_and_all_or_none() -> None:
    checked = CHECK.example({"window": WINDOW, "context": CONTEXT})
    assert checked.cloud is not None
    assert list(checked.cloud) == ["context"]
    assert list(checked.local) == ["window"]


def test_a_cloud_model_may_take_the_local_input_too() -> None:
    check = InputCheck((tiny.WINDOW,), (tiny.WINDOW, tiny.CONTEXT))
    assert check.example({"window": WINDOW}).cloud is None
    cloud = check.example({"window": WINDOW, "context": CONTEXT}).cloud
    assert cloud is not None
    assert list(cloud) == ["window", "context"]


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ({}, WrongInputs, "'window' is missing"),
        ({"window": None}, WrongInputs, "'window' is missing"),
        ({"windw": WINDOW}, WrongInputs, "'window' is missing"),
        ({"window": WINDOW, "more": WINDOW}, WrongInputs, "more"),
        ([WINDOW], WrongInputs, "mapping"),
        ({"window": WINDOW[:19]}, WrongShape, r"\(19, 3\)"),
        ({"window": tiny.windows(2)}, WrongShape, r"\(2, 20, 3\)"),
        ({"window": WINDOW.astype(np.float64)}, WrongDtype, "astype"),
        ({"window": WINDOW.astype(">f4")}, WrongDtype, "astype"),
        ({"window": WINDOW.tolist()}, WrongDtype, "asarray"),
        ({"window": np.float32(1)}, WrongDtype, "asarray"),
        ({"window": WINDOW, "context": CONTEXT[0]}, WrongShape, "context"),
        ({"window": WINDOW, "context": CONTEXT[:0]}, WrongShape, "context"),
    ],
)
def test_wrong_inputs_are_refused_with_what_to_do(inputs: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        CHECK.example(inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_values_that_are_not_finite_are_refused_anywhere(bad: float, ranged: bool, dtype: str) -> None:
    spec = TensorSpec(name="x", dtype=dtype, shape=("batch", 50), range=(-1.0, 1.0) if ranged else None)
    for at in (0, 25, 49):
        array = np.zeros(50, dtype)
        array[at] = bad
        with pytest.raises(NonFiniteInput):
            InputCheck((spec,)).example({"x": array})


def test_large_finite_values_are_not_mistaken_for_infinity() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
    array = np.full(4, 3e38, np.float32)
    assert InputCheck((spec,)).example({"x": array}).local["x"].shape == (1, 4)


def test_values_outside_what_training_saw_are_named() -> None:
    window = WINDOW.copy()
    window[3, 1] = 8.5
    assert CHECK.example({"window": window}).out_of_range == ("window",)
    window[3, 1] = -8.5
    assert CHECK.example({"window": window}).out_of_range == ("window",)
    window[3, 1] = 8.0
    assert CHECK.example({"window": window}).out_of_range == ()


def test_integer_inputs_have_ranges_too() -> None:
    spec = TensorSpec(name="x", dtype="int32", shape=(3,), range=(0, 9))
    check = InputCheck((spec,))
    assert check.example({"x": np.array([0, 5, 9], np.int32)}).out_of_range == ()
    assert check.example({"x": np.array([0, 5, 10], np.int32)}).out_of_range == ("x",)


@given(hnp.arrays(np.float32, (20, 3), elements=st.floats(width=32)))
def test_an_example_is_accepted_exactly_when_it_is_finite(window: np.ndarray) -> None:
    try:
        checked = CHECK.example({"window": window})
    except NonFiniteInput:
        assert not np.isfinite(window).all()
    else:
        assert np.isfinite(window).all()
        assert bool(checked.out_of_range) == bool((np.abs(window) > 8).any())
