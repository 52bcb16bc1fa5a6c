"""Outcome reports: what updates did on this device, and plain counters per release and arm. docs/spec has the form.

They are identified and outside the privacy budget, so they never hold a feature, a class or a confidence. Counters are
deltas: each is in exactly one acknowledged report. That takes two rules. A report that was sent keeps its bytes until
the server has acknowledged it, whatever happens meanwhile; and the server takes a sequence number once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.authorization import Authorizer, send
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.device import Device
from edge_runtime.disk import Disk, RealDisk
from edge_runtime.errors import Outcome
from edge_runtime.outcome_spool import (
    LATENCY_BINS,
    MAX_COUNTERS,
    MAX_OUTCOMES,
    MAX_STANDING,
    CounterDelta,
    Event,
    Spool,
    load,
    save,
)
from edge_runtime.update.plan import Plan, arm
from edge_runtime.waits import Purpose, Waits

if TYPE_CHECKING:
    import httpx

__all__ = ["LATENCY_BINS", "CounterDelta", "Event", "Outcomes", "Posted"]

MAX_BYTES = 60_000  # the server reads 65,536
MAX_DETAIL = 200
TIMEOUT_S = 30.0
# What lasts: it is news when it begins, and not again at every check.
_STANDING = frozenset(
    {
        Outcome.DEFERRED_METERED,
        Outcome.DEFERRED_WINDOW,
        Outcome.DEFERRED_BATTERY,
        Outcome.DEFERRED_BANDWIDTH,
        Outcome.DEFERRED_SERVER,
        Outcome.CLOCK_WRONG,
    }
)
# The report itself is at fault, so that sending it again cannot help.
_REFUSED = frozenset({400, 413, 415, 422})


class Posted(StrEnum):
    """How `Outcomes.post` ended."""

    ACCEPTED = "accepted"
    UNREACHABLE = "unreachable"  # no answer, or one that may be another next time; the report is kept
    REFUSED = "refused"  # the server will never take this report; it was dropped
    WAITING = "waiting"  # the server asked to wait, or another thread is at it; nothing was sent


class Outcomes:
    """The spool of one model's outcome reports in ``folder``. Thread-safe, bounded.

    On a full disk it goes on in memory: that the disk is full is the very thing to report.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: Device,
        model: str,
        channel: str,
        disk: Disk | None = None,
        clock: Clock | None = None,
        waits: Waits | None = None,
    ) -> None:
        self._folder = folder
        self._device = device
        self._model = model
        self._channel = channel
        self._disk: Disk = RealDisk() if disk is None else disk
        self._clock: Clock = SystemClock() if clock is None else clock
        self._mutex = threading.RLock()
        self._posting = threading.Lock()
        self.problem: str | None = None  # why the last report that was sent was not taken
        self._disk.mkdir(folder)
        self._waits = waits or Waits(folder, self._disk, self._clock)
        self._spool = load(self._disk, folder, model, channel, self._clock)

    @property
    def sequence(self) -> int:
        """The number of the next report to be acknowledged."""
        return self._spool.sequence

    def record(self, outcome: Outcome, release: int | None, detail: str = "") -> None:
        """Add how a check ended. ``UNCHANGED`` is not news; a repetition of the last entry replaces it. Past 64
        entries the oldest go."""
        if outcome is Outcome.UNCHANGED:
            return
        event = _event(outcome, release, detail)
        with self._mutex:
            kept = self._spool.outcomes
            if kept and (kept[-1].outcome, kept[-1].release) == (outcome, release):
                kept = kept[:-1]
            self._keep(replace(self._spool, outcomes=(*kept, event)[-MAX_OUTCOMES:]))

    def checked(self, ends: Sequence[tuple[Outcome, int | None, str]], *, blind: bool) -> list[Event]:
        """Add how a check ended: (outcome, release, detail) each. What lasts, as a deferral does, is added when it
        begins, also if it was reported long ago. ``blind``: the check did not hear from the server, so that what stood
        may still stand. Returns what was added."""
        with self._mutex:
            added, standing = news([_event(*end) for end in ends], self._spool.standing, blind=blind)
            for event in added:
                self.record(event.outcome, event.release, event.detail)
            if standing != self._spool.standing:
                self._keep(replace(self._spool, standing=standing))
            return added

    def count(self, delta: CounterDelta) -> None:
        """Add counters. Past 8 pairs of release and arm the oldest go."""
        with self._mutex:
            kept = list(self._spool.counters)
            for i, entry in enumerate(kept):
                if (entry.release, entry.arm) == (delta.release, delta.arm):
                    kept[i] = entry.plus(delta)
                    break
            else:
                kept.append(delta)
            self._keep(replace(self._spool, counters=tuple(kept[-MAX_COUNTERS:])))

    def post(
        self,
        client: httpx.Client,
        server: str,
        by: Authorizer,
        *,
        running: int | None,
        plan: Plan | None,
        engine: str | None = None,
    ) -> Posted:
        """Send what is spooled to ``POST <server>/v1/outcomes``, also if it is empty: a report is a sign of life.

        ``running`` is the release in use, ``plan`` the plan in force, ``engine`` the name of the engine. A report that
        an earlier call could not deliver goes first, as it was. Raises nothing that the network or the server do.
        """
        if not self._posting.acquire(blocking=False):
            return Posted.WAITING
        try:
            if self._waits.left_s(Purpose.OUTCOMES) > 0:
                return Posted.WAITING
            leftover = self._spool.pending is not None
            posted = self._send(client, server, by, running, plan, engine)
            more = leftover and posted in (Posted.ACCEPTED, Posted.REFUSED)
            if more and self._waits.left_s(Purpose.OUTCOMES) <= 0:
                posted = self._send(client, server, by, running, plan, engine)
            return posted
        finally:
            self._posting.release()

    def _send(
        self,
        client: httpx.Client,
        server: str,
        by: Authorizer,
        running: int | None,
        plan: Plan | None,
        engine: str | None,
    ) -> Posted:
        import httpx

        with self._mutex:
            body = self._spool.pending or self._body(running, plan, engine)
            if self._spool.pending is None:
                self._keep(replace(self._spool, pending=body, outcomes=(), counters=()))
        url = f"{server.rstrip('/')}/v1/outcomes"
        try:
            response = send(client, url, body.encode(), "application/json", TIMEOUT_S, by)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            self.problem = f"it did not answer: {error or type(error).__name__}; the report is kept"
            return Posted.UNREACHABLE
        self.problem = None if response.is_success else _problem(response.status_code)
        self._waits.asked(Purpose.OUTCOMES, response.headers)  # also where it took the report
        if not response.is_success and response.status_code not in _REFUSED:
            return Posted.UNREACHABLE
        with self._mutex:
            self._keep(replace(self._spool, pending=None, sequence=self._spool.sequence + 1))
        return Posted.ACCEPTED if response.is_success else Posted.REFUSED

    def _body(self, running: int | None, plan: Plan | None, engine: str | None) -> str:
        known = self._device.attributes
        attributes = {name: known[name] for name in ("arch", "os") if name in known}
        if engine is not None:
            attributes["engine"] = engine
        counters, events = list(self._spool.counters), list(self._spool.outcomes)
        while True:
            body = json.dumps(
                {
                    "format": 1,
                    "device": self._device.id,
                    "model": self._model,
                    "channel": self._channel,
                    "sequence": self._spool.sequence,
                    "attributes": attributes,
                    "running": running,
                    "arm": arm(plan, self._device.id, running),
                    "rollout": None if plan is None else plan.rollout,
                    "attempt": None if plan is None else plan.attempt,
                    "outcomes": [
                        {"outcome": event.outcome.value, "release": event.release, "detail": event.detail}
                        for event in events
                    ],
                    "counters": [entry.to_body() for entry in counters],
                },
                separators=(",", ":"),
                ensure_ascii=False,
            )
            if len(body.encode()) <= MAX_BYTES:
                return body
            del (counters if len(counters) > 1 else events or counters)[0]

    def _keep(self, spool: Spool) -> None:
        self._spool = spool
        save(self._disk, self._folder, spool)


