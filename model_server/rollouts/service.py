"""A rollout's life: started, grown, halted, rolled back, completed. The shell around the pure modules beside it.

Every change is decided and stored in one transaction, and its plan is published after it. If the server dies between
the two, `sync_plans` publishes on the next tick: what the database says is what devices will see. Who publishes reads
the database again once nobody else can: of two servers that decided, the slower one must not bring back what the other
has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from edge_runtime.bundle import check_channel, check_model, check_release
from edge_runtime.update.plan import State
from model_server.clock import Clock
from model_server.db.base import reading, writing
from model_server.errors import InvalidRollout, RolloutConflict, UnknownRollout
from model_server.rollouts.ingest import channel_lock, latest_rollout
from model_server.rollouts.stages import check_stages
from model_server.rollouts.starting import STAGING, StartRequest, check_staging, enrol_known, new_rollout, plan_of
from model_server.rollouts.tables import RolloutRow
from model_server.rollouts.transitions import (
    advance,
    begin_stage,
    check_sizes,
    complete,
    end,
    judge,
    log,
    record,
    settle,
)
from model_server.signing.publisher import Publisher

__all__ = ["RolloutService", "StartRequest"]


class RolloutService:
    """``check_published`` raises unless a release is published; ``allows`` says whether its model's policy lets it run;
    ``token`` makes fresh salts. With ``require_staging``, a candidate must first complete a rollout on the channel
    ``staging``."""

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        clock: Clock,
        check_published: Callable[[str, int], None],
        allows: Callable[[str, int], bool],
        token: Callable[[], str],
        *,
        require_staging: bool = False,
    ) -> None:
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._check_published = check_published
        self._allows = allows
        self._token = token
        self._require_staging = require_staging
        self._deciding = threading.RLock()  # one decision at a time; reports go on coming in

    def start(self, request: StartRequest, actor: str) -> str:
        """Start a rollout and publish its plan. Returns the rollout's id.

        Raises: InvalidRollout, StageTooSmall, UnknownModel, UnknownRelease, RolloutConflict if one is running.
        """
        model, channel = check_model(request.model), check_channel(request.channel)
        check_stages(request.stages)
        for release in (request.candidate, request.baseline):
            if release is not None:
                self._check_published(model, check_release(release))
                if not self._allows(model, release):
                    raise RolloutConflict(f"{model} {release} is revoked or below the floor: no device would run it")
        with self._deciding:
            now = self._clock.now()
            with writing(self._engine, channel_lock(model, channel)) as session:
                before = latest_rollout(session, model, channel)
                if before is not None and before.state == State.RUNNING:
                    raise RolloutConflict(f"{before.id} is running on {channel}: halt, roll back or complete it first")
                if self._require_staging and channel != STAGING:
                    check_staging(session, model, request.candidate)
                row = new_rollout(session, request, before, self._token(), now, actor)
                session.add(row)
                session.flush()
                enrol_known(session, row, now)
                check_sizes(session, row)
                record(session, row, now, "started", f"by {actor}", {"candidate": row.candidate})
                begin_stage(session, row, 0, now)
                log(session, now, actor, "rollout.started", row, stages=list(request.stages), limits=row.limits)
            self._publish(model, channel)
            return row.id

    def act(self, model: str, channel: str, action: str, actor: str) -> None:
        """``advance``, ``halt``, ``rollback``, ``complete`` or ``disable`` the channel's rollout.

        Raises: UnknownRollout, RolloutConflict if its state does not allow it, InvalidRollout for another action.
        """
        allowed = _ALLOWED.get(action)
        if allowed is None:
            raise InvalidRollout(f"{action!r} is not an action; the actions are {', '.join(_ALLOWED)}")
        with self._deciding:
            now = self._clock.now()
            with writing(self._engine, channel_lock(model, channel)) as session:
                row = self._latest(session, model, channel)
                if State(row.state) not in allowed:
                    raise RolloutConflict(f"{row.id} is {row.state}, so there is nothing to {action}")
                match action:
                    case "advance":
                        advance(session, row, now, f"approved by {actor}")
                    case "halt":
                        end(session, row, State.HALTED, now, f"by {actor}", {})
                    case "rollback":
                        self._check_rollback(row)
                        end(session, row, State.ROLLED_BACK, now, f"by {actor}", {})
                    case "complete":
                        complete(session, row, now, f"by {actor}")
                    case "disable":
                        end(session, row, State.DISABLED, now, f"by {actor}", {})
                log(session, now, actor, f"rollout.{action}", row)
            self._publish(model, channel)

    def evaluate(self, model: str, channel: str) -> None:
        """Judge the channel's rollout now: halt it, grow it, ask for approval, note that it has settled, or nothing."""
        with self._deciding:
            now = self._clock.now()
            with writing(self._engine, channel_lock(model, channel)) as session:
                row = latest_rollout(session, model, channel)
                if row is None or (row.state != State.RUNNING and row.settled is not None):
                    return
                before = plan_of(row)
                if row.state == State.RUNNING and not self._allows(model, row.candidate):
                    reason = f"{model} {row.candidate} is revoked or below the floor"
                    end(session, row, State.HALTED, now, reason, {})
                    log(session, now, "policy", "rollout.halted", row, reason=reason)
                elif row.state == State.RUNNING:
                    judge(session, row, now)
                if row.state != State.RUNNING:
                    settle(session, row, now)
                changed = plan_of(row) != before
            if changed:
                self._publish(model, channel)

    def unsettled(self) -> list[tuple[str, str]]:
        """(model, channel) of every rollout that still needs to be watched."""
        with reading(self._engine) as session:
            return [
                (row.model, row.channel)
                for row in _latest_rows(session)
                if row.state == State.RUNNING or row.settled is None
            ]

    def sync_plans(self) -> None:
        """Publish the plan of every channel that devices do not see yet."""
        with self._deciding:
            with reading(self._engine) as session:
                channels = [(row.model, row.channel) for row in _latest_rows(session)]
            for model, channel in channels:
                self._publish(model, channel)

    def named(self, model: str) -> list[dict[str, object]]:
        """The releases of ``model`` that the present plan of each channel names."""
        with reading(self._engine) as session:
            rows = [row for row in _latest_rows(session) if row.model == model and row.state != State.DISABLED]
            return [
                {"channel": row.channel, "rollout": row.id, "state": row.state, "release": release, "named_as": name}
                for row in rows
                for name, release in (("candidate", row.candidate), ("baseline", row.baseline))
                if release is not None
            ]

    def channels(self, model: str) -> list[str]:
        """The channels that have a rollout of ``model``."""
        with reading(self._engine) as session:
            return [row.channel for row in _latest_rows(session) if row.model == model]

    def _publish(self, model: str, channel: str) -> None:
        with self._publisher.repository.lock():
            with reading(self._engine) as session:
                plan = plan_of(self._latest(session, model, channel))
            self._publisher.put_plan(plan)

    def _check_rollback(self, row: RolloutRow) -> None:
        if row.baseline is not None and not self._allows(row.model, row.baseline):
            raise RolloutConflict(
                f"{row.model} {row.baseline}, which {row.id} would return to, is revoked or below the floor: disable "
                "the rollout, or halt it and start one of another release"
            )

    def _latest(self, session: Session, model: str, channel: str) -> RolloutRow:
        row = latest_rollout(session, check_model(model), check_channel(channel))
        if row is None:
            raise UnknownRollout(f"{channel} has no rollout of {model}")
        return row


_ALLOWED: dict[str, frozenset[State]] = {
    "advance": frozenset({State.RUNNING}),
    "halt": frozenset({State.RUNNING}),
    "rollback": frozenset({State.RUNNING, State.HALTED, State.COMPLETE}),
    "complete": frozenset({State.RUNNING}),
    "disable": frozenset({State.RUNNING, State.HALTED, State.COMPLETE, State.ROLLED_BACK}),
}


def _latest_rows(session: Session) -> list[RolloutRow]:
    newest = (
        select(RolloutRow.model, RolloutRow.channel, func.max(RolloutRow.number).label("number"))
        .group_by(RolloutRow.model, RolloutRow.channel)
        .subquery()
    )
    return list(
        session.execute(
            select(RolloutRow).join(
                newest,
                (RolloutRow.model == newest.c.model)
                & (RolloutRow.channel == newest.c.channel)
                & (RolloutRow.number == newest.c.number),
            )
        ).scalars()
    )
