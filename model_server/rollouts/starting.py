"""Starting a rollout: its row, the devices that are already known, and what must hold before it may begin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edge_runtime.bundle import ManifestError
from edge_runtime.update.plan import PARTS, Plan, State, bucket, evaluate
from model_server.errors import InvalidRollout, RolloutConflict
from model_server.rollouts.guardrails import Limits
from model_server.rollouts.outcomes import DeviceStatus
from model_server.rollouts.tables import DeviceRow, RolloutDeviceRow, RolloutRow

__all__ = ["STAGING", "StartRequest", "check_staging", "enrol_known", "new_rollout", "plan_of"]

KNOWN_FOR = timedelta(days=30)  # a device that was silent for longer is not counted as known
STAGING = "staging"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """A rollout to start. ``baseline`` None means the candidate of the channel's last complete rollout, if any;
    ``holdback`` is in parts of `PARTS`; ``salt`` None means a fresh random one."""

    model: str
    channel: str
    candidate: int
    baseline: int | None = None
    stages: Sequence[str] = ("1%", "10%", "50%", "all")
    holdback: int = PARTS // 20
    on_breach: Literal["halt", "rollback"] = "halt"
    growth: Literal["auto", "manual"] = "manual"
    predicate: Mapping[str, Any] | None = None
    salt: str | None = None
    limits: Limits = field(default_factory=Limits)


def new_rollout(
    session: Session, request: StartRequest, before: RolloutRow | None, salt: str, now: datetime, actor: str
) -> RolloutRow:
    """The row of a rollout that follows ``before``, not yet in the session; ``salt`` is used if none is asked for.

    Raises InvalidRollout if devices would refuse its plan, or the candidate is what the channel has already.
    """
    number = before.number + 1 if before is not None else 1
    last = session.execute(
        select(RolloutRow.candidate)
        .where(
            RolloutRow.model == request.model,
            RolloutRow.channel == request.channel,
            RolloutRow.state == State.COMPLETE,
        )
        .order_by(RolloutRow.number.desc())
        .limit(1)
    ).scalar_one_or_none()
    baseline = last if request.baseline is None else request.baseline
    if baseline == request.candidate:
        raise InvalidRollout(f"{request.model} {request.candidate} is the baseline of {request.channel} already")
    attempts = session.execute(
        select(func.max(RolloutRow.attempt)).where(
            RolloutRow.model == request.model,
            RolloutRow.channel == request.channel,
            RolloutRow.candidate == request.candidate,
        )
    ).scalar_one_or_none()
    row = RolloutRow(
        id=_rollout_id(request.model, request.channel, number),
        model=request.model,
        channel=request.channel,
        number=number,
        candidate=request.candidate,
        baseline=baseline,
        salt=request.salt or salt,
        share=0,
        holdback=request.holdback,
        predicate=None if request.predicate is None else json.dumps(dict(request.predicate)),
        state=State.RUNNING.value,
        attempt=(attempts or 0) + 1,
        stages=json.dumps(list(request.stages)),
        stage=0,
        growth=request.growth,
        on_breach=request.on_breach,
        limits=json.dumps(request.limits.to_dict(), sort_keys=True),
        approval_asked=False,
        reports=0,
        candidate_reports=0,
        created=now,
        created_by=actor,
    )
    try:
        Plan.from_json(plan_of(row).to_json())
    except (ManifestError, ValueError) as error:  # ValueError: NaN and infinity have no JSON
        raise InvalidRollout(f"devices would refuse this plan: {error}") from error
    return row


def enrol_known(session: Session, row: RolloutRow, now: datetime) -> None:
    """Give every device that the channel knows its place in the rollout."""
    predicate = json.loads(row.predicate) if row.predicate else None
    devices = session.execute(
        select(DeviceRow).where(
            DeviceRow.model == row.model, DeviceRow.channel == row.channel, DeviceRow.last_seen >= now - KNOWN_FOR
        )
    ).scalars()
    session.add_all(
        RolloutDeviceRow(
            rollout=row.id,
            device=device.device,
            bucket=bucket(row.salt, device.device),
            eligible=evaluate(predicate, json.loads(device.attributes)),
            running=device.running,
            # A device may run the candidate from an earlier attempt; its next report will say so again.
            status=(DeviceStatus.ADOPTED if device.running == row.candidate else DeviceStatus.PENDING).value,
            requests=0,
            errors=0,
            fallbacks=0,
            refused=0,
        )
        for device in devices.yield_per(1000)
    )
    session.flush()


def check_staging(session: Session, model: str, candidate: int) -> None:
    """Raises RolloutConflict unless the candidate has completed a rollout on the channel ``staging``."""
    passed = session.execute(
        select(RolloutRow.id).where(
            RolloutRow.model == model,
            RolloutRow.channel == STAGING,
            RolloutRow.candidate == candidate,
            RolloutRow.state == State.COMPLETE,
        )
    ).first()
    if passed is None:
        raise RolloutConflict(f"{model} {candidate} must complete a rollout on the channel {STAGING!r} first")


def plan_of(row: RolloutRow) -> Plan:
    """The plan that a rollout means."""
    return Plan(
        model=row.model,
        channel=row.channel,
        rollout=row.id,
        salt=row.salt,
        candidate=row.candidate,
        baseline=row.baseline,
        share=row.share,
        holdback=row.holdback,
        predicate=json.loads(row.predicate) if row.predicate else None,
        state=State(row.state),
        attempt=row.attempt,
    )


def _rollout_id(model: str, channel: str, number: int) -> str:
    """A readable id within the 64 characters that a plan allows."""
    name = f"{model}-{channel}-{number}"
    if len(name) <= 64:
        return name
    return f"{model[:24]}-{channel[:16]}-{hashlib.sha256(f'{model}/{channel}'.encode()).hexdigest()[:10]}-{number}"
