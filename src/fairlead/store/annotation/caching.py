"""More memory for what reads or writes a whole project: SQLite keeps 2 MB of pages, and reads each of the others again at every use."""

import contextlib
from collections.abc import Generator

from fairlead.store.annotation.database import Rows

CACHE_MB = 256
"""Holds the indexes of a million verdicts."""


@contextlib.contextmanager
def large_cache(rows: Rows) -> Generator[None]:
    """Until the block ends. PostgreSQL has its own cache."""
    connection = rows.connection()
    is_sqlite = connection.dialect.name == "sqlite"
    before = connection.exec_driver_sql("PRAGMA cache_size").scalar() if is_sqlite else None
    if is_sqlite:
        connection.exec_driver_sql(f"PRAGMA cache_size={-1024 * CACHE_MB}")
    try:
        yield
    finally:
        if is_sqlite:
            connection.exec_driver_sql(f"PRAGMA cache_size={before}")
            connection.exec_driver_sql("PRAGMA shrink_memory")
