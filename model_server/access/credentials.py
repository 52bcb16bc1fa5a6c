"""The fleet's token, which all devices share: kept as a digest, and remembered for a while."""

from __future__ import annotations

from datetime import datetime
from threading import Lock

from sqlalchemy import Engine, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_server.access.keys import digest_of, make_token
from model_server.clock import Clock
from model_server.db.base import Base, UtcDateTime, reading

__all__ = ["REMEMBER_S", "CredentialRow", "FleetTokens", "add_fleet_token"]

FLEET = "fleet"
PREFIX = "esf_"
REMEMBER_S = 30.0  # a removed token may still work for this long
MAX_REMEMBERED = 4096


class CredentialRow(Base):
    __tablename__ = "credentials"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcDateTime)


def add_fleet_token(session: Session, name: str, now: datetime) -> str:
    """Make a token and keep its digest. The token itself is returned once and stored nowhere."""
    token = make_token(PREFIX)
    session.add(CredentialRow(digest=digest_of(token), kind=FLEET, name=name, created=now))
    return token


class FleetTokens:
    """Answers are remembered for `REMEMBER_S`, so that one request of a million does not cost one query of a
    million."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._known: dict[str, tuple[float, str]] = {}
        self._lock = Lock()

    def name_of(self, token: str) -> str | None:
        """The name of the token, or None for one that is not known."""
        digest, now = digest_of(token), self._clock.monotonic()
        known = self._known.get(digest)
        if known is None or known[0] < now:
            with reading(self._engine) as session:
                query = select(CredentialRow).where(CredentialRow.digest == digest, CredentialRow.kind == FLEET)
                row = session.execute(query).scalar_one_or_none()
            if row is None:
                return None
            known = (now + REMEMBER_S, row.name)
            with self._lock:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[digest] = known
        return known[1]
