"""Confidences agree with the device's, temperatures are found, and a threshold keeps the risk it was chosen for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.confidence import choose_confidence, confidence_of, fit_temperature, threshold_for_deferral
from converters.errors import InvalidRequest, LabelMismatch, TooLittleData, WrongShape
from edge_runtime.hybrid.deferral import score, score_probabilities


def drawn(temperature: float, rows: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels were drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, 5))
    weights = np.exp(logits / temperature)
    weights /= weights.sum(axis=1, keepdims=True)
    labels = (weights.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5, 7.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = drawn(1.7, rows=300)

    def loss(temperature: float) -> float:
        z = logits / temperature
        return float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(300), labels]).mean())

    best = fit_temperature(logits, labels)
    assert all(loss(best) <= loss(best * factor) + 1e-12 for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


def test_a_split_without_mistakes_says_nothing() -> None:
    logits = np.eye(3) * 5
    assert fit_temperature(logits, np.arange(3)) == 1.0


def test_hopeless_and_nearly_perfect_splits_stay_within_limits() -> None:
    logits, _ = drawn(1.0)
    assert fit_temperature(logits, np.random.default_rng(1).integers(0, 5, len(logits))) == 100.0
    right = logits.argmax(axis=1)
    right[0] = (right[0] + 1) % 5
    assert 0.2 <= fit_temperature(logits * 50, right) <= 100.0


def test_rows_that_are_not_finite_do_not_count() -> None:
    logits, labels = drawn(2.0, rows=500)
    broken = np.vstack([logits, [[np.nan] * 5, [np.inf] * 5]])
    assert fit_temperature(broken, np.append(labels, [0, 1])) == fit_temperature(logits, labels)
    with pytest.raises(TooLittleData):
        fit_temperature(np.full((5, 3), np.nan), np.zeros(5, int))


def test_confidence_is_the_largest_softmax_probability_and_zero_where_not_finite() -> None:
    logits = np.array([[0.0, np.log(3)], [1000.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
    np.testing.assert_allclose(confidence_of(logits, 1.0), [0.75, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(confidence_of(logits[:1], 0.5), [0.9])


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=200, unique=True),
    st.floats(0, 1),
)
def test_the_share_asked_for_lies_below_the_threshold(confidences: list[float], share: float) -> None:
    below = np.mean(np.array(confidences) < threshold_for_deferral(np.array(confidences), share))
    assert abs(below - share) <= 1 / len(confidences)


def test_equal_confidences_are_all_kept_or_all_deferred() -> None:
    confidences = np.array([0.5] * 6 + [0.9] * 4)
    assert np.mean(confidences < threshold_for_deferral(confidences, 0.3)) == 0.0
    assert np.mean(confidences < threshold_for_deferral(confidences, 0.6)) == 0.6


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        threshold_for_deferral(np.array([0.5]), 1.2)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=9), st.floats(0.2, 20))
def test_a_confidence_is_what_the_device_computes(values: list[float], temperature: float) -> None:
    on_device = score(values, temperature)
    assert on_device is not None
    assert confidence_of(np.array([values]), temperature)[0] == pytest.approx(on_device[1], rel=1e-9)
    on_device = score_probabilities(values, temperature)
    assert on_device is not None
    ours = confidence_of(np.array([values]), temperature, score="probability")[0]
    assert ours == pytest.approx(on_device[1], rel=1e-9)


def test_probabilities_have_the_temperature_and_confidence_of_their_logits() -> None:
    logits, labels = drawn(2.5, rows=800)
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    probabilities = np.maximum(probabilities, 1e-6)
    temperature = fit_temperature(probabilities, labels, score="probability")
    assert temperature == pytest.approx(fit_temperature(logits, labels), rel=0.02)
    np.testing.assert_allclose(
        confidence_of(probabilities, temperature, score="probability"), confidence_of(logits, temperature), atol=5e-3
    )


class Pool:
    """A population of classified rows, the model over-confident, to draw calibration splits from."""

    def __init__(self, spread: float, rows: int = 20_000) -> None:
        logits, self.labels = drawn(3.0 / spread, rows=rows, seed=7)
        self.outputs = (logits * 2).astype(np.float32)
        self.wrong = self.outputs.argmax(axis=1) != self.labels

    def risk(self, temperature: float, threshold: float) -> float:
        answered = confidence_of(self.outputs, temperature) >= threshold
        return float(self.wrong[answered].mean()) if answered.any() else 0.0

    def violations(self, target: float, rows: int, splits: int) -> tuple[float, float]:
        """Share of resplits whose threshold has a risk above ``target`` in the whole pool; mean coverage."""
        above, coverage = 0, 0.0
        for seed in range(splits):
            split = np.random.default_rng(seed).choice(len(self.labels), rows, replace=False)
            choice = choose_confidence(self.outputs[split], self.labels[split], target_risk=target, seed=seed)
            above += choice.target_risk is not None and self.risk(choice.temperature, choice.threshold) > target
            coverage += choice.coverage / splits
        return above / splits, coverage


def test_over_resplits_the_risk_of_the_pool_is_above_the_target_no_more_often_than_promised() -> None:
    above, coverage = Pool(6.0).violations(target=0.05, rows=500, splits=250)
    assert above <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 250)
    assert coverage > 0.4


@pytest.mark.long
@pytest.mark.parametrize("spread", [3.0, 6.0, 12.0])
@pytest.mark.parametrize(("target", "rows"), [(0.02, 1000), (0.05, 300), (0.05, 2000), (0.1, 200)])
def test_over_many_resplits_the_promise_holds_for_good_and_bad_models(spread: float, target: float, rows: int) -> None:
    above, _ = Pool(spread).violations(target, rows, splits=500)
    assert above <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 500)


def test_a_choice_says_what_it_rests_on() -> None:
    pool = Pool(6.0)
    choice = choose_confidence(pool.outputs[:1000], pool.labels[:1000], target_risk=0.05, delta=0.1)
    assert (choice.target_risk, choice.delta, choice.reason) == (0.05, 0.1, None)
    assert (choice.rows_temperature, choice.rows_bound) == (200, 800)
    assert choice.empirical_risk is not None
    assert choice.bound is not None
    assert choice.empirical_risk < choice.bound <= 0.05
    assert 0 < choice.threshold < 1
    assert 0.3 < choice.coverage < 1
    assert "2110.01052" in choice.method
    assert "800 rows" in choice.method
    again = choose_confidence(pool.outputs[:1000], pool.labels[:1000], target_risk=0.05, delta=0.1)
    assert again == choice


def test_a_looser_target_answers_more() -> None:
    pool = Pool(6.0)
    coverage = [
        choose_confidence(pool.outputs[:2000], pool.labels[:2000], target_risk=target).coverage
        for target in (0.02, 0.05, 0.1, 0.9)
    ]
    assert coverage == sorted(coverage)
    assert coverage[-1] == 1.0


def test_a_perfect_model_answers_everything() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 100)
    choice = choose_confidence(np.eye(4)[labels] * 3, labels)
    assert (choice.temperature, choice.threshold, choice.coverage, choice.empirical_risk) == (1.0, 0.0, 1.0, 0.0)
    assert choice.bound is not None
    assert choice.bound == pytest.approx(1 - 0.1 ** (1 / 80))


def test_a_model_that_guesses_defers_everything_and_says_why() -> None:
    rng = np.random.default_rng(0)
    choice = choose_confidence(rng.normal(size=(400, 5)), rng.integers(0, 5, 400))
    assert (choice.threshold, choice.target_risk, choice.delta, choice.bound) == (1.0, None, None, None)
    assert choice.coverage == 0.0
    assert choice.empirical_risk is None
    assert choice.reason is not None
    assert "5.0%" in choice.reason


def test_confidences_that_are_all_equal_are_all_trusted_or_none_is() -> None:
    labels = np.random.default_rng(0).integers(0, 2, 500)
    for share, threshold in ((0.01, 0.0), (0.3, 1.0)):
        outputs = np.where(np.eye(2, dtype=bool)[labels], 2.0, 0.0)
        wrong = np.random.default_rng(1).random(500) < share
        outputs[wrong] = outputs[wrong][:, ::-1]
        assert choose_confidence(outputs, labels).threshold == threshold


def test_too_few_rows_are_refused_with_the_number_that_the_target_needs() -> None:
    labels = np.zeros(50, int)
    with pytest.raises(TooLittleData, match=r"40 of 50 rows .* at least 45.* give about 56 rows"):
        choose_confidence(np.eye(3)[labels], labels)
    assert choose_confidence(np.eye(3)[np.zeros(56, int)], np.zeros(56, int)).threshold == 0.0
    with pytest.raises(TooLittleData, match="at least 230"):
        choose_confidence(np.eye(3)[labels], labels, target_risk=0.01)


def test_rows_that_are_not_finite_are_never_answered() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 300)
    outputs = np.eye(3)[labels] * 4
    outputs[::10] = np.nan
    choice = choose_confidence(outputs, labels)
    assert choice.threshold == 0.0
    assert choice.empirical_risk == 0.0
    assert choice.coverage == pytest.approx(0.9, abs=0.03)
    with pytest.raises(TooLittleData):
        choose_confidence(np.full((300, 3), np.inf), labels)


def test_no_group_gives_rows_to_both_parts() -> None:
    logits, labels = drawn(2.0, rows=3000)
    groups = np.repeat(np.array(["a", "b", "c", "d", "e", "f"]), 500)
    for seed in range(5):
        choice = choose_confidence(logits, labels, groups=groups, seed=seed)
        assert (choice.rows_temperature, choice.rows_bound) == (500, 2500)  # whole groups only
        assert choice.reason is not None
        assert "1 + 5 groups" in choice.reason
    one = choose_confidence(logits, labels, groups=np.zeros(3000, int))
    assert one.reason is not None
    assert "one group" in one.reason
    assert one.rows_temperature == 600


def test_with_two_groups_of_any_size_both_parts_have_rows() -> None:
    logits, labels = drawn(0.3, rows=400)
    groups = np.array([0] * 200 + [1] * 200)
    choice = choose_confidence(logits, labels, groups=groups)
    assert (choice.rows_temperature, choice.rows_bound) == (200, 200)


def test_the_target_that_is_not_given_is_half_the_error_and_at_least_five_percent() -> None:
    bad, good = Pool(3.0), Pool(12.0)
    choice = choose_confidence(bad.outputs[:2000], bad.labels[:2000], target_risk=None)
    assert choice.target_risk == pytest.approx(bad.wrong.mean() / 2, abs=0.04)
    assert choose_confidence(good.outputs[:2000], good.labels[:2000], target_risk=None).target_risk == 0.05


def test_what_cannot_be_chosen_from_is_named() -> None:
    labels = np.zeros(100, int)
    outputs = np.eye(3)[labels]
    for wrong in ({"target_risk": 0.0}, {"target_risk": 1.0}, {"delta": 0.0}, {"delta": 1.5}):
        with pytest.raises(InvalidRequest):
            choose_confidence(outputs, labels, **wrong)
    with pytest.raises(WrongShape):
        choose_confidence(outputs[:, 0], labels)
    for bad in (labels[:-1], labels + 3, labels - 1, labels.astype(float)):
        with pytest.raises(LabelMismatch):
            choose_confidence(outputs, bad)
    with pytest.raises(LabelMismatch, match="groups"):
        choose_confidence(outputs, labels, groups=labels[:3])
