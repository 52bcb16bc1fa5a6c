"""Outcome reports: what updates did on this device, and plain counters per release and arm. docs/spec has the form.

They are identified and outside the privacy budget, so they never hold a feature, a class or a confidence. Counters are
deltas: each is in exactly one acknowledged report. That takes two rules. A report that was sent keeps its bytes until
the server has acknowledged it, whatever happens meanwhile; and the server takes a sequence number once.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from edge_runtime.bundle import ManifestError
from edge_runtime.bundle.names import MAX_RELEASE
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.device import Device
from edge_runtime.disk import Disk, RealDisk, read_sealed, write_sealed
from edge_runtime.errors import Outcome, StoreError
from edge_runtime.update.plan import Arm, Plan, arm

if TYPE_CHECKING:
    import httpx

__all__ = ["LATENCY_BINS", "CounterDelta", "Outcomes", "Posted"]

MAX_OUTCOMES = 64
MAX_COUNTERS = 8
MAX_BYTES = 60_000  # the server reads 65,536
MAX_DETAIL = 200
MAX_WAIT_S = 86_400.0
LATENCY_BINS = 384
TIMEOUT_S = 30.0
# The report itself is at fault, so that sending it again cannot help.
_REFUSED = frozenset({400, 413, 415, 422})


class Posted(StrEnum):
    """How `Outcomes.post` ended."""

    ACCEPTED = "accepted"
    UNREACHABLE = "unreachable"  # no answer, or one that may be another next time; the report is kept
    REFUSED = "refused"  # the server will never take this report; it was dropped
    WAITING = "waiting"  # the server asked to wait, or another thread is at it; nothing was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterDelta:
    """What happened since the last delta: calls of predict, failures of the local engine, answers by others because of
    one, refused inputs; latencies as counts by bin (``floor(16 log2 microseconds)``, 0 to 383)."""

    release: int
    arm: Arm
    requests: int = 0
    errors: int = 0
    fallbacks: int = 0
    refused: int = 0
    latency_device: Mapping[int, int] = field(default_factory=dict)
    latency_cloud: Mapping[int, int] = field(default_factory=dict)

    def plus(self, other: CounterDelta) -> CounterDelta:
        """Both together; ``other`` is of the same release and arm."""
        return CounterDelta(
            release=self.release,
            arm=self.arm,
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            fallbacks=self.fallbacks + other.fallbacks,
            refused=self.refused + other.refused,
            latency_device=_added(self.latency_device, other.latency_device),
            latency_cloud=_added(self.latency_cloud, other.latency_cloud),
        )

    def to_body(self) -> dict[str, object]:
        return {
            "release": self.release,
            "arm": self.arm,
            "requests": self.requests,
            "errors": self.errors,
            "fallbacks": self.fallbacks,
            "refused": self.refused,
            "latency_us": {
                "device": [[at, count] for at, count in sorted(self.latency_device.items())],
                "cloud": [[at, count] for at, count in sorted(self.latency_cloud.items())],
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    outcome: Outcome
    release: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spool:
    """``pending`` is the body of a report that was, or may have been, sent and is not acknowledged."""

    sequence: int
    pending: str | None = None
    outcomes: tuple[_Event, ...] = ()
    counters: tuple[CounterDelta, ...] = ()


class Outcomes:
    """The spool of one model's outcome reports in the file ``outcomes.json`` of ``folder``. Thread-safe, bounded.

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
    ) -> None:
        self._path = folder / "outcomes.json"
        self._device = device
        self._model = model
        self._channel = channel
        self._disk: Disk = RealDisk() if disk is None else disk
        self._clock: Clock = SystemClock() if clock is None else clock
        self._mutex = threading.Lock()
        self._posting = threading.Lock()
        self._not_before = 0.0
        self._disk.mkdir(folder)
        self._spool = self._load()

    @property
    def sequence(self) -> int:
        """The number of the next report to be acknowledged."""
        return self._spool.sequence

    def record(self, outcome: Outcome, release: int | None, detail: str = "") -> None:
        """Add how a check ended. ``UNCHANGED`` is not news; a repetition of the last entry replaces it. Past 64
        entries the oldest go."""
        if outcome is Outcome.UNCHANGED:
            return
        text = detail.encode("utf-8", "replace").decode()[:MAX_DETAIL]
        event = _Event(outcome=outcome, release=release, detail=text)
        with self._mutex:
            kept = self._spool.outcomes
            if kept and (kept[-1].outcome, kept[-1].release) == (outcome, release):
                kept = kept[:-1]
            self._keep(replace(self._spool, outcomes=(*kept, event)[-MAX_OUTCOMES:]))

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
        token: str | None,
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
            if self._clock.boot() < self._not_before:
                return Posted.WAITING
            leftover = self._spool.pending is not None
            posted = self._send(client, server, token, running, plan, engine)
            if leftover and posted in (Posted.ACCEPTED, Posted.REFUSED):
                posted = self._send(client, server, token, running, plan, engine)
            return posted
        finally:
            self._posting.release()

    def _send(
        self,
        client: httpx.Client,
        server: str,
        token: str | None,
        running: int | None,
        plan: Plan | None,
        engine: str | None,
    ) -> Posted:
        import httpx

        from edge_runtime.network import post

        with self._mutex:
            body = self._spool.pending or self._body(running, plan, engine)
            if self._spool.pending is None:
                self._keep(replace(self._spool, pending=body, outcomes=(), counters=()))
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        url = f"{server.rstrip('/')}/v1/outcomes"
        try:
            response = post(client, url, body.encode(), headers, TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError):
            return Posted.UNREACHABLE
        if response.status_code in (429, 503):
            self._not_before = self._clock.boot() + self._retry_after_s(response.headers.get("Retry-After", ""))
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

    def _retry_after_s(self, header: str) -> float:
        """Seconds to wait: the header has seconds or a date (RFC 9110, 10.2.3). At most a day."""
        wait = 0.0
        if header.strip().isdecimal() and len(header.strip()) < 12:
            wait = float(header)
        elif header:
            with contextlib.suppress(ValueError, TypeError, OverflowError):
                wait = (parsedate_to_datetime(header) - self._clock.wall()).total_seconds()
        return min(max(wait, 0.0), MAX_WAIT_S)

    def _keep(self, spool: _Spool) -> None:
        self._spool = spool
        with contextlib.suppress(StoreError):  # the class's docstring says why
            write_sealed(self._disk, self._path, _to_body(spool))

    def _load(self) -> _Spool:
        body = read_sealed(self._disk, self._path)
        if body is not None:
            with contextlib.suppress(ManifestError, ValueError):
                return _from_body(body)
        # A device whose state was wiped must not start below the numbers that the server has seen from it.
        return _Spool(sequence=max(1, int(self._clock.wall().timestamp())))


