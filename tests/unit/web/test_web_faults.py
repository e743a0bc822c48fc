"""A full disk, a lock that another process holds, a server that hangs up: the rater is told, nothing is half stored, and the same key works later."""

import contextlib
import os
import re
import shutil
import subprocess
import time

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient
from web_example import pairs

from fairlead.store.annotation import database as databases
from fairlead.store.annotation import faults
from fairlead.store.annotation import postgres as postgres_driver
from fairlead.store.annotation.schema import Event, Verdict
from fairlead.web import importing, people, projects
from fairlead.web.app import make_app
from fairlead.web.place import Place

PLACE = Place.of(host="127.0.0.1", port=8643, url=None)


class Rater:
    """Sends one vote, as often as needed, with one key."""

    def __init__(self, database):
        project = projects.create_project(database, "faults", votes_per_item=1, calibration_items=0)
        importing.add_items(database, project.id, pairs(3))
        secret = people.accept_invite(
            database, people.make_invite(database, role="rater"), name="ann", password="a long password"
        )
        app = make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)
        self.client = TestClient(app, base_url=PLACE.url, cookies={"fairlead": secret})
        page = self.client.get(f"/p/{project.id}/rate").text
        assignment = re.search(r'data-assignment="([^"]+)"', page)[1]
        self.path = f"/a/{assignment}/verdict"
        self.csrf = re.search(r'name="csrf" content="([^"]+)"', page)[1]
        self.database = database

    def send(self, accept="application/json", key="a-key-of-one-vote"):
        form = {"csrf": self.csrf, "key": key, "choice": "left2", "guideline_version": "1"}
        return self.client.post(
            self.path, data=form, headers={"origin": PLACE.url, "accept": accept}, follow_redirects=False
        )

    def stored(self):
        with self.database.read() as rows:
            events = rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == "verdict.submitted"))
            return events, rows.scalar(sa.select(sa.func.count()).select_from(Verdict))


def refused(rater, cause):
    answer = rater.send()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage"), answer.text
    assert answer.json()["error"]["message"] == f"Not saved: {cause}. Your vote is kept in this browser and sent again."
    page = rater.send("text/html")
    assert page.status_code == 503 and f"Not saved: {cause}" in page.text
    assert rater.stored() == (0, 0)


def accepted(rater):
    assert rater.send().json()["repeat"] is False
    assert rater.send().json()["repeat"] is True
    assert rater.stored() == (1, 1)


@pytest.fixture
def database(db, monkeypatch):
    monkeypatch.setattr(databases, "BUSY_TIMEOUT_S", 0.2)
    with databases.open_database(db) as opened:
        yield opened


def test_a_full_disk(tmp_path):
    with databases.open_database(tmp_path / "votes.db") as database:
        rater = Rater(database)
        limit = {"pages": 2**30}
        sa.event.listen(
            database.engine,
            "checkout",
            lambda connection, *_: connection.execute(f"PRAGMA max_page_count={limit['pages']}"),
        )
        fill(database, limit)
        refused(rater, faults.FULL)
        limit["pages"] = 2**30
        accepted(rater)


def fill(database, limit):
    """Rows of content until not one more fits."""
    with database.engine.connect() as connection:
        limit["pages"] = connection.exec_driver_sql("PRAGMA page_count").scalar()
    for size in (4000, 400, 40):
        while True:
            try:
                with database.write() as rows:
                    for _ in range(3):
                        rows.execute(
                            sa.text("INSERT INTO events (at, kind, content) VALUES (0, 'filler', :text)"),
                            {"text": f'"{"x" * size}"'},
                        )
            except sa.exc.OperationalError:
                break


def test_a_lock_that_another_holds(database, db):
    rater = Rater(database)
    with databases.open_database(db) as other, other.engine.connect() as connection:
        if database.is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("LOCK TABLE events IN EXCLUSIVE MODE")
        refused(rater, faults.BUSY)
        connection.rollback()
    accepted(rater)


def test_a_write_of_this_process_that_takes_too_long(database):
    rater = Rater(database)
    with database.write():
        refused(rater, faults.BUSY)
    accepted(rater)


