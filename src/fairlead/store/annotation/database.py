"""Open the database of the rating application, bring it to the current version, and run transactions on it.

One writer: `Database.write` waits for its turn in the process and begins the transaction as a writer at once, so that SQLite never has to
turn a reader into a writer; writes that wait share a commit (`writer`). `Database.read` runs beside it.

Example:
    with open_database("runs/annotate/votes.db") as database:
        with database.write() as rows:
            rows.add(Project(...))
"""

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Mapping, Sequence
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
from fairlead.store.annotation import postgres
from fairlead.store.annotation import steering as steering  # its tables belong to the schema
from fairlead.store.annotation import talked as talked  # its table belongs to the schema
from fairlead.store.annotation import written as written  # its tables belong to the schema
from fairlead.store.annotation.faults import WriterBusy
from fairlead.store.annotation.writer import TooLong, Writer

READS = "reads"
"""Key in the `info` of rows that see only what is committed."""
BUSY_TIMEOUT_S = 5.0
"""How long a writer waits for another one of this process, and then for another process (an import beside the server), before it says so.
A browser waits 15 seconds for an answer."""
_BEGIN_READING = {"sqlite": "BEGIN", "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"}
_MIGRATIONS = Path(__file__).parent / "migrations"


def run(
    rows: Rows, statement: sa.Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]]
) -> sa.CursorResult[*tuple[Any, ...]]:
    """Run a statement of columns in the transaction of `rows`, past what the session keeps of rows."""
    assert isinstance(rows.bind, sa.Connection), "rows of `Database.read` or `write` have a connection"
    return rows.bind.execute(statement, values)


class Database:
    """Connections to one database. Thread-safe; close it when done."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writer = Writer(self._begin)

    @property
    def is_sqlite(self) -> bool:
        """SQLite, or PostgreSQL?"""
        return self.engine.dialect.name == "sqlite"

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(str(self.engine.url.database)) if self.is_sqlite else None

    @contextlib.contextmanager
    def write(self, *, is_urgent: bool = False) -> Generator[Rows]:
        """A transaction that is on disk when the block ends, or undone when it raises.

        Args:
            is_urgent: somebody waits for this one; others of the same moment wait for it.
        Raises:
            WriterBusy: other writes take too long.
        """
        try:
            with self._writer.write(is_urgent=is_urgent, timeout_s=BUSY_TIMEOUT_S) as rows:
                yield rows
        except TooLong:
            raise WriterBusy(explain("database", None, "is busy with another write", expected=f"an answer within {BUSY_TIMEOUT_S:g} s",
                                     remedy="Try again")) from None  # fmt: skip

    def _begin(self) -> sa.Connection:
        connection = self.engine.connect()
        try:
            connection.begin()
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextlib.contextmanager
    def read(self) -> Generator[Rows]:
        """A view of one moment; nothing that is changed in it is kept."""
        with self.engine.connect() as connection:
            connection.exec_driver_sql(_BEGIN_READING[self.engine.dialect.name])
            with Rows(connection, expire_on_commit=False, info={READS: True}) as rows:
                yield rows

    def ask(self, statement: sa.Executable, values: Mapping[str, Any]) -> Sequence[sa.Row[Any]]:
        """The answer to one question, without the cost of a view."""
        with self.engine.connect() as connection:
            return connection.execute(statement, values).all()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_database(place: str | Path, *, migrate: bool = True, is_durable: bool = True) -> Database:
    """Open a file (SQLite) or a URL (postgresql://user@host/name).

    Args:
        migrate: bring it to this version's tables first; an empty one is made.
        is_durable: commits of SQLite are on disk, as everywhere but in tests; PostgreSQL decides by its own settings.
    Raises:
        StoreError: it cannot be opened, or a newer version of Fairlead wrote it.
    """
    url = _url(str(place))
    database = Database(_engine(url, is_durable=is_durable))
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


def _engine(url: sa.URL, *, is_durable: bool) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        engine = sa.create_engine(url, pool_size=20, max_overflow=30)
        postgres.use(engine)
        sqlalchemy.event.listen(engine, "connect", _prepare_postgresql)
        return engine
    is_new = not Path(str(url.database)).exists()
    engine = sa.create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}, pool_size=20, max_overflow=30
    )
    prepare = functools.partial(_prepare_sqlite, synchronous="FULL" if is_durable else "OFF")
    sqlalchemy.event.listen(engine, "connect", prepare)
    sqlalchemy.event.listen(engine, "do_execute", _has_ended)
    if is_new:
        os.close(os.open(str(url.database), os.O_CREAT | os.O_WRONLY, 0o600))
    return engine


def _prepare_sqlite(connection: Any, _record: object, *, synchronous: str) -> None:
    """A write-ahead log, synced at every commit (FULL); transactions are begun by `Database`, not by the driver."""
    connection.isolation_level = None
    for setting in ("journal_mode=WAL", f"synchronous={synchronous}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}")


def _has_ended(cursor: Any, statement: str, _values: object, _context: object) -> bool:
    """Leave out what would undo a block of a transaction that SQLite has undone by itself, as it does when the disk is full."""
    return statement.startswith("ROLLBACK TO SAVEPOINT") and not cursor.connection.in_transaction


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


@functools.cache
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