def _added(some: Mapping[int, int], more: Mapping[int, int]) -> dict[int, int]:
    total = dict(some)
    for at, count in more.items():
        total[at] = total.get(at, 0) + count
    return total


def _to_body(spool: _Spool) -> dict[str, object]:
    return {
        "format": 1,
        "sequence": spool.sequence,
        "pending": spool.pending,
        "outcomes": [[event.outcome.value, event.release, event.detail] for event in spool.outcomes],
        "counters": [entry.to_body() for entry in spool.counters],
    }


def _from_body(body: dict[str, object]) -> _Spool:
    node = Node(body)
    node.get("format").integer(1, 1)
    events = [entry.items(3, 3) for entry in node.get("outcomes").items(0, MAX_OUTCOMES)]
    return _Spool(
        sequence=node.get("sequence").integer(0, MAX_INTEGER),
        pending=node.get("pending").optional(lambda value: str(value.value)),
        outcomes=tuple(
            _Event(
                outcome=Outcome(outcome.choice(list(Outcome))),
                release=release.optional(lambda value: value.integer(1, MAX_RELEASE)),
                detail=str(detail.value),
            )
            for outcome, release, detail in events
        ),
        counters=tuple(_delta(entry) for entry in node.get("counters").items(0, MAX_COUNTERS)),
    )


def _delta(node: Node) -> CounterDelta:
    latency = node.get("latency_us")
    name = node.get("arm").choice(get_args(Arm))
    return CounterDelta(
        release=node.get("release").integer(1, MAX_RELEASE),
        arm=next(known for known in get_args(Arm) if known == name),
        requests=node.get("requests").integer(0, MAX_INTEGER),
        errors=node.get("errors").integer(0, MAX_INTEGER),
        fallbacks=node.get("fallbacks").integer(0, MAX_INTEGER),
        refused=node.get("refused").integer(0, MAX_INTEGER),
        latency_device=_bins(latency.get("device")),
        latency_cloud=_bins(latency.get("cloud")),
    )


def _bins(node: Node) -> dict[int, int]:
    pairs = (entry.items(2, 2) for entry in node.items(0, LATENCY_BINS))
    return {at.integer(0, LATENCY_BINS - 1): count.integer(0, MAX_INTEGER) for at, count in pairs}
