"""People with roles and keys. The admin key of before becomes a key of a person `admin`."""

import secrets

import sqlalchemy as sa
from alembic import op

from model_server.db.base import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    people = op.create_table(
        "people",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("password", sa.String(length=256), nullable=True),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("disabled", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_people")),
    )
    keys = op.create_table(
        "person_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("person", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created", UtcDateTime(), nullable=False),
        sa.Column("expires", UtcDateTime(), nullable=True),
        sa.Column("last_used", sa.Date(), nullable=True),
        sa.Column("revoked", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["person"], ["people.name"], name=op.f("fk_person_keys_person")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_person_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_person_keys_digest")),
    )
    op.create_index(op.f("ix_person_keys_person"), "person_keys", ["person"], unique=False)
    connection = op.get_bind()
    credentials = sa.MetaData()
    credentials.reflect(connection, only=["credentials"])
    old = credentials.tables["credentials"]
    admins = connection.execute(
        sa.select(old.c.digest, old.c.name, sa.type_coerce(old.c.created, UtcDateTime())).where(old.c.kind == "admin")
    ).all()
    if not admins:
        return
    first = min(created for _, _, created in admins)
    op.bulk_insert(people, [{"name": "admin", "role": "admin", "password": None, "created": first, "disabled": None}])
    op.bulk_insert(
        keys,
        [
            {
                "id": secrets.token_hex(6),
                "digest": digest,
                "person": "admin",
                "kind": "api",
                "name": name,
                "created": created,
                "expires": None,
                "last_used": None,
                "revoked": None,
            }
            for digest, name, created in admins
        ],
    )
    connection.execute(sa.delete(old).where(old.c.kind == "admin"))


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only: restore the backup from before the upgrade")
