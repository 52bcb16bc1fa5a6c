"""The registry's tables. File contents are in the blob store; the truth about what is published is the repository."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from model_server.db.base import Base
from model_server.signing.tables import ProposalRow

__all__ = ["FileRow", "PolicyRow", "ReleaseRow", "ReleaseState"]


class ReleaseState(StrEnum):
    STAGED = "staged"
    PUBLISHED = "published"


class ReleaseRow(Base):
    """``proposal`` is the next metadata of ``releases-<model>`` that adds this release, and who has signed it;
    ``readiness`` is the gate's `Report`, which releases of older versions lack."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("model", "release"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    release: Mapped[int]
    version: Mapped[str] = mapped_column(String(128))
    state: Mapped[str] = mapped_column(String(16))
    bundle_sha256: Mapped[str] = mapped_column(String(64))
    readiness: Mapped[str | None] = mapped_column(Text)  # JSON
    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposals.id"))

    proposal: Mapped[ProposalRow] = relationship(cascade="all, delete-orphan", single_parent=True)
    files: Mapped[list[FileRow]] = relationship(cascade="all, delete-orphan", order_by="FileRow.file")


class FileRow(Base):
    """A file of a release; ``file`` is its name inside ``models/<model>/<release>/``."""

    __tablename__ = "release_files"

    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    file: Mapped[str] = mapped_column(String(128), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))


class PolicyRow(Base):
    """A change of a model's policy that waits for signatures or was published; ``document`` is its policy.json, empty
    where only the expiry changes."""

    __tablename__ = "policies"

    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposals.id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64), index=True)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    reason: Mapped[str] = mapped_column(Text)

    proposal: Mapped[ProposalRow] = relationship(cascade="all, delete-orphan", single_parent=True)
