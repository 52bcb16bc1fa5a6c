"""Sessions: a password opens one, for a while."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete

from model_server.access.keys import KeyKind, add_key
from model_server.access.passwords import Passwords
from model_server.access.people import PEOPLE, is_name
from model_server.access.roles import Role
from model_server.access.service import Caller
from model_server.access.tables import PersonKeyRow, PersonRow
from model_server.access.throttle import Throttle
from model_server.audit import log as audit
from model_server.clock import Clock
from model_server.db.base import reading, writing
from model_server.errors import PasswordRefused, Unauthorized

__all__ = ["LIFETIME", "OpenedSession", "Sessions"]

LIFETIME = timedelta(hours=12)
KEPT = timedelta(days=30)  # an ended session is listed for this long
WRONG = "the name or the password is wrong, or the person is disabled or has no password"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSession:
    name: str
    role: Role
    key: str = field(repr=False)
    expires: datetime


class Sessions:
    def __init__(self, engine: Engine, clock: Clock, passwords: Passwords, throttle: Throttle | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._passwords = passwords
        self._throttle = throttle or Throttle()

    def open(self, name: str, password: str, address: str) -> OpenedSession:
        """Raises: Unauthorized, which does not tell what was wrong; TooManyTries."""
        self._throttle.begin(name, address, self._clock.monotonic())
        with reading(self._engine) as session:
            row = session.get(PersonRow, name) if is_name(name) else None
            known, hashed = row is not None, None if row is None or row.disabled is not None else row.password
        if not self._passwords.verify(hashed, password):
            self._refused(name if known else "unknown", address)
            raise Unauthorized(WRONG)
        return self._opened(name, password, hashed, address)

    def close(self, caller: Caller) -> None:
        """End the session, or revoke the API key, that the caller shows."""
        now = self._clock.now()
        with writing(self._engine, PEOPLE) as session:
            row = session.get(PersonKeyRow, caller.key)
            if row is not None and row.revoked is None:
                row.revoked = now
                audit.append(
                    session,
                    now,
                    actor=caller.actor,
                    action="session.closed",
                    subject=caller.name,
                    detail={"key": row.id},
                )

    def _opened(self, name: str, password: str, verified: str | None, address: str) -> OpenedSession:
        newer = self._newer_hash(verified, password)
        now = self._clock.now()
        with writing(self._engine, PEOPLE) as session:
            row = session.get(PersonRow, name)
            # The password may have been changed, or its owner disabled, while it was being verified.
            if row is None or row.disabled is not None or row.password != verified:
                raise Unauthorized(WRONG)
            if newer is not None:
                row.password = newer
            session.execute(
                delete(PersonKeyRow).where(
                    PersonKeyRow.person == name,
                    PersonKeyRow.kind == KeyKind.SESSION.value,
                    PersonKeyRow.expires < now - KEPT,
                )
            )
            made = add_key(session, name, KeyKind.SESSION, f"from {address}"[:64], now, LIFETIME)
            audit.append(
                session,
                now,
                actor=f"person:{name}",
                action="session.opened",
                subject=name,
                detail={"key": made.id, "address": address},
            )
            role = Role(row.role)
        self._throttle.succeeded(name, address)
        return OpenedSession(name=name, role=role, key=made.key, expires=now + LIFETIME)

    def _newer_hash(self, hashed: str | None, password: str) -> str | None:
        """A hash with today's parameters, where the one that was verified is older."""
        if hashed is None or not self._passwords.is_outdated(hashed):
            return None
        try:
            return self._passwords.hash(password)
        except PasswordRefused:  # allowed when it was chosen
            return None

    def _refused(self, subject: str, address: str) -> None:
        """A name that nobody has is not repeated: it may be a password in the wrong field."""
        with writing(self._engine, PEOPLE) as session:
            audit.append(
                session,
                self._clock.now(),
                actor="anybody",
                action="session.refused",
                subject=subject,
                detail={"address": address},
            )
