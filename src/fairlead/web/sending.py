"""Archives that are sent while they are written.

    a thread -- write(archive) --> a file without a name --> response, as far as it is written --> browser

Who reads slowly holds no view of the database open, for writing does not wait; memory holds a piece. What goes wrong before the first byte is
answered like any refusal. Later the connection breaks off, and what has come is no archive to any program, for that ends with its list of
contents. When nobody reads any more the writing stops at its next piece; the file is gone with the last of both, or with the process.

Example:
    return send(lambda archive: write_archive(archive, database, project_id), filename="votes.zip")
"""

import os
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Callable
from typing import IO, cast

import anyio
from anyio.to_thread import run_sync
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

PIECE = 256 * 1024
"""Bytes that are sent at once."""
PATIENCE_S = 1.0
"""After so long without a byte it is looked whether the browser is still there."""
_AT_ONCE = 4
_READING = anyio.CapacityLimiter(_AT_ONCE)


class Abandoned(Exception):
    """Nobody reads the archive any more."""


class Growing:
    """An archive that one thread writes and another reads. Single use; `leave` must be called once nobody reads."""

    def __init__(self, write: Callable[[zipfile.ZipFile], None]) -> None:
        # closed by the last of both
        self._file = tempfile.TemporaryFile(prefix="fairlead-export-", buffering=0)  # noqa: SIM115
        self._changed = threading.Condition()
        self._size = 0
        self._has_ended = self._is_left = self._is_told = False
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=(write,), name="archive", daemon=True).start()

    def _run(self, write: Callable[[zipfile.ZipFile], None]) -> None:
        archive = zipfile.ZipFile(cast(IO[bytes], self), "w", zipfile.ZIP_DEFLATED)
        try:
            write(archive)
            archive.close()
        except BaseException as error:  # whoever reads is told, whatever it is; the archive stays without its end
            self._error = error
        with self._changed:
            self._has_ended = True
            self._close_when_over()
            self._changed.notify_all()

    def write(self, data: bytes) -> int:
        """What the archive puts out; called by its thread.

        Raises:
            Abandoned: once, so that what is being written is given up; what is put out meanwhile is dropped.
        """
        with self._changed:
            if self._is_told or self._has_ended:
                return len(data)  # an archive that was given up still writes its end when it is forgotten
            if self._is_left:
                self._is_told = True
                raise Abandoned
        left = memoryview(data)
        while left:
            left = left[os.write(self._file.fileno(), left) :]
        with self._changed:
            self._size += len(data)
            self._changed.notify_all()
        return len(data)

    def flush(self) -> None:
        """All is written already."""

    def wait_until_begun(self) -> None:
        """Until there is a first byte. Raises what went wrong before."""
        with self._changed:
            self._changed.wait_for(lambda: self._size or self._has_ended)
        if not self._size and self._error is not None:
            self.leave()
            raise self._error

    def read(self, at: int) -> bytes | None:
        """The piece that begins here; empty when none came for a while, None at the end. Raises what went wrong while it was written."""
        with self._changed:
            self._changed.wait_for(lambda: self._size > at or self._has_ended, PATIENCE_S)
            if self._size > at:
                return os.pread(self._file.fileno(), min(PIECE, self._size - at), at)
            if self._error is not None:
                raise self._error
            return None if self._has_ended else b""

    def leave(self) -> None:
        """Nobody reads any more."""
        with self._changed:
            self._is_left = True
            self._close_when_over()

    def _close_when_over(self) -> None:
        if self._is_left and self._has_ended:
            self._file.close()


class Sending(StreamingResponse):
    """The answer."""

    media_type = "application/zip"

    def __init__(self, growing: Growing, *, filename: str) -> None:
        self._growing = growing
        super().__init__(self._pieces(), headers={"content-disposition": f'attachment; filename="{filename}"'})

    async def _pieces(self) -> AsyncIterator[bytes]:
        at = 0
        while (piece := await run_sync(self._growing.read, at, limiter=_READING)) is not None:
            if piece:
                at += len(piece)
                yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # also when the browser has hung up
            self._growing.leave()


def send(write: Callable[[zipfile.ZipFile], None], *, filename: str) -> Sending:
    """Begin to write an archive, and answer with it when there is something to send; not in the event loop's thread.

    Raises:
        Exception: whatever `write` raises before anything was written.
    """
    growing = Growing(write)
    growing.wait_until_begun()
    return Sending(growing, filename=filename)
