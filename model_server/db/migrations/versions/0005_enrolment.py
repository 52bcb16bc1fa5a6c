"""Enrolment tokens, and the devices that they let in."""

import sqlalchemy as sa
from alembic import op

from model_server.db.base import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "enrolment_tokens",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("group", sa.String(length=64), nullable=True),
        sa.Column("uses", sa.Integer(), nullable=False),
        sa.Column("used", sa.Integer(), nullable=False),
        sa.Column("per_hour", sa.Integer(), nullable=True),
        sa.Column("hour", UtcDateTime(), nullable=True),
        sa.Column("hour_used", sa.Integer(), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("expires", UtcDateTime(), nullable=False),
        sa.Column("revoked", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_enrolment_tokens")),
        sa.UniqueConstraint("digest", name=op.f("uq_enrolment_tokens_digest")),
    )
    op.create_table(
        "enrolled_devices",
        sa.Column("device", sa.String(length=128), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=True),
        sa.Column("group", sa.String(length=64), nullable=True),
        sa.Column("token", sa.String(length=12), nullable=False),
        sa.Column("enrolled", UtcDateTime(), nullable=False),
        sa.Column("revoked", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_enrolled_devices")),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only: restore the backup from before the upgrade")
