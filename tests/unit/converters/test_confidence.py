from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters import confidence_of, fit_temperature, threshold_for_deferral
from converters.errors import InvalidRequest, TooLittleData


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
