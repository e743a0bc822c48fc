"""SQLite's log is copied beside the votes: no commit copies it, and it does not grow for ever."""

import time
from pathlib import Path

import sqlalchemy as sa

from fairlead.store.annotation import log_copy
from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.log_copy import log_copied
from fairlead.store.annotation.schema import Event


def write(database, num):
    for _ in range(num):
        with database.write() as rows:
            rows.add(Event(at=0, kind="test", content={"text": "x" * 20_000}))


def test_no_commit_copies_the_log_and_what_was_written_is_in_the_file_soon(tmp_path, monkeypatch):
    monkeypatch.setattr(log_copy, "EVERY_S", 0.02)
    file = tmp_path / "votes.db"
    with open_database(file) as database:
        before = file.stat().st_size
        with log_copied(database):
            write(database, 20)
            with database.engine.connect() as connection:
                assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == log_copy._MAX_LEFT_PAGES
            end = time.monotonic() + 60
            while file.stat().st_size < before + 20 * 20_000 and time.monotonic() < end:
                time.sleep(0.01)
            assert file.stat().st_size >= before + 20 * 20_000


def test_the_log_begins_anew_while_votes_come(tmp_path, monkeypatch):
    """Each time it does, other random bytes stand in its header."""
    monkeypatch.setattr(log_copy, "EVERY_S", 0.005)
    monkeypatch.setattr(log_copy, "MAX_PAGES", 100)
    file = tmp_path / "votes.db"
    with open_database(file, is_durable=False) as database, log_copied(database):
        write(database, 1)
        first, num, end = _salt(file), 1, time.monotonic() + 60
        while _salt(file) == first and time.monotonic() < end:
            write(database, 1)
            num += 1
        assert _salt(file) != first
        with database.read() as rows:
            assert rows.scalar(sa.select(sa.func.count()).select_from(Event)) == num


def _salt(file):
    return Path(f"{file}-wal").read_bytes()[16:24]
