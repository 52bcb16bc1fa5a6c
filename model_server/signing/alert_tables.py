"""What a person must look at. How it reaches people is another part's matter."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from model_server.db.base import Base, UtcDateTime

__all__ = ["AlertRow"]


class AlertRow(Base):
    """``subject`` is what it is about, as in ``role/releases-exercise``; ``level`` is how urgent. It is open until
    ``cleared``."""

    __tablename__ = "alerts"

    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(128))
    level: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
    raised: Mapped[datetime] = mapped_column(UtcDateTime)
    cleared: Mapped[datetime | None] = mapped_column(UtcDateTime, index=True)
