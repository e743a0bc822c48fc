"""Copies of an SQLite database, made while it is in use, and put back."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from fairlead.core.errors import StoreError, explain
from fairlead.core.io import atomic_path
from fairlead.store.annotation.database import Database


def back_up(database: Database, out: Path) -> int:
    """Copy the database as of one moment; return the bytes of the copy.

    Raises:
        StoreError: it is on PostgreSQL, which has pg_dump.
    """
    if database.file is None:
        raise StoreError(
            explain(
                "db",
                "postgresql",
                "is not copied by Fairlead",
                expected="an SQLite file",
                remedy="Use pg_dump and pg_restore",
            )
        )
    with atomic_path(out) as draft, closing(sqlite3.connect(database.file)) as source, closing(sqlite3.connect(draft)) as copy:  # fmt: skip
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    out.chmod(0o600)
    _check(out)
    return out.stat().st_size


def restore(backup: Path, target: Path, *, replaces: bool) -> None:
    """Put a copy in the place of a database that no server has open.

    Args:
        replaces: the target may exist; it is kept beside as `.before-restore`.
    Raises:
        StoreError: the copy is damaged, or the target is there and `replaces` is not given.
    """
    _check(backup)
    if target.exists() and not replaces:
        raise StoreError(
            explain(
                target,
                None,
                "is there already",
                expected="a free place",
                remedy="Add --replace; the old file is kept beside it",
            )
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        with closing(sqlite3.connect(target)) as old:
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        target.replace(target.with_name(f"{target.name}.before-restore"))
    for ending in ("-wal", "-shm"):
        target.with_name(target.name + ending).unlink(missing_ok=True)
    with atomic_path(target) as draft:
        shutil.copyfile(backup, draft)
    target.chmod(0o600)


def _check(file: Path) -> None:
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchone()[0]
            connection.execute("SELECT count(*) FROM events")
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise StoreError(explain(file, None, f"is no whole database of votes ({found})", expected="a file that `fairlead annotate backup` wrote",
                                 remedy="Use another copy"))  # fmt: skip
