"""PostgreSQL counts tables that have doubled at once, so that plans made for empty tables do not outlive them."""

import threading
import time

import sqlalchemy as sa

from fairlead.store.annotation import row_counts
from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.row_counts import count_grown, counts_kept
from fairlead.store.annotation.schema import Event

_COUNTED = sa.text("SELECT reltuples FROM pg_class WHERE oid = 'events'::regclass")


def write(database, num):
    with database.write() as rows:
        rows.execute(sa.insert(Event), [{"at": 0, "kind": "test", "content": {}} for _ in range(num)])


def counted(database, least):
    """Waits, for PostgreSQL tells what was written with a delay of up to a second."""
    end = time.monotonic() + 60
    while (found := database.ask(_COUNTED, {})[0][0]) < least and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_tables_are_counted_when_they_have_doubled(db, monkeypatch):
    monkeypatch.setattr(row_counts, "EVERY_S", 0.05)
    with open_database(db, is_durable=False) as database:
        if database.is_sqlite:
            with counts_kept(database):
                assert "row counts" not in {thread.name for thread in threading.enumerate()}
            return
        with counts_kept(database):
            write(database, 300)
            assert counted(database, 300) == 300
            write(database, 1000)
            assert counted(database, 1300) == 1300
        assert "row counts" not in {thread.name for thread in threading.enumerate()}
        assert "events" not in count_grown(database), "they are counted"
