"""Run by Alembic: migrates the connection that `mh_conductor.store` opened, in its transaction."""

from alembic import context

from mh_conductor.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True
)
context.run_migrations()
