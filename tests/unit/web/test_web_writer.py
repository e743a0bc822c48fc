"""Writes that wait for each other share a commit: each block is whole or not there, and nobody goes on before the commit is on disk."""

import threading
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from fairlead.store.annotation import writer
from fairlead.store.annotation.schema import Event
from fairlead.store.annotation.writer import TooLong, Turns

WAIT_S = 60.0


def add(rows, kind):
    rows.add(Event(at=0, kind=kind, content={}))
    rows.flush()


def kinds(database):
    with database.read() as rows:
        return sorted(rows.scalars(sa.select(Event.kind)))


@pytest.fixture
def commits(database):
    """Threads that ended a transaction, in order."""
    found = []
    sa.event.listen(database.engine, "commit", lambda _: found.append(threading.current_thread().name))
    return found


def run_behind(database, blocks):
    """Hold the turn until all blocks wait for it, then let them run; return what each raised, and when it ended."""
    told = {}

    def run(name, block):
        try:
            with database.write() as rows:
                add(rows, name)
                block()
            told[name] = (None, time.monotonic())
        except Exception as error:
            told[name] = (error, time.monotonic())

    threads = [threading.Thread(target=run, args=item, name=item[0]) for item in blocks.items()]
    with database.write() as rows:
        add(rows, "first")
        for number, thread in enumerate(threads, start=1):
            thread.start()
            while len(database._writer._turns._waiting) < number:
                time.sleep(0.001)
    for thread in threads:
        thread.join(WAIT_S)
    return told


def nothing():
    pass


def refuse():
    raise ValueError("not this one")


def test_those_that_wait_share_a_commit_and_one_that_raises_is_taken_back_alone(database, commits, monkeypatch):
    monkeypatch.setattr(writer, "MAX_GROUP_S", WAIT_S)
    told = run_behind(database, {"b": nothing, "c": refuse, "d": nothing})
    assert {name: type(error) for name, (error, _) in told.items()} == {
        "b": type(None),
        "c": ValueError,
        "d": type(None),
    }
    assert kinds(database) == ["b", "d", "first"]
    assert commits == ["d"]  # the last of the group, for all of it


def test_nobody_goes_on_when_the_commit_fails(database, monkeypatch):
    monkeypatch.setattr(writer, "MAX_GROUP_S", WAIT_S)

    def fail(_):
        raise sa.exc.OperationalError("COMMIT", {}, Exception("disk I/O error"))

    sa.event.listen(database.engine, "commit", fail)
    told = {}
    with pytest.raises(sa.exc.OperationalError):
        told = run_behind(database, {"b": nothing, "c": nothing})
    sa.event.remove(database.engine, "commit", fail)
    assert told == {} and kinds(database) == []
    with database.write() as rows:
        add(rows, "later")
    assert kinds(database) == ["later"]


def test_a_group_ends_where_it_is_full(database, commits, monkeypatch):
    monkeypatch.setattr(writer, "MAX_GROUP_S", WAIT_S)
    monkeypatch.setattr(writer, "MAX_GROUP", 2)
    run_behind(database, {"b": nothing, "c": nothing, "d": nothing})
    assert kinds(database) == ["b", "c", "d", "first"]
    assert commits == ["b", "d"]


def test_many_writers_lose_nothing(database):
    def work(number):
        for turn in range(20):
            try:
                with database.write(is_urgent=number % 2 == 0) as rows:
                    add(rows, f"{number}-{turn}")
                    if turn % 5 == 4:
                        refuse()
            except ValueError:
                pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert kinds(database) == sorted(f"{number}-{turn}" for number in range(8) for turn in range(20) if turn % 5 != 4)


def test_the_urgent_go_first_and_who_waited_long_is_not_overtaken(monkeypatch):
    """The clock that the turns read stands still, but for the time that passes after `old` has come."""
    turns, order, now = Turns(), [], [100.0]
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    turns.take(is_urgent=True, timeout_s=0)

    def wait(name, is_urgent):
        turns.take(is_urgent=is_urgent, timeout_s=WAIT_S)
        order.append(name)
        turns.end()

    threads = []
    for name, is_urgent, pause_s in (("old", False, 2 * writer.PATIENCE_S), ("page", False, 0.0), ("vote", True, 0.0)):
        thread = threading.Thread(target=wait, args=(name, is_urgent))
        threads.append(thread)
        thread.start()
        while len(turns._waiting) < len(threads):
            time.sleep(0.001)
        now[0] += pause_s
    with pytest.raises(TooLong):
        turns.take(is_urgent=True, timeout_s=0.01)
    turns.end()
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["old", "vote", "page"]
    turns.take(is_urgent=False, timeout_s=0)  # free again


def test_the_first_block_is_taken_back_with_its_transaction_and_needs_no_savepoint(database):
    told = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *args: told.append(args[2]))
    with pytest.raises(ValueError, match="not this one"), database.write() as rows:
        add(rows, "undone")
        refuse()
    with database.write() as rows:
        add(rows, "kept")
    assert kinds(database) == ["kept"]
    assert not any("SAVEPOINT" in statement for statement in told)
