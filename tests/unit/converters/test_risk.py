"""The tests behind a threshold: exact binomial p-values, in an order that the tested rows do not choose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from converters.risk import candidates, fixed_sequence, risk_bound, risk_p_values, rows_needed


@given(st.integers(1, 300), st.floats(0.01, 0.9), st.data())
def test_p_values_and_bounds_are_those_of_an_exact_binomial_test(n: int, target: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    oracle = binomtest(k, n, target, alternative="less")
    assert risk_p_values(np.array([k]), np.array([n]), target)[0] == pytest.approx(oracle.pvalue, abs=1e-9)
    assert risk_bound(k, n, 0.1) == pytest.approx(oracle.proportion_ci(0.9, "exact").high, abs=1e-6)


def test_nothing_answered_shows_nothing() -> None:
    assert risk_p_values(np.array([0]), np.array([0]), 0.05)[0] == 1.0
    assert risk_bound(0, 0, 0.1) == 1.0


@given(st.floats(0.005, 0.5), st.floats(0.01, 0.3))
def test_so_many_rows_without_a_mistake_show_the_target_and_one_fewer_does_not(target: float, delta: float) -> None:
    n = rows_needed(target, delta)
    assert (1 - target) ** n <= delta * (1 + 1e-9)
    assert (1 - target) ** (n - 1) > delta * (1 - 1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400))
def test_thresholds_fall_to_zero_and_lie_between_values(values: list[float]) -> None:
    grid = candidates(np.array(values))
    assert grid[-1] == 0.0
    assert (np.diff(grid) < 0).all() or len(set(values)) > len(set(np.float32(values)))
    assert len(grid) <= 101
    assert all(min(values) <= threshold <= max(values) for threshold in grid[:-1])


def counts(risks: list[float], rows: int) -> tuple[np.ndarray, np.ndarray]:
    answered = np.linspace(rows / len(risks), rows, len(risks)).round().astype(int)
    return np.round(np.array(risks) * answered).astype(int), answered


def test_the_sequence_goes_on_to_the_last_threshold_that_passes() -> None:
    risks = [0.0, 0.0, 0.01, 0.02, 0.1, 0.2]
    assert fixed_sequence(counts(risks, 300), counts(risks, 1200), 0.05, 0.1) == 3


def test_the_sequence_stops_at_the_first_failure_even_if_a_later_threshold_would_pass() -> None:
    preview = counts([0.0] * 10, 300)
    tested = counts([*[0.0] * 8, 0.2, 0.0], 1200)
    assert fixed_sequence(preview, tested, 0.05, 0.1) == 7


def test_no_threshold_passes_where_the_first_one_fails() -> None:
    assert fixed_sequence(counts([0.0, 0.0], 300), counts([0.3, 0.3], 1200), 0.05, 0.1) is None
    assert fixed_sequence(counts([0.5, 0.5], 300), counts([0.3, 0.3], 1200), 0.05, 0.1) is None


def test_thresholds_with_too_few_answers_to_show_anything_are_not_where_the_tests_start() -> None:
    preview, tested = counts([0.0] * 60, 300), counts([0.0] * 60, 1200)
    assert tested[1][0] < rows_needed(0.05, 0.1)
    assert fixed_sequence(preview, tested, 0.05, 0.1) == 59
