"""Open the database of the rating application, bring it to the current version, and run transactions on it.

One writer: `Database.write` takes a lock of the process and begins the transaction as a writer at once, so that SQLite never has to
turn a reader into a writer. `Database.read` runs beside it.

Example:
    with open_database("runs/annotate/votes.db") as database:
        with database.write() as rows:
            rows.add(Project(...))
"""

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Self

import alembic.command
import alembic.config
import sqlalchemy as sa
import sqlalchemy.event
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session as Rows

from fairlead.core.errors import StoreError, explain
from fairlead.store.annotation import outside as outside  # its tables belong to the schema
from fairlead.store.annotation import steering as steering  # its tables belong to the schema
from fairlead.store.annotation import talked as talked  # its table belongs to the schema
from fairlead.store.annotation import written as written  # its tables belong to the schema
from fairlead.store.annotation.faults import WriterBusy

BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for another one of this process, and then for another process (an import beside the server), before it says so.
A browser waits 15 seconds for an answer."""
_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Connections to one database. Thread-safe; close it when done."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writer = threading.Lock()

    @property
    def is_sqlite(self) -> bool:
        """SQLite, or PostgreSQL?"""
        return self.engine.dialect.name == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(str(self.engine.url.database)) if self.is_sqlite else None

    @contextlib.contextmanager
    def write(self) -> Generator[Rows]:
        """A transaction that is on disk when the block ends, or undone when it raises.

        Raises:
            WriterBusy: another one takes too long.
        """
        if not self._writer.acquire(timeout=BUSY_TIMEOUT_S):
            raise WriterBusy(explain("database", None, "is busy with another write", expected=f"an answer within {BUSY_TIMEOUT_S:g} s",
                                     remedy="Try again"))  # fmt: skip
        try:
            with Rows(self.engine, expire_on_commit=False) as rows:
                if self.is_sqlite:
                    rows.execute(sa.text("BEGIN IMMEDIATE"))
                yield rows
                rows.commit()
        finally:
            self._writer.release()

    @contextlib.contextmanager
    def read(self) -> Generator[Rows]:
        """A view of one moment; nothing that is changed in it is kept."""
        with Rows(self.engine, expire_on_commit=False) as rows:
            rows.execute(
                sa.text("BEGIN" if self.is_sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            )
            yield rows

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(place: str | Path, *, migrate: bool = True) -> Database:
    """Open a file (SQLite) or a URL (postgresql://user@host/name).

    Args:
        migrate: bring it to this version's tables first; an empty one is made.
    Raises:
        StoreError: it cannot be opened, or a newer version of Fairlead wrote it.
    """
    url = _url(str(place))
    database = Database(_engine(url))
    try:
        if migrate:
            upgrade(database)
    except DBAPIError as error:
        database.close()
        raise StoreError(explain(url.render_as_string(), None, f"cannot be opened ({_cause(error)})", expected="an SQLite file or a PostgreSQL URL",
                                 remedy="Check the path, the server and its permissions")) from error  # fmt: skip
    except BaseException:
        database.close()
        raise
    return database


def _url(place: str) -> sa.URL:
    if "://" not in place:
        path = Path(place).expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return sa.URL.create("sqlite", database=str(path))
    try:
        url = sa.make_url(place)
    except ArgumentError as error:
        raise StoreError(
            explain(
                "db", None, "is no database URL", expected="a file, or postgresql://user@host/name", remedy="Correct it"
            )
        ) from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise StoreError(
            explain(
                "db",
                url.get_backend_name(),
                "is not supported",
                expected="sqlite or postgresql",
                remedy="Use one of them",
            )
        )
    return url if url.get_backend_name() == "sqlite" else url.set(drivername="postgresql+pg8000")


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        engine = sa.create_engine(url, pool_size=20, max_overflow=30)
        sqlalchemy.event.listen(engine, "connect", _prepare_postgresql)
        return engine
    is_new = not Path(str(url.database)).exists()
    engine = sa.create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}, pool_size=20, max_overflow=30
    )
    sqlalchemy.event.listen(engine, "connect", _prepare_sqlite)
    if is_new:
        os.close(os.open(str(url.database), os.O_CREAT | os.O_WRONLY, 0o600))
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """A write-ahead log that is synced at every commit; transactions are begun by `Database`, not by the driver."""
    connection.isolation_level = None
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _prepare_postgresql(connection: Any, _record: object) -> None:
    """Locks are waited for no longer than on SQLite."""
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = {int(1000 * BUSY_TIMEOUT_S)}")
    connection.commit()
    cursor.close()


def _configuration() -> alembic.config.Config:
    configuration = alembic.config.Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return configuration


def migrations() -> ScriptDirectory:
    """The versions that there are."""
    return ScriptDirectory.from_config(_configuration())


def upgrade(database: Database, version: str = "head") -> None:
    """Bring the tables to a version, in one transaction.

    Raises:
        StoreError: a newer version of Fairlead wrote the database.
    """
    script = migrations()
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        if current is not None and current not in {step.revision for step in script.walk_revisions()}:
            raise StoreError(explain("database version", current, "is not known", expected=f"<= {script.get_current_head()}",
                                     remedy="A newer Fairlead wrote it: upgrade fairlead"))  # fmt: skip
        if version == "head" and current == script.get_current_head():
            return
        _migrate(database, connection, alembic.command.upgrade, version)


def downgrade(database: Database, version: str) -> None:
    """Take the tables back to an earlier version (`base` removes them)."""
    with database.engine.connect() as connection:
        _migrate(database, connection, alembic.command.downgrade, version)


def _migrate(
    database: Database, connection: sa.Connection, step: Callable[[alembic.config.Config, str], None], version: str
) -> None:
    configuration = _configuration()
    configuration.attributes["connection"] = connection
    if database.is_sqlite:
        connection.execute(sa.text("BEGIN IMMEDIATE"))
    step(configuration, version)
    connection.commit()


def version_of(database: Database) -> str | None:
    """Name of the migration that the tables are at."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _cause(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())[:120]
