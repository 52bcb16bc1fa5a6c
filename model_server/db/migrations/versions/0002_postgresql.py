"""What the first schema lacked on PostgreSQL: an audit log that refuses changes and can outgrow 2^31 entries.

SQLite has had both from the first: its whole numbers have 64 bits.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    op.alter_column("audit", "sequence", existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False)
    op.execute(
        "CREATE FUNCTION audit_refuses() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_refuses_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_refuses()"
    )


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only: restore the backup from before the upgrade")
