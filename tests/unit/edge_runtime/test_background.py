"""The background thread works in rounds, wakes when told, survives every failure, and ends when asked."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable

import pytest

from edge_runtime.background import Background
from edge_runtime.errors import StoreError


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.002)


def test_nothing_happens_before_the_first_wake() -> None:
    done: list[str] = []
    background = Background(lambda: done.append("settle"), [lambda: done.append("chore")], interval_s=60)
    background.start()
    time.sleep(0.03)
    assert done == []
    background.wake()
    until(lambda: done == ["settle", "chore"])
    background.stop()


def test_a_wake_between_rounds_settles_without_the_chores() -> None:
    done: list[str] = []
    background = Background(lambda: done.append("settle"), [lambda: done.append("chore")], interval_s=60)
    background.start()
    background.wake()
    until(lambda: len(done) == 2)
    background.wake()
    until(lambda: len(done) == 3)
    assert done == ["settle", "chore", "settle"]
    background.stop()


def test_chores_come_again_after_the_interval() -> None:
    rounds: list[float] = []
    background = Background(lambda: None, [lambda: rounds.append(time.monotonic())], interval_s=0.05)
    background.start()
    until(lambda: len(rounds) >= 3)
    background.stop()
    assert all(b - a >= 0.04 for a, b in itertools.pairwise(rounds))


@pytest.mark.parametrize("error", [StoreError("disk full"), OSError("gone"), ValueError("a defect")])
def test_a_failing_chore_stops_neither_the_others_nor_the_thread(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()
    fail = [True]

    def broken() -> None:
        if fail[0]:
            raise error

    background = Background(lambda: None, [broken, done.set], interval_s=0.02)
    with caplog.at_level(logging.WARNING, "edge_runtime"):
        background.start()
        assert done.wait(5)
        until(lambda: background.last_error is not None)
    assert str(error) in (background.last_error or "")
    assert str(error) in caplog.text
    fail[0] = False
    until(lambda: background.last_error is None)
    background.stop()


def test_a_round_that_took_longer_than_the_interval_is_soon_followed_by_the_next() -> None:
    """As with a slow download, of which each check brings a part."""
    now, begun, waits = [0.0], threading.Event(), list[float]()

    def slow() -> None:
        now[0] += 500
        if len(waits) >= 2:
            begun.set()

    background = Background(
        lambda: None, [slow], interval_s=100, monotonic=lambda: now[0], uniform=lambda low, high: 1.0
    )

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        now[0] += seconds
        return begun.wait(0)

    background._wake.wait = wait  # type: ignore[method-assign, assignment]
    background.start()
    assert begun.wait(5)
    background.stop()
    assert waits[1] == pytest.approx(10)  # the first wait is for the first wake


def test_stop_waits_for_the_chore_that_runs_and_starts_no_other() -> None:
    begun, finished = threading.Event(), []

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        finished.append("slow")

    background = Background(lambda: None, [slow, lambda: finished.append("never")], interval_s=60)
    background.start()
    background.wake()
    begun.wait(5)
    background.stop()
    assert finished == ["slow"]


@pytest.mark.parametrize("interval_s", [float("inf"), 1e300])
def test_never_is_an_interval_too(interval_s: float) -> None:
    settled, checked = threading.Event(), threading.Event()
    background = Background(settled.set, [checked.set], interval_s=interval_s)
    background.start()
    background.wake()
    assert checked.wait(5)
    settled.clear()
    background.wake()
    assert settled.wait(5)  # the thread still lives
    background.stop()
