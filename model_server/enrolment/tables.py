"""Tables of enrolment: tokens by their digests, and devices by their public keys. No secret is in either."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from model_server.db.base import Base, UtcDateTime

__all__ = ["EnrolledDeviceRow", "EnrolmentTokenRow"]


class EnrolmentTokenRow(Base):
    """``id`` is the start of the digest, for people. ``hour`` began when the first device of it enrolled."""

    __tablename__ = "enrolment_tokens"

    id: Mapped[str] = mapped_column(String(12), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    group: Mapped[str | None] = mapped_column(String(64))
    uses: Mapped[int]
    used: Mapped[int]
    per_hour: Mapped[int | None]
    hour: Mapped[datetime | None] = mapped_column(UtcDateTime)
    hour_used: Mapped[int]
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(128))
    expires: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked: Mapped[datetime | None] = mapped_column(UtcDateTime)


class EnrolledDeviceRow(Base):
    """``public_key`` is None from a reset to the next enrolment. When a device last sent anything is not kept here: its
    telemetry is anonymous."""

    __tablename__ = "enrolled_devices"

    device: Mapped[str] = mapped_column(String(128), primary_key=True)
    public_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    group: Mapped[str | None] = mapped_column(String(64))
    token: Mapped[str] = mapped_column(String(12))
    enrolled: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked: Mapped[datetime | None] = mapped_column(UtcDateTime)
