"""Taking in a device's report: one transaction, once per report, however often it is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from edge_runtime.update.plan import bucket, evaluate
from model_server.clock import Clock
from model_server.db.base import Lock, writing
from model_server.rollouts.outcomes import Counters, DeviceStatus, Report, concerns, status_after, weighed
from model_server.rollouts.tables import ArmRow, DeviceRow, RolloutDeviceRow, RolloutRow

__all__ = ["channel_lock", "ingest", "latest_rollout"]


def channel_lock(model: str, channel: str, *, shared: bool = False) -> Lock:
    """Who decides about a channel's rollout holds it; reports share it, so that none comes into a decision."""
    return Lock(f"channel {channel} {model}", shared)


def latest_rollout(session: Session, model: str, channel: str) -> RolloutRow | None:
    """The rollout whose plan the channel's devices see."""
    return session.execute(
        select(RolloutRow)
        .where(RolloutRow.model == model, RolloutRow.channel == channel)
        .order_by(RolloutRow.number.desc())
        .limit(1)
    ).scalar_one_or_none()


def ingest(engine: Engine, clock: Clock, report: Report) -> bool:
    """Record a report. False if it was recorded before (its sequence is not above the device's last): then nothing is
    changed, and the device may forget it."""
    now = clock.now()
    channel = channel_lock(report.model, report.channel, shared=True)
    with writing(engine, channel, Lock(f"device {report.device} {report.model}"), relaxed=True) as session:
        device = session.get(DeviceRow, (report.device, report.model))
        if device is not None and report.sequence <= device.sequence:
            return False
        if device is None:
            device = DeviceRow(device=report.device, model=report.model, first_seen=now)
            session.add(device)
        device.channel = report.channel
        device.attributes = json.dumps(dict(report.attributes), sort_keys=True)
        device.running = report.running
        device.arm = report.arm
        device.rollout = report.rollout
        device.sequence = report.sequence
        device.last_seen = now
        rollout = latest_rollout(session, report.model, report.channel)
        if rollout is not None:
            _record(session, rollout, report, now)
    return True


def _record(session: Session, rollout: RolloutRow, report: Report, now: datetime) -> None:
    row = session.get(RolloutDeviceRow, (rollout.id, report.device))
    if row is None:
        row = RolloutDeviceRow(
            rollout=rollout.id,
            device=report.device,
            bucket=bucket(rollout.salt, report.device),
            status=DeviceStatus.PENDING.value,
            requests=0,
            errors=0,
            fallbacks=0,
            refused=0,
        )
        session.add(row)
    predicate = json.loads(rollout.predicate) if rollout.predicate else None
    row.eligible = evaluate(predicate, report.attributes)
    row.running = report.running
    row.last_report = now
    status, last = status_after(DeviceStatus(row.status), report, rollout.candidate)
    row.status = status.value
    row.last_outcome = last or row.last_outcome
    if status is DeviceStatus.ADOPTED and row.adopted_at is None:
        row.adopted_at = now
    # From here on the rollout's other reports wait for this one, so it comes last. The database adds, since this
    # session has read the numbers before it had the row to itself.
    session.flush()
    rollout.reports = RolloutRow.reports + 1
    if concerns(report, rollout.candidate):
        rollout.candidate_reports = RolloutRow.candidate_reports + 1
    session.flush()
    if report.rollout == rollout.id:
        for counters in weighed(report.counters):
            _count(session, rollout, row, counters)


def _count(session: Session, rollout: RolloutRow, row: RolloutDeviceRow, counters: Counters) -> None:
    """Add counters to their arm. The release decides about the candidate's arm, not the label: counters of an earlier
    candidate may arrive late."""
    on_candidate = counters.release == rollout.candidate
    if on_candidate != (counters.arm == "candidate"):
        return
    # Without a baseline the holdback keeps whatever it has, such as the factory release: that is what to compare with.
    if not on_candidate and rollout.baseline not in (None, counters.release):
        return
    arm = session.get(ArmRow, (rollout.id, counters.arm))
    if arm is None:
        arm = ArmRow(
            rollout=rollout.id,
            arm=counters.arm,
            requests=0,
            errors=0,
            fallbacks=0,
            refused=0,
            latency_device="{}",
            latency_cloud="{}",
        )
        session.add(arm)
    arm.requests += counters.requests
    arm.errors += counters.errors
    arm.fallbacks += counters.fallbacks
    arm.refused += counters.refused
    arm.latency_device = _merged(arm.latency_device, counters.latency_device)
    arm.latency_cloud = _merged(arm.latency_cloud, counters.latency_cloud)
    if on_candidate:
        row.requests += counters.requests
        row.errors += counters.errors
        row.fallbacks += counters.fallbacks
        row.refused += counters.refused


def _merged(stored: str, more: Mapping[int, int]) -> str:
    counts = {int(key): int(value) for key, value in json.loads(stored).items()}
    for bin_number, count in more.items():
        counts[bin_number] = counts.get(bin_number, 0) + count
    return json.dumps(counts, sort_keys=True, separators=(",", ":"))
