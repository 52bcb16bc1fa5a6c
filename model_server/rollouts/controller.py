"""The controller: what happens without anybody awake. Renews what expires, judges rollouts, publishes plans.

It works on a fixed interval, and at once when a report brings news of a candidate: `nudge` costs a reporter nothing,
and any number of nudges in one moment make one evaluation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from model_server.rollouts.service import RolloutService

__all__ = ["Controller"]

log = logging.getLogger(__name__)
SETTLE_S = 0.05  # after a nudge: reports come in bursts


class Controller:
    """``renew`` signs again what is due and returns the names of those roles. ``chores`` are further things to do on
    every tick, by what they are called in the log."""

    def __init__(
        self,
        rollouts: RolloutService,
        renew: Callable[[], Sequence[str]],
        interval_s: float,
        chores: Mapping[str, Callable[[], object]] | None = None,
    ) -> None:
        self._chores = dict(chores or {})
        self._rollouts = rollouts
        self._renew_due = renew
        self._interval_s = interval_s
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._nudged: set[tuple[str, str]] = set()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="edgeship-controller", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=30)

    def nudge(self, model: str, channel: str) -> None:
        """There is news about the channel's rollout; evaluate it soon. Returns at once."""
        with self._guard:
            self._nudged.add((model, channel))
        self._wake.set()

    def tick(self) -> None:
        """One round: renew online metadata, publish plans that were not published, judge every live rollout."""
        self._attempt("renewing metadata", self._renew)
        self._attempt("publishing plans", self._rollouts.sync_plans)
        for what, chore in self._chores.items():
            self._attempt(what, chore)
        self._attempt("judging rollouts", self._judge)

    def _run(self) -> None:
        next_tick = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= next_tick:
                self._attempt("a controller tick", self.tick)
                next_tick = time.monotonic() + self._interval_s
            if self._wake.wait(max(0.0, next_tick - time.monotonic())):
                self._stop.wait(SETTLE_S)
                self._wake.clear()
                with self._guard:
                    nudged, self._nudged = self._nudged, set()
                for model, channel in nudged:
                    self._evaluate(model, channel)

    def _judge(self) -> None:
        for model, channel in self._rollouts.unsettled():
            self._evaluate(model, channel)

    def _renew(self) -> None:
        renewed = self._renew_due()
        if renewed:
            log.info("renewed %s", ", ".join(renewed))

    def _evaluate(self, model: str, channel: str) -> None:
        self._attempt(f"judging {model} on {channel}", lambda: self._rollouts.evaluate(model, channel))

    def _attempt(self, what: str, work: Callable[[], object]) -> None:
        """A failure of one task, whatever it is, must not end the watch over the others: nobody may be awake to see
        that no rollout is judged any more. It is logged whole and tried again."""
        try:
            work()
        except Exception:
            log.exception("%s failed; it is tried again on the next tick", what)
