"""Alembic's entry point: runs the migrations on the connection that `model_server.db.migrate` passes in."""

from alembic import context

from model_server.db.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata(), render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
