"""Run by Alembic: migrations use the connection that `database` hands over, in its transaction."""

from alembic import context

# All modules with tables are imported, so that their tables are known.
from fairlead.store.annotation import leading, schema, steering, totals  # noqa: F401  # pyright: ignore[reportUnusedImport]

context.configure(
    connection=context.config.attributes["connection"], target_metadata=schema.Table.metadata, render_as_batch=True
)
context.run_migrations()
