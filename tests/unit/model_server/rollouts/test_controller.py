"""The watch over the rollouts, by itself."""

from __future__ import annotations

import threading

import pytest

from model_server.rollouts.controller import Controller


class Rollouts:
    """Stands for a `RolloutService` in which something breaks in a way that nobody thought of."""

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self.judged = threading.Semaphore(0)
        self.failures = 1

    def _perhaps(self, name: str) -> None:
        if self.broken == name and self.failures:
            self.failures -= 1
            raise KeyError(name)

    def sync_plans(self) -> None:
        self._perhaps("sync_plans")

    def unsettled(self) -> list[tuple[str, str]]:
        self._perhaps("unsettled")
        return [("exercise", "stable")]

    def evaluate(self, model: str, channel: str) -> None:
        self._perhaps("evaluate")
        self.judged.release()


@pytest.mark.parametrize("broken", ["sync_plans", "unsettled", "evaluate", "chore"])
def test_an_error_that_nobody_thought_of_does_not_end_the_watch(broken: str) -> None:
    rollouts = Rollouts(broken)
    chores = {"a chore": lambda: rollouts._perhaps("chore")}
    controller = Controller(rollouts, tuple, 0.01, chores)  # type: ignore[arg-type]
    controller.start()
    try:
        for _ in range(3):
            assert rollouts.judged.acquire(timeout=10)
    finally:
        controller.stop()
