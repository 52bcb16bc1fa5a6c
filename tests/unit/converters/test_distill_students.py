from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.distilling.choosing import Budget, _parameters, choose_student
from converters.distilling.family import family_of, members
from converters.distilling.latency import Latency
from converters.distilling.macs import count_macs
from converters.distilling.students import check_student, given_student, student_from
from converters.errors import InvalidRequest, UnsupportedModel
from devices.profiles import load_profile
from tests.unit.converters.conftest import LENGTH, small_net, windows

VECTORS = {"row": np.random.default_rng(1).normal(5, 3, (40, 6)).astype(np.float32)}
IMAGES = {"image": np.random.default_rng(1).normal(0, 1, (8, 8, 8, 1)).astype(np.float32)}
WINDOWS = {"window": windows(20, 1)[0]}


def flat(model: Any) -> np.ndarray:
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


def test_a_given_student_is_drawn_anew_for_every_seed_but_keeps_its_normalization(keras: Any, student: Any) -> None:
    fresh = given_student(student)
    first, again, other = fresh.build(1), fresh.build(1), fresh.build(2)
    np.testing.assert_array_equal(flat(first), flat(again))
    assert not np.array_equal(flat(first), flat(other))
    assert not np.array_equal(flat(first), flat(student))
    kept = [layer for layer in student.layers if isinstance(layer, keras.layers.Normalization)]
    new = [layer for layer in first.layers if isinstance(layer, keras.layers.Normalization)]
    assert kept
    for old, copy in zip(kept, new, strict=True):
        np.testing.assert_array_equal(old.mean, copy.mean)
        np.testing.assert_array_equal(old.variance, copy.variance)


def test_a_builder_is_called_after_seeding(keras: Any) -> None:
    made = student_from(lambda: small_net(keras), name="mine")
    assert made.name == "mine"
    np.testing.assert_array_equal(flat(made.build(3)), flat(made.build(3)))


def test_a_student_with_a_softmax_or_the_wrong_number_of_outputs_is_refused(keras: Any) -> None:
    row = keras.Input((4,))
    with pytest.raises(UnsupportedModel, match="ends in a softmax"):
        check_student(keras.Model(row, keras.layers.Dense(3, activation="softmax")(row)), outputs=3, regression=False)
    with pytest.raises(UnsupportedModel, match=r"the teacher gives \(batch, 4\)"):
        check_student(keras.Model(row, keras.layers.Dense(3)(row)), outputs=4, regression=False)


def test_multiply_adds_are_those_of_the_layers_written_out(keras: Any) -> None:
    # Conv1D 3→16 k5 over 16 steps, SeparableConv1D 16→24 k3, DepthwiseConv1D k3, Conv1D 24→24, Dense 24→3.
    steps = LENGTH // 2
    wanted = steps * (5 * 3 * 16) + steps * (3 * 16 + 16 * 24) + steps * (3 * 24) + steps * (24 * 24) + 24 * 3
    assert count_macs(small_net(keras)) == wanted
    window = keras.Input((8, 3))
    with pytest.raises(UnsupportedModel, match="LSTM, whose multiply-adds are not counted"):
        count_macs(keras.Model(window, keras.layers.Dense(2)(keras.layers.LSTM(4)(window))))


@pytest.mark.parametrize("inputs", [VECTORS, WINDOWS, IMAGES], ids=["mlp", "conv1d", "conv2d"])
def test_every_family_counts_its_parameters_without_building(keras: Any, inputs: dict[str, np.ndarray]) -> None:
    chosen = [member for member in members(inputs, 3) if member.width == 8 and member.depth in (1, 4)]
    assert len(chosen) == 2
    for member in chosen:
        model = member.build(0)
        assert model.count_params() == _parameters(member)
        check_student(model, outputs=3, regression=False)
        assert model.inputs[0].name == next(iter(inputs))
        assert np.isfinite(np.asarray(model(next(iter(inputs.values()))))).all()


def test_the_largest_student_within_the_budget_is_chosen(keras: Any) -> None:
    student = choose_student(VECTORS, 3, Budget(max_parameters=500))
    assert student.name == "mlp-w48-d1"
    assert student.build(0).count_params() <= 500
    with pytest.raises(InvalidRequest, match="smallest student of the family, mlp-w4-d1, has 56 parameters"):
        choose_student(VECTORS, 3, Budget(max_parameters=10))


class Ruler(Budget):
    """A budget whose latency is the parameters, so that the search can be seen."""

    def latency(self, model: Any) -> Latency:
        return Latency(ms=float(model.count_params()), how="measured", method="counted")


def test_the_slowest_student_within_a_latency_is_chosen(keras: Any) -> None:
    by_latency = choose_student(VECTORS, 3, Ruler(max_latency_ms=500.0))
    assert by_latency.name == choose_student(VECTORS, 3, Budget(max_parameters=500)).name
    with pytest.raises(InvalidRequest, match="takes 56 ms, the budget is 1 ms"):
        choose_student(VECTORS, 3, Ruler(max_latency_ms=1.0))


def test_a_latency_for_a_device_is_estimated_and_says_so(keras: Any) -> None:
    budget = Budget(max_latency_ms=1.0, profile=load_profile("raspberry-pi-4b-4gb"))
    model = choose_student(IMAGES, 3, budget).build(0)
    found = budget.latency(model)
    assert found.how == "estimated"
    assert found.ms <= 1.0
    assert "not measured" in found.method
    with pytest.raises(InvalidRequest, match="nobody published a latency for Raspberry Pi Zero 2 W"):
        choose_student(VECTORS, 3, Budget(max_latency_ms=1.0, profile=load_profile("raspberry-pi-zero-2-w")))


def test_a_latency_without_a_device_is_measured_on_this_machine(keras: Any) -> None:
    found = Budget(max_latency_ms=1.0).latency(choose_student(VECTORS, 3, Budget(max_parameters=500)).build(0))
    assert found.how == "measured"
    assert found.ms > 0
    assert "LiteRT, fp32, 1 thread" in found.method


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(), "needs a budget"),
        (Budget(max_parameters=0), "1 or more"),
        (Budget(max_latency_ms=0.0), "above 0"),
        (Budget(max_parameters=9, profile=load_profile("nrf52840-dk")), "too small"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(budget: Budget, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        budget.check()


def test_rows_that_no_family_takes_are_refused() -> None:
    with pytest.raises(UnsupportedModel, match="--student"):
        family_of((2, 3, 4, 5))
    with pytest.raises(InvalidRequest, match="mlp does"):
        family_of((6,), "conv2d")
    with pytest.raises(UnsupportedModel, match="the data has image, row"):
        next(members(VECTORS | IMAGES, 3))


def test_a_file_that_is_no_model_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "s.keras").write_text("hello")
    with pytest.raises(Exception, match=r"s\.keras"):
        given_student(tmp_path / "s.keras")
