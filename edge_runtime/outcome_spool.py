"""What of the outcome reports waits to be acknowledged, and the file that it waits in."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from edge_runtime.bundle import ManifestError
from edge_runtime.bundle.names import MAX_RELEASE
from edge_runtime.bundle.strict_json import MAX_INTEGER, Node
from edge_runtime.clock import Clock
from edge_runtime.disk import Disk, read_sealed, write_sealed
from edge_runtime.errors import Outcome, StoreError
from edge_runtime.update.plan import Arm

__all__ = [
    "LATENCY_BINS",
    "MAX_COUNTERS",
    "MAX_OUTCOMES",
    "MAX_STANDING",
    "CounterDelta",
    "Event",
    "Spool",
    "load",
    "read_standing",
    "save",
]

FILE = "outcomes.json"
ASIDE = "outcomes-aside.json"
MAX_OUTCOMES = 64
MAX_COUNTERS = 8
MAX_STANDING = 8
LATENCY_BINS = 384

_log = logging.getLogger("edge_runtime")


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
class Event:
    outcome: Outcome
    release: int | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """``pending`` is the body of a report that was, or may have been, sent and is not acknowledged. ``standing``: what
    the last check found to last, such as a download that waits; it was recorded when it began. All of it is about one
    model and channel."""

    model: str
    channel: str
    sequence: int
    pending: str | None = None
    outcomes: tuple[Event, ...] = ()
    counters: tuple[CounterDelta, ...] = ()
    standing: tuple[Event, ...] = ()


def load(disk: Disk, folder: Path, model: str, channel: str, clock: Clock) -> Spool:
    """The spool of ``model`` on ``channel``.

    What the folder holds of another model or channel is set aside, so that it neither blocks this one's reports nor
    goes out under this one's name, and comes back when that is opened again. One other is kept.
    """
    file, aside = folder / FILE, folder / ASIDE
    found = _read(disk, file, model, channel)
    if found is not None and (found.model, found.channel) == (model, channel):
        return found
    kept = _read(disk, aside, model, channel) if found is not None else None
    if kept is None or (kept.model, kept.channel) != (model, channel):
        # A device whose state was wiped must not start below the numbers that the server has seen from it.
        kept = Spool(model=model, channel=channel, sequence=max(1, int(clock.wall().timestamp())))
    if found is not None:
        _log.warning(
            "outcome reports of %s on channel %s are set aside: this folder is now opened for %s on channel %s",
            found.model,
            found.channel,
            model,
            channel,
        )
        with contextlib.suppress(StoreError):
            write_sealed(disk, aside, _to_body(found))
        save(disk, folder, kept)
    return kept


def read_standing(disk: Disk, folder: Path) -> tuple[Event, ...]:
    """What stands in ``folder`` by its last check, for showing it. Nothing without a spool, or with a damaged one."""
    spool = _read(disk, folder / FILE, "", "")
    return () if spool is None else spool.standing


def save(disk: Disk, folder: Path, spool: Spool) -> None:
    """Keep ``spool`` on disk; where the disk is full, which is the very thing to report, it stays in memory only."""
    with contextlib.suppress(StoreError):
        write_sealed(disk, folder / FILE, _to_body(spool))


def _read(disk: Disk, path: Path, model: str, channel: str) -> Spool | None:
    body = read_sealed(disk, path)
    if body is not None:
        with contextlib.suppress(ManifestError, ValueError):
            return _from_body(body, model, channel)
    return None


def _to_body(spool: Spool) -> dict[str, object]:
    return {
        "format": 1,
        "model": spool.model,
        "channel": spool.channel,
        "sequence": spool.sequence,
        "pending": spool.pending,
        "outcomes": [[event.outcome.value, event.release, event.detail] for event in spool.outcomes],
        "standing": [[event.outcome.value, event.release, event.detail] for event in spool.standing],
        "counters": [entry.to_body() for entry in spool.counters],
    }


def _from_body(body: dict[str, object], model: str, channel: str) -> Spool:
    """``model`` and ``channel`` are for a file of before they were written into it; its pending report has them."""
    node = Node(body)
    node.get("format").integer(1, 1)
    sequence = node.get("sequence").integer(0, MAX_INTEGER)
    pending = node.get("pending").optional(lambda value: str(value.value))
    if "model" in body:
        model, channel = str(body["model"]), str(body["channel"])
    elif pending is not None and not _is_about(pending, model, channel):
        _log.warning("an outcome report of another model or channel was never acknowledged; it is dropped")
        sequence, pending = sequence + 1, None
    return Spool(
        model=model,
        channel=channel,
        sequence=sequence,
        pending=pending,
        outcomes=tuple(_event(entry) for entry in node.get("outcomes").items(0, MAX_OUTCOMES)),
        counters=tuple(_delta(entry) for entry in node.get("counters").items(0, MAX_COUNTERS)),
        standing=tuple(_event(entry) for entry in node.get("standing").items(0, MAX_STANDING))
        if "standing" in body
        else (),
    )


def _event(node: Node) -> Event:
    outcome, release, detail = node.items(3, 3)
    return Event(
        outcome=Outcome(outcome.choice(list(Outcome))),
        release=release.optional(lambda value: value.integer(1, MAX_RELEASE)),
        detail=str(detail.value),
    )


def _is_about(report: str, model: str, channel: str) -> bool:
    body = json.loads(report)
    return isinstance(body, dict) and (body.get("model"), body.get("channel")) == (model, channel)


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


def _added(some: Mapping[int, int], more: Mapping[int, int]) -> dict[int, int]:
    total = dict(some)
    for at, count in more.items():
        total[at] = total.get(at, 0) + count
    return total
