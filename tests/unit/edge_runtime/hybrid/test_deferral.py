"""The score is the maximum softmax probability at a temperature; NaN never becomes a confidence."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.hybrid.deferral import deferred, score

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