def test_postgresql_hangs_up(postgres):
    with databases.open_database(postgres()) as database:
        rater = Rater(database)

        def hang_up(connection, *_):
            cursor = connection.cursor()
            try:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            except Exception:  # that is what it does
                connection.is_gone = True

        sa.event.listen(database.engine, "checkout", hang_up)
        answer = rater.send()
        assert answer.status_code == 503 and faults.GONE in answer.json()["error"]["message"], answer.text
        sa.event.remove(database.engine, "checkout", hang_up)
        for _ in range(30):  # connections that the pool has kept are found dead one by one, or all at once
            if rater.send().status_code == 200:
                break
        accepted_again = rater.send()
        assert accepted_again.json()["repeat"] is True and rater.stored() == (1, 1)


def end_connections(database, place):
    """As a restart of the server does: every connection of the pool is ended from outside."""
    own = sa.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
    with databases.open_database(place) as other, other.engine.connect() as connection:
        pids = connection.scalars(own).all()
        for pid in pids:
            connection.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        connection.rollback()
        for _ in range(200):
            if not connection.scalars(own).all():
                break
            time.sleep(0.02)
            connection.rollback()
    return len(pids)


def fill_pool(database, num):
    """Let the pool hold some connections at rest; they are all there at once."""
    taken = [database.engine.connect() for _ in range(num)]
    values = [connection.exec_driver_sql("SELECT 1").scalar() for connection in taken]
    for connection in taken:
        connection.close()
    return values


def test_connections_that_the_server_ended_at_rest_cost_nobody_an_answer(postgres, monkeypatch):
    """Twelve are ended: the next vote is taken at once, and so is everything on all the others."""
    place = postgres()
    with databases.open_database(place) as database:
        rater = Rater(database)
        fill_pool(database, 12)
        asked = []
        answers = postgres_driver._answers
        monkeypatch.setattr(
            postgres_driver, "_answers", lambda connection: asked.append(connection) or answers(connection)
        )
        assert fill_pool(database, 12) == [1] * 12 and rater.stored() == (0, 0)
        assert asked == []  # a connection that is well is never asked: no exchange of messages is added
        for round_ in (1, 2):
            assert end_connections(database, place) >= 12
            assert rater.send().status_code == 200 and rater.stored() == (1, 1)
            assert fill_pool(database, 12) == [1] * 12
            assert len(asked) == round_  # the first one tells of all


def test_a_notice_on_a_connection_at_rest_is_no_end(postgres):
    """The server says that a setting was changed; the connection goes on, with the same backend."""
    place = postgres()
    with databases.open_database(place) as database, databases.open_database(place) as other:
        with database.engine.connect() as connection:
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            connection.exec_driver_sql("LISTEN news")
            connection.commit()
        with other.engine.connect() as connection:
            connection.exec_driver_sql("NOTIFY news")
            connection.commit()
        time.sleep(0.2)
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() == pid


def test_a_wrong_statement_is_no_fault_of_the_storage(database):
    with pytest.raises(sa.exc.DBAPIError) as found, database.read() as rows:
        rows.execute(sa.text("SELECT nothing FROM nowhere"))
    assert faults.storage_fault(found.value) is None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if (
        os.geteuid()
        or shutil.which("mount") is None
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    """Nothing acknowledged is lost, the rater is told, and the same key stores the vote once there is room."""
    with databases.open_database(small_disk / "votes.db") as database:
        rater = Rater(database)
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        acknowledged = []
        for number in range(2000):
            answer = rater.send(key=f"a-key-of-one-vote-{number}")
            if answer.status_code != 200:
                break
            acknowledged.append(answer.json()["saved"])
        assert answer.status_code == 503 and answer.json()["error"]["message"] == (
            f"Not saved: {faults.FULL}. Your vote is kept in this browser and sent again."
        )
        assert rater.stored() == (len(acknowledged), min(len(acknowledged), 1))
        filler.unlink()
        assert rater.send(key=f"a-key-of-one-vote-{number}").json()["repeat"] is False
        assert rater.stored() == (len(acknowledged) + 1, 1)
    with databases.open_database(small_disk / "votes.db") as database, database.read() as rows:
        assert set(acknowledged) < set(rows.scalars(sa.select(Event.number)))
        assert rows.scalar(sa.text("PRAGMA integrity_check")) == "ok"
