"""SQLite's write-ahead log is copied into the file by a thread of its own, so that no vote pays for it.

Left alone, the commit that makes the log a thousand pages long copies it: now and then one, and whoever waits
behind it, would take a thousand page writes and a sync of the file longer.

    votes   --commit--commit--commit--commit--|      |--commit--commit--
    thread       ---- copy, votes go on ---   '-rest-'                        the log begins anew: nothing in it is needed any more

What is acknowledged is in the log, on disk, before (`synchronous=FULL`); a copy that never comes is made when the file is opened again.

Example:
    with log_copied(database):
        uvicorn.run(app)
"""

import contextlib
import functools
import sqlite3
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import sqlalchemy.event
from sqlalchemy.exc import DBAPIError

from fairlead.store.annotation.beside import beside
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.faults import WriterBusy

EVERY_S = 1.0
MAX_PAGES = 4_000
"""Of the log, 16 MB; beyond, the rest is copied in the writer's turn: some pages and a sync, every few seconds of full load."""
_MAX_LEFT_PAGES = 50_000
"""Of the log, at which a commit copies it after all: the thread lags behind, or a long reading keeps it from copying."""


@contextlib.contextmanager
def log_copied(database: Database) -> Generator[None]:
    """Copy the log beside the block; nothing to do for PostgreSQL, which has processes for it."""
    if database.file is None:
        yield
        return
    sqlalchemy.event.listen(database.engine, "connect", _leave_it)
    database.engine.dispose()  # connections from now on
    try:
        with beside(functools.partial(_copy, database, database.file), name="log copy"):
            yield
    finally:
        sqlalchemy.event.remove(database.engine, "connect", _leave_it)
        database.engine.dispose()


def _leave_it(connection: Any, _record: object) -> None:
    connection.execute(f"PRAGMA wal_autocheckpoint={_MAX_LEFT_PAGES}")


def _copy(database: Database, file: Path, ended: threading.Event) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        while not ended.wait(EVERY_S):
            with contextlib.suppress(sqlite3.Error, DBAPIError, WriterBusy):  # a full disk, say: the next one may do it
                num_pages, num_copied = _copy_once(connection)
                if num_pages > MAX_PAGES and num_copied == num_pages:
                    with database.write():
                        _copy_once(connection)


def _copy_once(connection: sqlite3.Connection) -> tuple[int, int]:
    """Pages of the log, and how many of them are in the file now. Waits for nobody, and nobody waits for it."""
    _, num_pages, num_copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return num_pages, num_copied
