"""The registry's tables. File contents are in the blob store; the truth about what is published is the repository."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from model_server.db.base import Base, UtcDateTime

__all__ = ["FileRow", "ReleaseRow", "ReleaseState", "SignatureRow"]


class ReleaseState(StrEnum):
    STAGED = "staged"
    PUBLISHED = "published"


class ReleaseRow(Base):
    """``pending`` is the unsigned next metadata of ``releases-<model>`` that adds this release."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("model", "release"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    release: Mapped[int]
    version: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    bundle_sha256: Mapped[str] = mapped_column(String(64))
    metadata_version: Mapped[int]
    pending: Mapped[bytes] = mapped_column(LargeBinary)
    staged_by: Mapped[str] = mapped_column(String(128))
    staged_at: Mapped[datetime] = mapped_column(UtcDateTime)
    published_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    files: Mapped[list[FileRow]] = relationship(cascade="all, delete-orphan", order_by="FileRow.file")
    signatures: Mapped[list[SignatureRow]] = relationship(
        cascade="all, delete-orphan", order_by="SignatureRow.signed_at"
    )


class FileRow(Base):
    """A file of a release; ``file`` is its name inside ``models/<model>/<release>/``."""

    __tablename__ = "release_files"

    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    file: Mapped[str] = mapped_column(String(128), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class SignatureRow(Base):
    """A verified signature over ``pending``."""

    __tablename__ = "release_signatures"

    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    keyid: Mapped[str] = mapped_column(String(64), primary_key=True)
    person: Mapped[str] = mapped_column(String(64))
    signature: Mapped[str] = mapped_column(String(1024))
    signed_at: Mapped[datetime] = mapped_column(UtcDateTime)
