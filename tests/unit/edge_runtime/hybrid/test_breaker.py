"""The breaker opens on failures in the window, probes one call at a time, and waits longer after each failed probe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import ConfigurationError
from edge_runtime.hybrid.breaker import MAX_BACKOFF, Breaker, BreakerPolicy, BreakerState

POLICY = BreakerPolicy(window_s=10.0, minimum_calls=4, failure_share=0.5, open_s=2.0)


def call(breaker: Breaker, now: float, *, ok: bool) -> bool:
    ticket = breaker.allow(now)
    if ticket is None:
        return False
    breaker.record(ticket, now, ok=ok)
    return True


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(4):
        assert call(breaker, at, ok=False)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_it_stays_closed_while_calls_are_too_few() -> None:
    breaker = Breaker(POLICY)
    for _ in range(3):
        call(breaker, 0.0, ok=False)
    assert breaker.state is BreakerState.CLOSED


def test_it_opens_at_the_stated_share_of_failures() -> None:
    breaker = Breaker(POLICY)
    for ok in (True, True, False):
        call(breaker, 0.0, ok=ok)
    assert breaker.state is BreakerState.CLOSED
    call(breaker, 0.0, ok=False)
    assert breaker.state is BreakerState.OPEN


def test_failures_older_than_the_window_are_forgotten() -> None:
    breaker = Breaker(POLICY)
    for now in (0.0, 0.1, 0.2, 10.5):
        call(breaker, now, ok=False)
    assert breaker.state is BreakerState.CLOSED


def test_an_open_breaker_refuses_until_its_time_then_lets_one_probe_through() -> None:
    breaker = opened()
    assert breaker.allow(1.9) is None
    probe = breaker.allow(2.0)
    assert probe is not None
    assert breaker.allow(2.1) is None
    breaker.record(probe, 2.2, ok=True)
    assert breaker.state is BreakerState.CLOSED


def test_each_failed_probe_doubles_the_wait_up_to_a_limit() -> None:
    breaker, now, waits = opened(), 0.0, []
    for _ in range(6):
        start = now
        while not call(breaker, now, ok=False):
            now += 0.5
        waits.append(now - start)
    assert waits == [2.0, 4.0, 8.0, 16.0, 16.0, 16.0]
    assert max(waits) == POLICY.open_s * MAX_BACKOFF


def test_a_late_result_of_an_earlier_call_is_not_taken_for_the_probe() -> None:
    breaker = Breaker(POLICY)
    late = breaker.allow(0.0)
    assert late is not None
    for _ in range(4):
        call(breaker, 0.0, ok=False)
    assert breaker.allow(2.0) is not None
    breaker.record(late, 2.1, ok=True)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_probe_that_never_comes_back_does_not_shut_the_endpoint_out() -> None:
    breaker = opened()
    assert breaker.allow(2.0) is not None
    assert breaker.allow(3.9) is None
    assert breaker.allow(4.1) is not None


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=60))
def test_it_never_refuses_a_healthy_endpoint_for_good(history: list[tuple[float, bool]]) -> None:
    breaker, now = Breaker(POLICY), 0.0
    for step, ok in history:
        now += step
        call(breaker, now, ok=ok)
    now += POLICY.open_s * MAX_BACKOFF
    assert call(breaker, now, ok=True)
    assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize(
    "wrong", [{"window_s": 0}, {"open_s": float("inf")}, {"minimum_calls": 0}, {"failure_share": 1.5}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]
