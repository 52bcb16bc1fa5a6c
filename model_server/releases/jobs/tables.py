"""The table of jobs."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from model_server.db.base import Base, UtcDateTime

__all__ = ["OPEN", "JobRow", "JobState"]


class JobState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


OPEN = (JobState.WAITING, JobState.RUNNING)


class JobRow(Base):
    """An upload that is staged, or was. ``server`` has it in its spool and was last ``heard`` of then; it was begun
    ``starts`` times. ``stage`` is where the work is: step ``step`` of ``steps``, 0 of 0 where it has none."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    server: Mapped[str] = mapped_column(String(512))
    bundle_sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    options: Mapped[str] = mapped_column(Text)  # canonical JSON
    created_by: Mapped[str] = mapped_column(String(128))
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    heard: Mapped[datetime] = mapped_column(UtcDateTime)
    started: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended: Mapped[datetime | None] = mapped_column(UtcDateTime)
    starts: Mapped[int] = mapped_column(default=0)
    stage: Mapped[str] = mapped_column(String(16), default="")
    step: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int] = mapped_column(default=0)
    cancelling: Mapped[bool] = mapped_column(default=False)
    model: Mapped[str | None] = mapped_column(String(64))
    release: Mapped[int | None]
    problem: Mapped[str | None] = mapped_column(Text)  # JSON, RFC 9457
