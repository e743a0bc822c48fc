"""Run by Alembic: migrations use the connection that `database` hands over, in its transaction."""

from alembic import context

from fairlead.store.annotation.totals import Table  # of all modules with tables

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Table.metadata, render_as_batch=True
)
context.run_migrations()
