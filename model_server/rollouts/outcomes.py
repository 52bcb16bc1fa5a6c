"""What a device reports at check-in, and what it says about a candidate. Pure; docs/spec describes the wire form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from edge_runtime.errors import Outcome
from edge_runtime.update.plan import Arm, Attribute

__all__ = ["Counters", "DeviceStatus", "InstallOutcome", "Report", "concerns", "status_after", "weighed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallOutcome:
    """How a check ended. ``outcome`` is an `Outcome` value, or one that a newer device knows and this server does not;
    ``release`` is the one it was about."""

    outcome: str
    release: int | None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What happened since the last acknowledged report, for one release in one arm. Latencies map a bin (``floor(16
    log2 microseconds)``, 0 to 383) to a count."""

    release: int
    arm: Arm
    requests: int
    errors: int
    fallbacks: int
    refused: int
    latency_device: Mapping[int, int]
    latency_cloud: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    device: str
    model: str
    channel: str
    sequence: int
    attributes: Mapping[str, Attribute]
    running: int | None
    arm: Arm
    rollout: str | None
    attempt: int | None
    outcomes: Sequence[InstallOutcome]
    counters: Sequence[Counters]


class DeviceStatus(StrEnum):
    """A device's part in a rollout."""

    PENDING = "pending"  # not there yet: still to check, deferred, or waiting for the ceiling
    ADOPTED = "adopted"  # runs the candidate
    FAILED = "failed"  # tried and could not, or went back
    INCOMPATIBLE = "incompatible"  # no artifact fits; not a failure


MOST_REQUESTS = 1_000  # that one report counts for in an arm

_FAILURES = frozenset(
    {
        Outcome.ROLLED_BACK,
        Outcome.CANARY_FAILED,
        Outcome.VERIFICATION_FAILED,
        Outcome.DOWNLOAD_FAILED,
        Outcome.DOWNLOAD_NO_SPACE,
        Outcome.STORE_FAILED,
        Outcome.DENIED_AFTER_ROLLBACK,
        Outcome.REVOKED,
    }
)


def status_after(before: DeviceStatus, report: Report, candidate: int) -> tuple[DeviceStatus, str | None]:
    """A device's status after a report, and the last outcome in it that was about the candidate.

    What it runs counts most; else the last outcome about the candidate; else nothing has changed, except that a device
    which no longer runs the candidate, without a word why, is pending again.
    """
    about = [entry.outcome for entry in report.outcomes if entry.release == candidate]
    last = about[-1] if about else None
    if report.running == candidate:
        return DeviceStatus.ADOPTED, last
    if last in _FAILURES:
        return DeviceStatus.FAILED, last
    if last == Outcome.INCOMPATIBLE:
        return DeviceStatus.INCOMPATIBLE, last
    if last is not None or before is DeviceStatus.ADOPTED:
        return DeviceStatus.PENDING, last
    return before, last


def weighed(counters: Sequence[Counters]) -> list[Counters]:
    """Counters as an arm takes them in: one for each release and arm, none heavier than `MOST_REQUESTS`, its shares
    kept. Else a device that answers a billion requests well, or says so, hides what all the others go through."""
    first: dict[tuple[int, str], Counters] = {}
    for entry in counters:
        first.setdefault((entry.release, entry.arm), entry)
    return [_lightened(entry) for entry in first.values()]


def _lightened(entry: Counters) -> Counters:
    heaviest = max(entry.requests, entry.refused)
    return replace(
        entry,
        requests=_scaled(entry.requests, heaviest),
        errors=_scaled(min(entry.errors, entry.requests), heaviest),
        fallbacks=_scaled(min(entry.fallbacks, entry.requests), heaviest),
        refused=_scaled(entry.refused, heaviest),
        latency_device=_scaled_bins(entry.latency_device),
        latency_cloud=_scaled_bins(entry.latency_cloud),
    )


def _scaled_bins(bins: Mapping[int, int]) -> Mapping[int, int]:
    total = sum(bins.values())
    return {number: _scaled(count, total) for number, count in bins.items()}


def _scaled(count: int, heaviest: int) -> int:
    """``count`` if ``heaviest`` is light enough, else its share of it, to the nearest."""
    if heaviest <= MOST_REQUESTS:
        return count
    return (2 * count * MOST_REQUESTS + heaviest) // (2 * heaviest)


def concerns(report: Report, candidate: int) -> bool:
    """Whether a report is evidence about the candidate."""
    return (
        report.running == candidate
        or any(entry.release == candidate for entry in report.outcomes)
        or any(entry.release == candidate for entry in report.counters)
    )
