"""What can happen to a rollout, inside the caller's transaction: each function changes rows and records why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy.orm import Session

from edge_runtime.update.plan import PARTS, State
from model_server.audit import log as audit
from model_server.errors import UnknownRollout
from model_server.rollouts.counting import buckets, observe, running_counts
from model_server.rollouts.guardrails import Breach, Limits, breaches, waiting_for
from model_server.rollouts.observation import Observation
from model_server.rollouts.stages import COMPLETION, stage_share
from model_server.rollouts.tables import EventRow, RolloutRow, StageRow

__all__ = [
    "advance",
    "begin_stage",
    "check_sizes",
    "complete",
    "end",
    "judge",
    "log",
    "present_stage",
    "record",
    "settle",
]


def judge(session: Session, row: RolloutRow, now: datetime) -> None:
    """Halt a running rollout that crossed a guardrail; grow one whose stage has passed, or ask for approval."""
    limits = Limits.from_dict(json.loads(row.limits))
    seen = observe(session, row, present_stage(session, row), now, complete=False)
    crossed = breaches(seen, limits)
    if crossed:
        _breach(session, row, now, crossed)
        return
    if waiting_for(seen, limits, compare=row.baseline is not None):
        return
    if row.growth == "auto":
        advance(session, row, now, "the stage has passed")
    elif not row.approval_asked:
        row.approval_asked = True
        record(session, row, now, "waiting_for_approval", "the stage has passed", _numbers(seen))


def _breach(session: Session, row: RolloutRow, now: datetime, crossed: Sequence[Breach]) -> None:
    for breach in crossed:
        numbers = {"observed": breach.observed, "limit": breach.limit, **breach.numbers}
        record(session, row, now, "guardrail_breached", breach.reason, numbers)
    state = State.ROLLED_BACK if row.on_breach == "rollback" else State.HALTED
    reason = "; ".join(breach.reason for breach in crossed)
    row.reports_before_halt = row.candidate_reports
    end(session, row, state, now, reason, {"reports_before_halt": row.candidate_reports})
    log(session, now, "guardrails", f"rollout.{state.value}", row, reason=reason)


def advance(session: Session, row: RolloutRow, now: datetime, reason: str) -> None:
    """Begin the next stage; after the last one, complete."""
    stages = json.loads(row.stages)
    if row.stage + 1 >= len(stages):
        complete(session, row, now, reason)
        return
    _close_stage(session, row, now, reason)
    begin_stage(session, row, row.stage + 1, now)


def complete(session: Session, row: RolloutRow, now: datetime, reason: str) -> None:
    """Everybody is to run the candidate; the holdback ends."""
    _close_stage(session, row, now, reason)
    row.state, row.ended, row.share = State.COMPLETE.value, now, PARTS
    row.stage = len(json.loads(row.stages))
    known = len(buckets(session, row))
    session.add(
        StageRow(
            rollout=row.id,
            number=row.stage,
            stage=COMPLETION,
            share=PARTS,
            selected=known,
            reports_at_start=row.candidate_reports,
            started=now,
        )
    )
    session.flush()
    record(session, row, now, "completed", reason, {"devices_known": known})
    log(session, now, "controller", "rollout.completed", row, reason=reason)


def end(session: Session, row: RolloutRow, state: State, now: datetime, reason: str, numbers: dict[str, float]) -> None:
    """Stop growing: halted, rolled back or disabled."""
    if row.state in (State.RUNNING, State.COMPLETE):
        _close_stage(session, row, now, reason)
    if row.reports_before_halt is None:
        row.reports_before_halt = row.candidate_reports
    row.state, row.ended, row.settled = state.value, now, None
    record(session, row, now, state.value, reason, numbers)


def settle(session: Session, row: RolloutRow, now: datetime) -> None:
    """Note when every known device runs what the end of the rollout asks for."""
    running = running_counts(session, row)
    numbers = {"devices_known": sum(running.values()), "on_candidate": running.get(row.candidate, 0)}
    if row.state == State.COMPLETE:
        seen = observe(session, row, present_stage(session, row), now, complete=True)
        if seen.adopted == 0 or seen.adopted < seen.selected - seen.failed - seen.incompatible:
            return
        _close_stage(session, row, now, "every known device runs the candidate")
    elif row.state == State.ROLLED_BACK:
        if running.get(row.candidate, 0):
            return
    elif row.state == State.DISABLED and any(count for release, count in running.items() if release is not None):
        return
    row.settled = now
    record(session, row, now, "settled", f"every known device follows {row.state}", numbers)


def check_sizes(session: Session, row: RolloutRow) -> None:
    """Raises StageTooSmall if any stage would select too few of the devices that are known now."""
    known, share = buckets(session, row), row.share
    for spec in json.loads(row.stages):
        share = stage_share(spec, known, holdback=row.holdback, before=share, first_rollout=row.baseline is None).share


def begin_stage(session: Session, row: RolloutRow, number: int, now: datetime) -> None:
    """Raises StageTooSmall."""
    spec = json.loads(row.stages)[number]
    chosen = stage_share(
        spec,
        buckets(session, row),
        holdback=row.holdback,
        before=row.share,
        first_rollout=row.baseline is None,
    )
    row.stage, row.share, row.approval_asked = number, chosen.share, False
    session.add(
        StageRow(
            rollout=row.id,
            number=number,
            stage=spec,
            share=chosen.share,
            selected=chosen.selected,
            reports_at_start=row.candidate_reports,
            started=now,
        )
    )
    session.flush()
    record(session, row, now, "stage_started", f"stage {spec}", {"share": chosen.share, "selected": chosen.selected})


def _close_stage(session: Session, row: RolloutRow, now: datetime, reason: str) -> None:
    stage = present_stage(session, row)
    if stage.ended is not None:
        return
    seen = observe(session, row, stage, now, complete=row.state == State.COMPLETE)
    stage.ended, stage.devices_known = now, seen.known
    stage.adopted = running_counts(session, row).get(row.candidate, 0)
    record(session, row, now, "stage_ended", f"stage {stage.stage}: {reason}", _numbers(seen))


def record(
    session: Session,
    row: RolloutRow,
    now: datetime,
    event: str,
    reason: str,
    numbers: Mapping[str, float],
) -> None:
    """Add an event to the rollout's history."""
    session.add(EventRow(rollout=row.id, time=now, event=event, reason=reason, numbers=json.dumps(dict(numbers))))


def log(session: Session, now: datetime, actor: str, action: str, row: RolloutRow, **detail: object) -> None:
    """Add an entry to the audit log."""
    audit.append(session, now, actor=actor, action=action, subject=row.id, detail=detail)


def present_stage(session: Session, row: RolloutRow) -> StageRow:
    """The stage that the rollout is in."""
    stage = session.get(StageRow, (row.id, row.stage))
    if stage is None:
        raise UnknownRollout(f"{row.id} has no stage {row.stage}")
    return stage


def _numbers(seen: Observation) -> dict[str, float]:
    return {name: value for name, value in asdict(seen).items() if isinstance(value, int | float)}
