"""The score is the maximum softmax probability at a temperature; NaN never becomes a confidence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.hybrid.deferral import deferred, score, score_probabilities

finite = st.floats(-1e6, 1e6, width=32)


@given(st.lists(finite, min_size=1, max_size=40), st.floats(0.05, 20))
def test_it_agrees_with_numpy(logits: list[float], temperature: float) -> None:
    scored = score(logits, temperature)
    scaled = np.array(logits) / temperature
    softmax = np.exp(scaled - scaled.max())
    softmax /= softmax.sum()
    assert scored is not None
    assert scored[0] == int(np.argmax(logits))
    assert scored[1] == pytest.approx(float(softmax.max()), rel=1e-9)


@given(st.lists(finite, max_size=10), st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 10))
def test_a_value_that_is_not_finite_gives_no_score(logits: list[float], bad: float, at: int) -> None:
    logits.insert(at, bad)
    assert score(logits) is None


def test_opposite_infinities_do_not_cancel() -> None:
    assert score([math.inf, -math.inf, 1.0]) is None
    assert score([]) is None


@given(st.lists(st.floats(1e-30, 1), min_size=1, max_size=40), st.floats(0.05, 20))
def test_probabilities_score_as_their_logarithms(probabilities: list[float], temperature: float) -> None:
    scored, same = (
        score_probabilities(probabilities, temperature),
        score([math.log(p) for p in probabilities], temperature),
    )
    assert scored is not None
    assert same is not None
    assert scored[0] == probabilities.index(max(probabilities))
    assert scored[1] == pytest.approx(same[1], rel=1e-9)


def test_probabilities_of_zero_or_less_add_nothing() -> None:
    assert score_probabilities([0.5, 0.0, -0.25, 0.5], 1.0) == (0, 0.5)
    assert score_probabilities([-1.0, 0.0, 0.0], 1.0) == (1, 0.0)
    assert score_probabilities([], 1.0) is None
    assert score_probabilities([0.5, math.nan], 1.0) is None
    assert score_probabilities([math.inf, -math.inf], 1.0) is None


def test_probabilities_that_do_not_sum_to_one_are_normalized() -> None:
    assert score_probabilities([3.0, 1.0]) == (0, 0.75)
    assert score_probabilities([0.9, 0.1], 0.5) == (0, pytest.approx(0.81 / 0.82))


def test_log_probabilities_score_as_the_probabilities_themselves() -> None:
    scored = score([math.log(0.7), math.log(0.2), math.log(0.1)])
    assert scored == (0, pytest.approx(0.7))


@pytest.mark.parametrize(
    ("confidence", "threshold", "expected"),
    [(0.5, 0.6, True), (0.6, 0.6, False), (0.7, 0.6, False), (None, 0.6, False), (0.1, None, False)],
)
def test_only_a_confidence_below_the_threshold_defers(
    confidence: float | None, threshold: float | None, expected: bool
) -> None:
    assert deferred(confidence, threshold) is expected
