"""What waits for people's signatures. The truth about what is published is the repository."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from model_server.db.base import Base, UtcDateTime

__all__ = ["ProposalRow", "SignatureRow"]


class ProposalRow(Base):
    """``pending`` is the unsigned next metadata of ``role``; ``subject`` is what it would change."""

    __tablename__ = "proposals"

    id: Mapped[int] = mapped_column(primary_key=True)
    role: Mapped[str] = mapped_column(String(80), index=True)
    subject: Mapped[str] = mapped_column(String(128))
    version: Mapped[int]
    pending: Mapped[bytes] = mapped_column(LargeBinary)
    proposed_by: Mapped[str] = mapped_column(String(128))
    proposed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    signatures: Mapped[list[SignatureRow]] = relationship(
        cascade="all, delete-orphan", order_by="SignatureRow.signed_at"
    )


class SignatureRow(Base):
    """A verified signature over ``pending``."""

    __tablename__ = "proposal_signatures"

    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposals.id"), primary_key=True)
    keyid: Mapped[str] = mapped_column(String(64), primary_key=True)
    person: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(String(1024))
    signed_at: Mapped[datetime] = mapped_column(UtcDateTime)
