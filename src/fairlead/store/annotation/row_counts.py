"""PostgreSQL plans by what it last counted; a project that begins grows faster than its daemon counts, once a minute at most.

Until a table is counted again, plans that were made for an empty one read all of it for every item that is handed out. So the server has
tables counted when their rows have doubled: a few milliseconds each time, and other processes make their plans anew.

Example:
    with counts_kept(database):
        uvicorn.run(app)
"""

import contextlib
import functools
import threading
from collections.abc import Generator

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from fairlead.store.annotation.beside import beside
from fairlead.store.annotation.database import Database

EVERY_S = 2.0
_GROWN = sa.text(
    "SELECT relname FROM pg_stat_user_tables WHERE schemaname = current_schema() AND n_mod_since_analyze > 50 + 0.5 * n_live_tup"
)


@contextlib.contextmanager
def counts_kept(database: Database) -> Generator[None]:
    """Have grown tables counted beside the block; nothing to do for SQLite, whose plans follow its indexes."""
    if database.is_sqlite:
        yield
        return
    with beside(functools.partial(_keep, database), name="row counts"):
        yield


def count_grown(database: Database) -> list[str]:
    """Have tables counted whose rows have doubled since they were; return their names."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        names = list(connection.execute(_GROWN).scalars())
        for name in names:
            connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.quote(name)}")
    return names


def _keep(database: Database, ended: threading.Event) -> None:
    while not ended.is_set():
        with contextlib.suppress(DBAPIError):  # the database is away, say: the next one may do it
            count_grown(database)
        ended.wait(EVERY_S)
