"""People and their keys."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Date, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from model_server.db.base import Base, UtcDateTime

__all__ = ["PersonKeyRow", "PersonRow"]


class PersonRow(Base):
    """Never deleted: the audit log names them."""

    __tablename__ = "people"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    role: Mapped[str] = mapped_column(String(32))
    password: Mapped[str | None] = mapped_column(String(256))  # an Argon2 hash in PHC's form
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    disabled: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PersonKeyRow(Base):
    """An API key, or the key of a session. The key itself is stored nowhere."""

    __tablename__ = "person_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)  # to speak of it; opens nothing
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    person: Mapped[str] = mapped_column(ForeignKey("people.name"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(64))
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    expires: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used: Mapped[date | None] = mapped_column(Date)
    revoked: Mapped[datetime | None] = mapped_column(UtcDateTime)