def news(events: Sequence[Event], standing: Sequence[Event], *, blind: bool) -> tuple[list[Event], tuple[Event, ...]]:
    """Which ``events`` of a check are worth recording, and what stands after it. Pure."""
    before = {(event.outcome, event.release): event for event in standing}
    now = {(event.outcome, event.release): event for event in events if event.outcome in _STANDING}
    added = [event for event in events if (event.outcome, event.release) not in before]
    # What stood before keeps the words that it was recorded with.
    after = {key: before.get(key, event) for key, event in now.items()}
    return added, tuple(((before | after) if blind else after).values())[-MAX_STANDING:]


def _event(outcome: Outcome, release: int | None, detail: str) -> Event:
    return Event(outcome=outcome, release=release, detail=detail.encode("utf-8", "replace").decode()[:MAX_DETAIL])


def _problem(status: int) -> str:
    """What an answer other than success means, in words."""
    if status in _REFUSED:
        return f"it answered {status}: it refused the report for good, and what that counted is lost"
    meaning = {
        401: "it does not know this device, or the token given",
        403: "this device, or the token given, may not report",
        404: "it does not know this model, or its address is another",
        429: "it asks to wait",
        503: "it asks to wait",
    }.get(status)
    return f"it answered {status}{'' if meaning is None else f': {meaning}'}; the report is kept"
