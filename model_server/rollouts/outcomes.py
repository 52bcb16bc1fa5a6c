"""What a device reports at check-in, and what it says about a candidate. Pure; docs/spec describes the wire form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge_runtime.errors import Outcome
from edge_runtime.update.plan import Arm, Attribute

__all__ = ["Counters", "DeviceStatus", "InstallOutcome", "Report", "concerns", "status_after"]


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


def concerns(report: Report, candidate: int) -> bool:
    """Whether a report is evidence about the candidate."""
    return (
        report.running == candidate
        or any(entry.release == candidate for entry in report.outcomes)
        or any(entry.release == candidate for entry in report.counters)
    )
