from __future__ import annotations

import pytest

from converters.distilling.comparing import T_95, compare, spread


def test_spread_is_mean_sample_deviation_and_range() -> None:
    found = spread([0.90, 0.92, 0.94])
    assert (found.mean, found.minimum, found.maximum) == (pytest.approx(0.92), 0.90, 0.94)
    assert found.std == pytest.approx(0.02)
    assert spread([0.5]).std is None


def test_a_gain_above_its_interval_paid() -> None:
    found = compare([0.80, 0.81, 0.82, 0.80, 0.81], [0.83, 0.84, 0.84, 0.83, 0.85])
    assert found.verdict == "paid"
    assert found.mean == pytest.approx(3.0)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.mean < found.high
    assert (found.better, found.worse) == (5, 0)
    assert found.sign_p == pytest.approx(2 / 32)
    assert found.sentence.startswith("paid: +3.0 points")
    assert "better in 5 of 5" in found.sentence


def test_a_gain_inside_the_spread_did_not_pay_and_the_sentence_says_so() -> None:
    found = compare([0.80, 0.82, 0.81, 0.80], [0.81, 0.81, 0.82, 0.798])
    assert found.verdict == "did not pay"
    assert found.sentence.startswith("did not pay: +0.2 points, spread 1.0")


def test_a_loss_below_its_interval_did_harm() -> None:
    found = compare([0.9, 0.9, 0.9], [0.87, 0.88, 0.87])
    assert found.verdict == "did harm"
    assert found.mean < 0


def test_one_seed_says_nothing() -> None:
    found = compare([0.8], [0.9])
    assert found.verdict == "unknown"
    assert found.low is None
    assert "ask for several" in found.sentence


def test_equal_runs_did_not_pay() -> None:
    found = compare([0.8, 0.8], [0.8, 0.8])
    assert (found.verdict, found.sign_p, found.mean) == ("did not pay", None, 0.0)


def test_the_interval_is_students_for_few_seeds() -> None:
    found = compare([0.0, 0.0], [0.01, 0.03])  # differences 1 and 3: mean 2, std sqrt 2, standard error 1
    assert found.high == pytest.approx(2 + 12.706)
    assert list(T_95) == sorted(T_95, reverse=True)
    assert len(T_95) == 30
