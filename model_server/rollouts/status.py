"""A rollout as the API shows it: its plan, stages, events, arms and devices. Reads only."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from edge_runtime.bundle import check_channel, check_model
from edge_runtime.update.plan import PARTS, State
from model_server.db.base import reading
from model_server.errors import RepositoryDamaged, UnknownRollout
from model_server.rollouts.ceiling import Steps, ceiling_wait
from model_server.rollouts.counting import arm_rows, observe, running_counts
from model_server.rollouts.guardrails import Limits, waiting_for
from model_server.rollouts.ingest import latest_rollout
from model_server.rollouts.observation import latency_quantile
from model_server.rollouts.starting import plan_of
from model_server.rollouts.tables import ArmRow, EventRow, RolloutDeviceRow, RolloutRow, StageRow
from model_server.rollouts.transitions import present_stage

__all__ = ["CeilingOf", "list_rollouts", "rollout_status"]

# The signed ceiling of a model's release, and when the release was published.
CeilingOf = Callable[[str, int], tuple[Steps, datetime]]


def list_rollouts(engine: Engine) -> list[dict[str, object]]:
    """Every rollout there was, newest first, in short."""
    with reading(engine) as session:
        rows = session.execute(select(RolloutRow).order_by(RolloutRow.created.desc())).scalars()
        return [_short(row) for row in rows]


def rollout_status(engine: Engine, model: str, channel: str, now: datetime, ceiling: CeilingOf) -> dict[str, object]:
    """The channel's newest rollout of ``model``.

    ``stages[].share`` is 0 to 1, ``adopted`` counts known devices on the candidate when the stage ended (or now), and
    ``adopted_share`` is that as a share of the known ones. ``devices.all_returned`` tells, after a rollback, whether
    no known device runs the candidate any more.

    Raises: UnknownRollout.
    """
    with reading(engine) as session:
        row = latest_rollout(session, check_model(model), check_channel(channel))
        if row is None:
            raise UnknownRollout(f"{channel} has no rollout of {model}")
        running = running_counts(session, row)
        return {
            **_short(row),
            "plan": json.loads(plan_of(row).to_json()),
            "growth": row.growth,
            "on_breach": row.on_breach,
            "limits": json.loads(row.limits),
            "reports": row.reports,
            "candidate_reports": row.candidate_reports,
            "reports_before_halt": row.reports_before_halt,
            "waiting_for": _waiting(session, row, now, ceiling),
            "stages": [_stage(stage, running, row) for stage in _stages(session, row)],
            "events": [_event(event) for event in _events(session, row)],
            "arms": {arm: _arm(counts) for arm, counts in arm_rows(session, row).items()},
            "devices": _devices(session, row, running),
        }


def _short(row: RolloutRow) -> dict[str, object]:
    return {
        "rollout": row.id,
        "model": row.model,
        "channel": row.channel,
        "state": row.state,
        "candidate": row.candidate,
        "baseline": row.baseline,
        "attempt": row.attempt,
        "stage": row.stage,
        "created": row.created.isoformat(),
        "created_by": row.created_by,
        "ended": row.ended.isoformat() if row.ended else None,
        "settled": row.settled.isoformat() if row.settled else None,
    }


def _waiting(session: Session, row: RolloutRow, now: datetime, ceiling: CeilingOf) -> list[str]:
    running = row.state == State.RUNNING
    if not running and (row.state != State.COMPLETE or row.settled is not None):
        return []
    seen = observe(session, row, present_stage(session, row), now, complete=not running)
    limits = Limits.from_dict(json.loads(row.limits))
    waits = list(waiting_for(seen, limits, compare=row.baseline is not None)) if running else []
    if running and not waits and row.growth == "manual":
        return ["approval: edgeship-server rollout advance"]
    if seen.adopted == 0 or seen.adopted < seen.selected - seen.failed - seen.incompatible:
        waits += _held_back(row, now, ceiling)
    return waits


def _held_back(row: RolloutRow, now: datetime, ceiling: CeilingOf) -> list[str]:
    share = PARTS if row.state == State.COMPLETE else min(row.share, PARTS - row.holdback)
    try:
        steps, published = ceiling(row.model, row.candidate)
    except RepositoryDamaged as error:  # no reason to hide the rest
        return [f"a repair: the ceiling of release {row.candidate} cannot be read, {error}"]
    wait = ceiling_wait(row.candidate, steps, published, share, now)
    return [] if wait is None else [wait]


def _stages(session: Session, row: RolloutRow) -> list[StageRow]:
    return list(session.execute(select(StageRow).where(StageRow.rollout == row.id).order_by(StageRow.number)).scalars())


def _events(session: Session, row: RolloutRow) -> list[EventRow]:
    return list(session.execute(select(EventRow).where(EventRow.rollout == row.id).order_by(EventRow.id)).scalars())


def _stage(stage: StageRow, running: dict[int | None, int], row: RolloutRow) -> dict[str, object]:
    known = stage.devices_known if stage.devices_known is not None else sum(running.values())
    adopted = stage.adopted if stage.adopted is not None else running.get(row.candidate, 0)
    return {
        "stage": stage.stage,
        "share": stage.share / PARTS,
        "selected": stage.selected,
        "started": stage.started.isoformat(),
        "ended": stage.ended.isoformat() if stage.ended else None,
        "devices_known": known,
        "adopted": adopted,
        "adopted_share": adopted / known if known else 0.0,
    }


def _event(event: EventRow) -> dict[str, object]:
    return {
        "time": event.time.isoformat(),
        "event": event.event,
        "reason": event.reason,
        "numbers": json.loads(event.numbers),
    }


def _arm(arm: ArmRow) -> dict[str, object]:
    latency = {int(key): int(value) for key, value in json.loads(arm.latency_device).items()}
    cloud = {int(key): int(value) for key, value in json.loads(arm.latency_cloud).items()}
    return {
        "requests": arm.requests,
        "errors": arm.errors,
        "fallbacks": arm.fallbacks,
        "refused": arm.refused,
        "latency_p50_us": latency_quantile(latency, 0.5) if latency else None,
        "latency_p95_us": latency_quantile(latency, 0.95) if latency else None,
        "cloud_latency_p95_us": latency_quantile(cloud, 0.95) if cloud else None,
    }


def _devices(session: Session, row: RolloutRow, running: dict[int | None, int]) -> dict[str, object]:
    known, on_candidate = sum(running.values()), running.get(row.candidate, 0)
    statuses = session.execute(
        select(RolloutDeviceRow.status, func.count())
        .where(RolloutDeviceRow.rollout == row.id)
        .group_by(RolloutDeviceRow.status)
    )
    return {
        "known": known,
        "on_candidate": on_candidate,
        "on_baseline": running.get(row.baseline, 0) if row.baseline is not None else 0,
        "by_release": {"none" if release is None else str(release): count for release, count in running.items()},
        "by_status": {status: int(count) for status, count in statuses},
        "all_returned": row.state == State.ROLLED_BACK and known > 0 and on_candidate == 0,
    }
