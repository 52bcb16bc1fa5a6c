"""Telemetry's tables. The first two hold what is not private yet, and are emptied when a day closes."""

from __future__ import annotations

from datetime import date

from sqlalchemy import BigInteger, Date, Float, Index, LargeBinary, SmallInteger, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from model_server.db.base import Base

__all__ = ["BaselineRow", "DailyIdRow", "OpenCohortRow", "SumRow"]


class OpenCohortRow(Base):
    """The exact sum of a cohort whose day is not over: ``sums`` are little-endian int64, one a cell."""

    __tablename__ = "telemetry_open"

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    release: Mapped[int] = mapped_column(primary_key=True)
    layout: Mapped[str] = mapped_column(String(16), primary_key=True)  # the layout's digest in hex
    arm: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    sums: Mapped[bytes] = mapped_column(LargeBinary)


class DailyIdRow(Base):
    """A random daily id that has been counted, so that a repeated report is refused."""

    __tablename__ = "telemetry_ids"
    __table_args__ = ({"sqlite_with_rowid": False},)

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    daily_id: Mapped[bytes] = mapped_column(LargeBinary(16), primary_key=True)


class SumRow(Base):
    """The one noised release of a cohort. ``cells`` are little-endian int64; ``variance`` is the noise's, per cell."""

    __tablename__ = "telemetry_sums"
    __table_args__ = (
        UniqueConstraint("day", "model", "release", "layout", "arm"),
        Index("ix_telemetry_sums_model_day", "model", "day"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    day: Mapped[date] = mapped_column(Date)
    model: Mapped[str] = mapped_column(String(64))
    release: Mapped[int]
    layout: Mapped[str] = mapped_column(String(16))
    arm: Mapped[int] = mapped_column(SmallInteger)
    epsilon: Mapped[float] = mapped_column(Float)
    delta: Mapped[float] = mapped_column(Float)
    variance: Mapped[int] = mapped_column(BigInteger)
    cells: Mapped[bytes] = mapped_column(LargeBinary)


class BaselineRow(Base):
    """An approved field baseline; the newest of a model is in force. ``document`` is the JSON of `baseline.Frozen`."""

    __tablename__ = "telemetry_baselines"

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(64), index=True)
    layout: Mapped[str] = mapped_column(String(16))
    first_day: Mapped[date] = mapped_column(Date)
    last_day: Mapped[date] = mapped_column(Date)
    approved_by: Mapped[str] = mapped_column(String(128))
    approved_on: Mapped[date] = mapped_column(Date)
    document: Mapped[str] = mapped_column(Text)
