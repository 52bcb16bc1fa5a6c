"""API keys: who may call, kept as digests only.

A key is 32 random bytes, so a plain sha256 of it cannot be searched; a slow hash would add nothing but delay.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from threading import Lock

from sqlalchemy import Engine, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_server.clock import Clock
from model_server.db.base import Base, UtcDateTime, reading
from model_server.errors import Forbidden, Unauthorized

__all__ = ["Credentials", "Kind", "add_credential", "has_credentials"]

PREFIX = {"admin": "esk_", "fleet": "esf_"}
REMEMBER_S = 30.0  # a removed key may still work for this long
MAX_REMEMBERED = 4096


class Kind(StrEnum):
    ADMIN = "admin"  # may change the fleet, and do what a device may
    FLEET = "fleet"  # a device: outcomes, telemetry, inference


class CredentialRow(Base):
    __tablename__ = "credentials"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcDateTime)


def add_credential(session: Session, kind: Kind, name: str, now: datetime) -> str:
    """Make a key and keep its digest. The key itself is returned once and stored nowhere."""
    token = PREFIX[kind] + secrets.token_urlsafe(32)
    session.add(CredentialRow(digest=_digest(token), kind=kind.value, name=name, created=now))
    return token


def has_credentials(session: Session) -> bool:
    return session.execute(select(CredentialRow.digest).limit(1)).first() is not None


class Credentials:
    """Who an ``Authorization`` header belongs to. Answers are remembered for `REMEMBER_S`, so that one request of a
    million does not cost one query of a million."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[str, tuple[float, Kind, str]] = {}
        self._lock = Lock()

    def identify(self, authorization: str | None) -> tuple[Kind, str] | None:
        """The kind and name of the caller, or None for a missing or unknown key."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > 200:
            return None
        digest, now = _digest(token), self._clock.monotonic()
        known = self._known.get(digest)
        if known is None or known[0] < now:
            with reading(self._engine) as session:
                row = session.execute(select(CredentialRow).where(CredentialRow.digest == digest)).scalar_one_or_none()
            if row is None:
                return None
            known = (now + REMEMBER_S, Kind(row.kind), row.name)
            with self._lock:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[digest] = known
        return known[1], known[2]

    def require(self, *kinds: Kind) -> Callable[[str | None], str]:
        """A check that returns the caller's name, as in ``admin:alice``, or raises Unauthorized or Forbidden."""

        def check(authorization: str | None) -> str:
            caller = self.identify(authorization)
            if caller is None:
                raise Unauthorized("send a known key as `Authorization: Bearer <key>`")
            if caller[0] not in kinds:
                raise Forbidden(f"this needs a key of kind {' or '.join(kinds)}")
            return f"{caller[0].value}:{caller[1]}"

        return check


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
