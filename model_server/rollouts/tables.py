"""The tables of rollouts, devices and what they reported."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from model_server.db.base import Base, UtcDateTime

__all__ = ["ArmRow", "DeviceRow", "EventRow", "RolloutDeviceRow", "RolloutRow", "StageRow"]


class RolloutRow(Base):
    """A rollout. ``stage`` is an index into ``stages``; their number once it is complete. ``settled`` is when every
    known device ran what the end of the rollout asks for."""

    __tablename__ = "rollouts"
    __table_args__ = (UniqueConstraint("model", "channel", "number"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    channel: Mapped[str] = mapped_column(String(64))
    number: Mapped[int]
    candidate: Mapped[int]
    baseline: Mapped[int | None]
    salt: Mapped[str] = mapped_column(String(64))
    share: Mapped[int]
    holdback: Mapped[int]
    predicate: Mapped[str | None] = mapped_column(Text)  # JSON
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    stages: Mapped[str] = mapped_column(Text)  # JSON list
    stage: Mapped[int]
    growth: Mapped[str] = mapped_column(String(8))
    on_breach: Mapped[str] = mapped_column(String(8))
    limits: Mapped[str] = mapped_column(Text)  # JSON object
    approval_asked: Mapped[bool] = mapped_column(default=False)
    reports: Mapped[int] = mapped_column(BigInteger, default=0)
    candidate_reports: Mapped[int] = mapped_column(BigInteger, default=0)
    reports_before_halt: Mapped[int | None] = mapped_column(BigInteger)
    created: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(128))
    ended: Mapped[datetime | None] = mapped_column(UtcDateTime)
    settled: Mapped[datetime | None] = mapped_column(UtcDateTime)


class StageRow(Base):
    """A stage that was begun; its counts are filled in when it ends."""

    __tablename__ = "rollout_stages"

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    stage: Mapped[str] = mapped_column(String(32))
    share: Mapped[int]
    selected: Mapped[int]
    reports_at_start: Mapped[int] = mapped_column(BigInteger)
    started: Mapped[datetime] = mapped_column(UtcDateTime)
    ended: Mapped[datetime | None] = mapped_column(UtcDateTime)
    devices_known: Mapped[int | None]
    adopted: Mapped[int | None]


class EventRow(Base):
    """What happened to a rollout, with the numbers behind each decision."""

    __tablename__ = "rollout_events"

    id: Mapped[int] = mapped_column(primary_key=True)
    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), index=True)
    time: Mapped[datetime] = mapped_column(UtcDateTime)
    event: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(Text)
    numbers: Mapped[str] = mapped_column(Text)  # JSON object


class DeviceRow(Base):
    """A device that has reported about a model. ``sequence`` is that of its last accepted report."""

    __tablename__ = "devices"
    __table_args__ = (Index("ix_devices_model_channel", "model", "channel"),)

    device: Mapped[str] = mapped_column(String(128), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    channel: Mapped[str] = mapped_column(String(64))
    attributes: Mapped[str] = mapped_column(Text)  # JSON object
    running: Mapped[int | None]
    arm: Mapped[str] = mapped_column(String(16))
    rollout: Mapped[str | None] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    first_seen: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen: Mapped[datetime] = mapped_column(UtcDateTime)


class RolloutDeviceRow(Base):
    """A known device's part in a rollout. ``status`` is pending, adopted, failed or incompatible; the counters are of
    its requests to the candidate."""

    __tablename__ = "rollout_devices"
    __table_args__ = (Index("ix_rollout_devices_rollout_bucket", "rollout", "bucket"),)

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    device: Mapped[str] = mapped_column(String(128), primary_key=True)
    bucket: Mapped[int] = mapped_column(BigInteger)
    eligible: Mapped[bool]
    running: Mapped[int | None]
    status: Mapped[str] = mapped_column(String(16))
    last_outcome: Mapped[str | None] = mapped_column(String(64))
    last_report: Mapped[datetime | None] = mapped_column(UtcDateTime)
    adopted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    fallbacks: Mapped[int] = mapped_column(BigInteger, default=0)
    refused: Mapped[int] = mapped_column(BigInteger, default=0)


class ArmRow(Base):
    """The counters of one arm of a rollout, each report's as `outcomes.weighed` makes them. Latencies are
    JSON objects, bin → count."""

    __tablename__ = "rollout_arms"

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    arm: Mapped[str] = mapped_column(String(16), primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger, default=0)
    errors: Mapped[int] = mapped_column(BigInteger, default=0)
    fallbacks: Mapped[int] = mapped_column(BigInteger, default=0)
    refused: Mapped[int] = mapped_column(BigInteger, default=0)
    latency_device: Mapped[str] = mapped_column(Text, default="{}")
    latency_cloud: Mapped[str] = mapped_column(Text, default="{}")
