"""The server's database: one SQLAlchemy metadata for every part, migrated by Alembic."""
