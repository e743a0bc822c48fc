"""One writer at a time, and one sync of the disk for all that wait: writes that come while another one runs share its transaction.

    write A  ---- block ----.
    write B     (waits)      '---- block ----.                       one block after another, each but the first in a savepoint of its own
    write C         (waits)                   '---- block ----.
                                                               '--- commit ---> A, B and C go on together

Nobody goes on before the commit is on disk, so what is acknowledged is stored. A block that raises is taken back alone; the first one with
its transaction, in which nobody else is yet. When the commit fails, or the connection breaks in a block, all of the group get the error and
nothing of it is stored. Whoever is alone commits at once. Blocks do not commit themselves.
"""

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session as Rows

MAX_GROUP = 32
MAX_GROUP_S = 0.010
"""After this a group takes nobody in any more: the first one waits for the last."""
PATIENCE_S = 0.2
"""By so much a verdict goes before other writes; those that have waited longer are not overtaken."""


class TooLong(Exception):
    """The turn did not come in time."""


class Turns:
    """A lock that is handed on to who waits, the urgent ones first. Thread-safe."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, threading.Lock]] = []

    def take(self, *, is_urgent: bool, timeout_s: float) -> None:
        """Wait for the turn.

        Raises:
            TooLong: it did not come.
        """
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return
            called = threading.Lock()
            called.acquire()
            place = (time.monotonic() + (0.0 if is_urgent else PATIENCE_S), next(self._numbers), called)
            heapq.heappush(self._waiting, place)
        if called.acquire(timeout=timeout_s):
            return
        with self._mutex:
            if place not in self._waiting:  # called while it gave up
                return
            self._waiting.remove(place)
            heapq.heapify(self._waiting)
        raise TooLong

    def hand_on(self) -> bool:
        """Give the turn to the next one; False, and it is kept, when nobody waits."""
        with self._mutex:
            if not self._waiting:
                return False
            heapq.heappop(self._waiting)[2].release()
            return True

    def end(self) -> None:
        """Give it to the next one, or to whoever comes."""
        with self._mutex:
            if self._waiting:
                heapq.heappop(self._waiting)[2].release()
            else:
                self._is_taken = False


class _Group:
    """Writes that are committed together; used by one thread at a time, but for `ended`."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.began = time.monotonic()
        self.num = 0
        """Blocks so far."""
        self.ended = threading.Event()
        self.error: BaseException | None = None

    @property
    def is_open(self) -> bool:
        return self.num < MAX_GROUP and time.monotonic() - self.began < MAX_GROUP_S


class Writer:
    """Runs the writes of a process on one database. Thread-safe."""

    def __init__(self, begin: Callable[[], sa.Connection]) -> None:
        """Args: begin: a connection whose transaction holds the write lock."""
        self._begin, self._turns = begin, Turns()
        self._group: _Group | None = None

    @contextlib.contextmanager
    def write(self, *, is_urgent: bool, timeout_s: float) -> Generator[Rows]:
        """A block of a transaction that is on disk when it ends, or undone when it raises.

        Raises:
            TooLong: others take too long.
        """
        self._turns.take(is_urgent=is_urgent, timeout_s=timeout_s)
        try:
            group = self._group = self._group or _Group(self._begin())
        except BaseException:
            self._turns.end()
            raise
        group.num += 1
        is_first = group.num == 1
        rows = Rows(group.connection, expire_on_commit=False, join_transaction_mode="rollback_only" if is_first else "create_savepoint")  # fmt: skip
        try:
            yield rows
            rows.commit()
            rows.close()
        except BaseException as error:
            if is_first:
                with contextlib.suppress(SQLAlchemyError):
                    rows.close()
                self._end(group, None)  # its connection, and all that was written, is given back
            elif _take_back(rows, group.connection):
                self._pass_on(group)
            else:
                self._end(group, error)
            raise
        self._pass_on(group)
        group.ended.wait()
        if group.error is not None:
            raise group.error

    def _pass_on(self, group: _Group) -> None:
        """Let the next one into the group, or commit."""
        if group.is_open and self._turns.hand_on():
            return
        error: BaseException | None = None
        try:
            group.connection.commit()
        except BaseException as found:
            error = found
        self._end(group, error)

    def _end(self, group: _Group, error: BaseException | None) -> None:
        """Let everybody of the group go on, and the next group begin."""
        group.error = error
        with contextlib.suppress(SQLAlchemyError):
            if error is not None:  # what state it is in is not known
                group.connection.invalidate()
            group.connection.close()
        self._group = None
        self._turns.end()
        group.ended.set()


def _take_back(rows: Rows, connection: sa.Connection) -> bool:
    """Undo a block; False where the whole transaction ended with it, as SQLite ends it when the disk is full and a server when it hangs up."""
    try:
        rows.close()
        if connection.dialect.name == "sqlite":
            return bool(getattr(connection.connection.dbapi_connection, "in_transaction", False))
        connection.exec_driver_sql("SELECT 1")
    except SQLAlchemyError:  # the block's own error is told
        return False
    return True
