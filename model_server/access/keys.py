"""Keys that callers show: made here, kept as digests. Decision 0017 says why a plain sha256 is enough."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy.orm import Session

from model_server.access.tables import PersonKeyRow

__all__ = ["KeyKind", "NewKey", "add_key", "digest_of", "make_token"]


class KeyKind(StrEnum):
    API = "api"  # lives until it is revoked or expires
    SESSION = "session"  # opened by a password


PREFIX = {KeyKind.API: "esk_", KeyKind.SESSION: "ess_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """``key`` is told once, to whoever asked for it."""

    id: str
    key: str = field(repr=False)
    name: str
    expires: datetime | None


def make_token(prefix: str) -> str:
    """32 random bytes in text; the prefix tells people and secret scanners what it is."""
    return prefix + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def add_key(
    session: Session, person: str, kind: KeyKind, name: str, now: datetime, lifetime: timedelta | None = None
) -> NewKey:
    """Give a person, who is in the database, one more key."""
    key = make_token(PREFIX[kind])
    expires = None if lifetime is None else now + lifetime
    row = PersonKeyRow(
        id=secrets.token_hex(6),
        digest=digest_of(key),
        person=person,
        kind=kind.value,
        name=name,
        created=now,
        expires=expires,
        last_used=None,
        revoked=None,
    )
    session.add(row)
    session.flush()
    return NewKey(id=row.id, key=key, name=name, expires=expires)
