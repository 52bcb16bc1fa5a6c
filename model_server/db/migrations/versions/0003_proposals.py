"""What people sign is a table of its own: a policy is signed as a release is. And a table of alerts."""

import sqlalchemy as sa
from alembic import op

from model_server.db.base import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    old = sa.MetaData()
    old.reflect(connection, only=["releases", "release_files", "release_signatures"])
    rows = {
        name: [dict(row._mapping) for row in connection.execute(sa.select(old.tables[name])).all()]
        for name in old.tables
    }
    # SQLite cannot change a table that others refer to, so all three are made anew.
    for name in ("release_signatures", "release_files", "releases"):
        op.drop_table(name)
    _create()
    _fill(connection, rows)


def _create() -> None:
    op.create_table(
        "proposals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("role", sa.String(length=80), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("pending", sa.LargeBinary(), nullable=False),
        sa.Column("proposed_by", sa.String(length=128), nullable=False),
        sa.Column("proposed_at", UtcDateTime(), nullable=False),
        sa.Column("published_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
    )
    op.create_index(op.f("ix_proposals_role"), "proposals", ["role"], unique=False)
    op.create_table(
        "proposal_signatures",
        sa.Column("proposal_id", sa.Integer(), nullable=False),
        sa.Column("keyid", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("signature", sa.String(length=1024), nullable=False),
        sa.Column("signed_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_proposal_signatures_proposal_id")),
        sa.PrimaryKeyConstraint("proposal_id", "keyid", name=op.f("pk_proposal_signatures")),
    )
    op.create_table(
        "policies",
        sa.Column("proposal_id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_policies_proposal_id")),
        sa.PrimaryKeyConstraint("proposal_id", name=op.f("pk_policies")),
    )
    op.create_index(op.f("ix_policies_model"), "policies", ["model"], unique=False)
    op.create_table(
        "releases",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("bundle_sha256", sa.String(length=64), nullable=False),
        sa.Column("proposal_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_releases_proposal_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("model", "release", name=op.f("uq_releases_model_release")),
    )
    op.create_table(
        "release_files",
        sa.Column("release_id", sa.Integer(), nullable=False),
        sa.Column("file", sa.String(length=128), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_release_files_release_id")),
        sa.PrimaryKeyConstraint("release_id", "file", name=op.f("pk_release_files")),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("level", sa.String(length=32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("raised", UtcDateTime(), nullable=False),
        sa.Column("cleared", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_cleared"), "alerts", ["cleared"], unique=False)


def _fill(connection: sa.Connection, rows: dict[str, list[dict[str, object]]]) -> None:
    new = sa.MetaData()
    new.reflect(connection, only=["proposals", "proposal_signatures", "releases", "release_files"])
    proposals, signatures = new.tables["proposals"], new.tables["proposal_signatures"]
    releases, files = new.tables["releases"], new.tables["release_files"]
    for row in rows["releases"]:
        proposal_id = connection.execute(
            sa.insert(proposals)
            .values(
                role=f"releases-{row['model']}",
                subject=f"{row['model']}/{row['release']}",
                version=row["metadata_version"],
                pending=row["pending"],
                proposed_by=row["staged_by"],
                proposed_at=row["staged_at"],
                published_at=row["published_at"],
            )
            .returning(proposals.c.id)
        ).scalar_one()
        kept = {name: row[name] for name in ("model", "release", "version", "state", "bundle_sha256")}
        release_id = connection.execute(
            sa.insert(releases).values(**kept, proposal_id=proposal_id).returning(releases.c.id)
        ).scalar_one()
        for file in rows["release_files"]:
            if file["release_id"] == row["id"]:
                connection.execute(sa.insert(files).values(**{**file, "release_id": release_id}))
        for signature in rows["release_signatures"]:
            if signature["release_id"] == row["id"]:
                kept = {name: value for name, value in signature.items() if name != "release_id"}
                connection.execute(sa.insert(signatures).values(**kept, proposal_id=proposal_id))


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only: restore the backup from before the upgrade")
