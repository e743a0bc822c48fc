"""pg8000 with statements that the server keeps: one exchange of messages for a statement in place of three, and no parsing again.

pg8000 sends a statement, waits, binds its values, waits, runs it, waits; and reads the text for placeholders character by character each
time. A verdict takes fifteen statements, which were then three quarters of its time. Here the text is read once for the process, parsed
once a connection, and bound and run in one message.

    Bind, Execute, Sync ->                       a statement that this connection had before
    Parse, Describe, Bind, Execute, Sync ->      a new one
    <- all answers

A transaction begins with its first statement, in the same message.

A connection that the server has ended while it lay in the pool is found when it is taken out, without asking the server: nothing may be there
to be read on one that is at rest, and the server's last words and the end of the line are. So a restarted server costs nobody an answer. A
host that vanished without a word is found by the first statement.
"""

# pyright: basic
import functools
import itertools
import select
import struct
from collections.abc import Sequence
from typing import Any

import pg8000.core
import pg8000.dbapi
import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

MAX_KEPT = 400
"""Statements of a connection; those that come later are parsed each time."""
_UNNAMED = b""
_BEGIN = b"Q\x00\x00\x00\x0abegin\x00"
_SYNC = b"S\x00\x00\x00\x04"
_EXECUTE = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"
"""The unnamed portal, all rows."""


@functools.lru_cache(maxsize=2048)
def _numbered(operation: str, num: int) -> str:
    """`%s` as `$1`, `$2`, ..."""
    statement, _ = pg8000.dbapi.convert_paramstyle("format", operation, [None] * num)
    return statement


class Cursor(pg8000.dbapi.Cursor):
    """As pg8000's."""

    def execute(self, operation: str, args: Sequence[Any] = (), stream: Any = None) -> None:
        """Run one statement."""
        connection: Any = self._c
        if connection is None or stream is not None or isinstance(args, dict):
            super().execute(operation, args, stream)
            return
        if operation.startswith("BEGIN"):
            self._context, self._row_iter = connection.execute_simple(operation), None
            return
        if not args:
            super().execute(operation)
            return
        statement, oids = _numbered(operation, len(args)), tuple(self._input_oids or ())
        self._context = connection.execute_kept(statement, args, oids)
        self._row_iter = None if self._context.rows is None else iter(self._context.rows)
        self._input_oids, self.input_types = (), []


class Connection(pg8000.dbapi.Connection):
    """As pg8000's; used by one thread at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kept: dict[tuple[str, tuple[int, ...]], tuple[bytes, Any, Any]] = {}
        self._numbers = itertools.count()

    def cursor(self) -> Cursor:
        """A new one."""
        return Cursor(self)

    def commit(self) -> None:
        """End the transaction."""
        self.execute_simple("commit")

    def rollback(self) -> None:
        """Undo the transaction, if there is one."""
        if self._in_transaction:
            self.execute_simple("rollback")

    def execute_kept(self, statement: str, values: Sequence[Any], oids: tuple[int, ...]) -> Any:
        """Run a statement with values."""
        known = self._kept.get((statement, oids))
        params = pg8000.core.make_params(self.py_types, values)
        if known is not None:
            name, columns, input_funcs = known
            context = pg8000.core.Context(statement, columns=columns, input_funcs=input_funcs)
            self._exchange([self._bind(name, params), _EXECUTE, _SYNC], context)
            return context
        name = f"kept_{next(self._numbers)}".encode() if len(self._kept) < MAX_KEPT else _UNNAMED
        context = pg8000.core.Context(statement)
        describe = _message(b"D", b"S" + name + b"\0")
        self._exchange([self._parse(name, statement, oids), describe, self._bind(name, params), _EXECUTE, _SYNC], context)  # fmt: skip
        if name:
            self._kept[statement, oids] = (name, context.columns, context.input_funcs)
        return context

    def _parse(self, name: bytes, statement: str, oids: tuple[int, ...]) -> bytes:
        types = b"".join(struct.pack("!i", 0 if oid == -1 else oid) for oid in oids)
        text = statement.encode(self._client_encoding)
        return _message(b"P", name + b"\0" + text + b"\0" + struct.pack("!H", len(oids)) + types)

    def _bind(self, name: bytes, params: Sequence[str | None]) -> bytes:
        parts = [b"\0", name, b"\0", struct.pack("!HH", 0, len(params))]
        for value in params:
            if value is None:
                parts.append(b"\xff\xff\xff\xff")
            else:
                text = value.encode(self._client_encoding)
                parts += [struct.pack("!i", len(text)), text]
        return _message(b"B", b"".join([*parts, b"\0\0"]))

    def _exchange(self, messages: Sequence[bytes], context: Any) -> None:
        if self._sock is None:
            raise pg8000.dbapi.InterfaceError("connection is closed")
        begins = not self._in_transaction and not self.autocommit
        pg8000.core._write(self._sock, b"".join([*([_BEGIN] if begins else []), *messages]))
        pg8000.core._flush(self._sock)
        if begins:
            self.handle_messages(pg8000.core.Context("begin"))
        self.handle_messages(context)


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content


def use(engine: sa.Engine) -> None:
    """Let an engine of pg8000 connect so."""

    def connect(_dialect: Any, _record: Any, args: Sequence[Any], options: dict[str, Any]) -> Connection:
        return Connection(*args, **options)

    sqlalchemy.event.listen(engine, "do_connect", connect)
    sqlalchemy.event.listen(engine, "checkout", check_taken)


def check_taken(connection: Any, _record: Any, _fairy: Any) -> None:
    """Have the pool open a new connection in place of one that the server has ended, and of all others that it opened before.

    Raises:
        InvalidatePoolError: to the pool, which then does so.
    """
    if _has_news(connection) and not _answers(connection):
        raise sqlalchemy.exc.InvalidatePoolError


def _has_news(connection: Any) -> bool:
    """Is there something to be read, or an end? A system call; the server is not asked."""
    if connection._usock is None:
        return True
    line = select.poll()
    line.register(connection._usock, select.POLLIN)
    return bool(line.poll(0))


def _answers(connection: Any) -> bool:
    """Ask the server: what came may have been a notice."""
    try:
        connection.cursor().execute("SELECT 1")
        connection.rollback()
    except (pg8000.dbapi.Error, OSError):
        return False
    return True
