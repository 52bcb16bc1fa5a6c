"""Reading an `Observation` out of the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select
from sqlalchemy.orm import Session

from edge_runtime.update.plan import PARTS
from model_server.rollouts.guardrails import Limits
from model_server.rollouts.observation import ArmCounts, Observation
from model_server.rollouts.outcomes import DeviceStatus
from model_server.rollouts.tables import ArmRow, RolloutDeviceRow, RolloutRow, StageRow

__all__ = ["arm_rows", "buckets", "observe", "running_counts"]

_D = RolloutDeviceRow


def observe(session: Session, rollout: RolloutRow, stage: StageRow, now: datetime, *, complete: bool) -> Observation:
    """The state of ``stage``. When the rollout is ``complete`` there is no holdback, and everybody is selected."""
    limit = PARTS if complete else min(stage.share, PARTS - rollout.holdback)
    selected = and_(_D.eligible, _D.bucket < limit)
    control = and_(_D.eligible, _D.bucket >= PARTS - rollout.holdback)
    # A device that took the candidate, said so and then fell silent is as silent as one that never came.
    deadline_s = Limits.from_dict(json.loads(rollout.limits)).deadline_s
    old = (now - stage.started).total_seconds() > deadline_s
    since = now - timedelta(seconds=deadline_s) if old else stage.started
    heard = and_(_D.last_report.is_not(None), _D.last_report >= since)
    counts = session.execute(
        select(
            _count(_D.eligible),
            _count(selected),
            _count(and_(selected, _D.status == DeviceStatus.ADOPTED)),
            _count(and_(selected, _D.status == DeviceStatus.FAILED)),
            _count(and_(selected, _D.status == DeviceStatus.INCOMPATIBLE)),
            _count(and_(selected, ~heard)),
            _count(control),
            _count(_D.errors > 0),
            _count(_D.fallbacks > 0),
            _count(_D.refused > 0),
        ).where(_D.rollout == rollout.id)
    ).one()
    known, chosen, adopted, failed, incompatible, silent, held, erring, falling_back, refusing = map(int, counts)
    arms = arm_rows(session, rollout)
    return Observation(
        known=known,
        selected=chosen,
        adopted=adopted,
        failed=failed,
        incompatible=incompatible,
        silent=silent,
        control=0 if complete else held,
        reports=rollout.candidate_reports - stage.reports_at_start,
        age_s=(now - stage.started).total_seconds(),
        candidate=_arm(arms.get("candidate"), erring, falling_back, refusing),
        holdback=_arm(arms.get("holdback"), 0, 0, 0),
    )


def arm_rows(session: Session, rollout: RolloutRow) -> Mapping[str, ArmRow]:
    rows = session.execute(select(ArmRow).where(ArmRow.rollout == rollout.id)).scalars()
    return {row.arm: row for row in rows}


def buckets(session: Session, rollout: RolloutRow) -> list[int]:
    """The buckets of the known eligible devices."""
    return list(session.execute(select(_D.bucket).where(_D.rollout == rollout.id, _D.eligible)).scalars())


def running_counts(session: Session, rollout: RolloutRow) -> dict[int | None, int]:
    """How many known devices run each release (None: no model), by their last report."""
    rows = session.execute(select(_D.running, func.count()).where(_D.rollout == rollout.id).group_by(_D.running)).all()
    return {release: int(count) for release, count in rows}


def _count(condition: ColumnElement[bool] | Any) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _arm(row: ArmRow | None, erring: int, falling_back: int, refusing: int) -> ArmCounts:
    if row is None:
        return ArmCounts()
    return ArmCounts(
        requests=row.requests,
        errors=row.errors,
        fallbacks=row.fallbacks,
        refused=row.refused,
        erring=erring,
        falling_back=falling_back,
        refusing=refusing,
        latency={int(key): int(value) for key, value in json.loads(row.latency_device).items()},
    )
