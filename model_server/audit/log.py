"""Appending to the audit log, and checking that nobody changed it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from model_server.audit.tables import AuditRow
from model_server.db.postgres import Lock, hold
from model_server.errors import AuditBroken

__all__ = ["Entry", "append", "chain_digest", "head", "verify"]

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """``detail`` is canonical JSON."""

    sequence: int
    time: datetime
    actor: str
    action: str
    subject: str
    detail: str


def chain_digest(previous: str, entry: Entry) -> str:
    """sha256 over the digest before and every field, in one unambiguous spelling."""
    body = [
        previous,
        entry.sequence,
        entry.time.isoformat(timespec="microseconds"),
        entry.actor,
        entry.action,
        entry.subject,
        entry.detail,
    ]
    return hashlib.sha256(json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def append(
    session: Session,
    time: datetime,
    *,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object] | None = None,
) -> str:
    """Add an entry in the caller's transaction, so that it stands exactly if what it tells of does. Returns its
    digest, the new head. Until that transaction ends, no other can add one: take every other lock before."""
    hold(session, Lock("audit"))
    last = session.execute(select(AuditRow).order_by(AuditRow.sequence.desc()).limit(1)).scalar_one_or_none()
    entry = Entry(
        sequence=last.sequence + 1 if last else 1,
        time=time,
        actor=actor,
        action=action,
        subject=subject,
        detail=json.dumps(dict(detail or {}), sort_keys=True, separators=(",", ":"), ensure_ascii=False),
    )
    previous = last.digest if last else GENESIS
    digest = chain_digest(previous, entry)
    session.add(
        AuditRow(
            sequence=entry.sequence,
            time=time,
            actor=actor,
            action=action,
            subject=subject,
            detail=entry.detail,
            previous=previous,
            digest=digest,
        )
    )
    session.flush()
    return digest


def head(session: Session) -> str | None:
    """The digest of the newest entry, which commits to all before it; None while there is none."""
    return session.execute(select(AuditRow.digest).order_by(AuditRow.sequence.desc()).limit(1)).scalar_one_or_none()


def verify(session: Session) -> int:
    """Walk the whole chain; the number of entries. Raises AuditBroken at the first that does not fit."""
    previous, count = GENESIS, 0
    for row in _rows(session):
        entry = Entry(
            sequence=row.sequence,
            time=row.time,
            actor=row.actor,
            action=row.action,
            subject=row.subject,
            detail=row.detail,
        )
        if row.sequence != count + 1 or row.previous != previous or row.digest != chain_digest(previous, entry):
            raise AuditBroken(f"audit entry {row.sequence} does not follow entry {count}: the log was changed")
        previous, count = row.digest, count + 1
    return count


def _rows(session: Session) -> Iterator[AuditRow]:
    yield from session.execute(select(AuditRow).order_by(AuditRow.sequence)).scalars().yield_per(1000)
