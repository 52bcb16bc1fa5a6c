"""Enrolment tokens: made by people, handed to devices, kept here as digests only."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from edge_runtime.enrolment.protocol import token_digest
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import Lock, reading, writing
from model_server.enrolment.tables import EnrolmentTokenRow
from model_server.errors import UnknownEnrolmentToken

__all__ = ["MadeToken", "TokenLimits", "Tokens", "add_token", "token_lock"]

PREFIX = "ese_"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """How many devices a token lets in, in all and within an hour (None: no limit), how long, and what group they
    belong to."""

    uses: int
    valid: timedelta
    per_hour: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeToken:
    """``secret`` is what devices present; it is nowhere else."""

    id: str
    secret: str
    expires: datetime


def token_lock(token: str) -> Lock:
    return Lock(f"enrolment token {token}")


def add_token(session: Session, limits: TokenLimits, now: datetime, actor: str) -> MadeToken:
    """Make a token and keep its digest, in the caller's transaction."""
    secret = PREFIX + secrets.token_urlsafe(32)
    digest = token_digest(secret)
    row = EnrolmentTokenRow(
        id=digest[:12],
        digest=digest,
        group=limits.group,
        uses=limits.uses,
        used=0,
        per_hour=limits.per_hour,
        hour_used=0,
        created=now,
        created_by=actor,
        expires=now + limits.valid,
    )
    session.add(row)
    session.flush()
    detail = {"uses": limits.uses, "expires": row.expires.isoformat(), "per_hour": limits.per_hour}
    audit.append(
        session,
        now,
        actor=actor,
        action="devices.token_added",
        subject=row.id,
        detail={**detail, "group": limits.group},
    )
    return MadeToken(id=row.id, secret=secret, expires=row.expires)


class Tokens:
    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def add(self, limits: TokenLimits, actor: str) -> MadeToken:
        with writing(self._engine, Lock("enrolment tokens")) as session:
            return add_token(session, limits, self._clock.now(), actor)

    def list(self) -> list[dict[str, object]]:
        """All of them, the newest first."""
        now = self._clock.now()
        with reading(self._engine) as session:
            rows = session.execute(select(EnrolmentTokenRow).order_by(EnrolmentTokenRow.created.desc())).scalars().all()
            return [_shown(row, now) for row in rows]

    def revoke(self, token: str, actor: str) -> dict[str, object]:
        """It lets nobody in from now on; devices that it let in stay. Raises `UnknownEnrolmentToken`."""
        now = self._clock.now()
        with writing(self._engine, token_lock(token)) as session:
            row = session.get(EnrolmentTokenRow, token)
            if row is None:
                raise UnknownEnrolmentToken(f"there is no enrolment token {token!r}: `devices token list` has them all")
            if row.revoked is None:
                row.revoked = now
                audit.append(session, now, actor=actor, action="devices.token_revoked", subject=token)
            return _shown(row, now)


def _shown(row: EnrolmentTokenRow, now: datetime) -> dict[str, object]:
    if row.revoked is not None:
        state = "revoked"
    elif now >= row.expires:
        state = "expired"
    else:
        state = "open" if row.used < row.uses else "used up"
    return {
        "id": row.id,
        "state": state,
        "group": row.group,
        "uses": row.uses,
        "used": row.used,
        "per_hour": row.per_hour,
        "created": row.created.isoformat(),
        "created_by": row.created_by,
        "expires": row.expires.isoformat(),
    }
