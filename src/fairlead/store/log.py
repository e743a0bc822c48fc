"""Append-only JSONL log: an event counts once its line, newline included, is on disk.

A process that is killed while appending leaves a last line without a newline. Nobody was told that this event happened, so it
is cut off, with a notice, by whoever meets it first.

Example:
    log = AppendLog(root / "registries" / "policies.jsonl")
    with log.exclusive():
        rows = log.read()
        log.append({"action": "released"})
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

from fairlead.core.errors import DataError, StoreError, explain, shorten
from fairlead.core.io import dump_json, parse_json, sync_folder
from fairlead.store.locks import locked


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


class AppendLog:
    """One log file; safe for several processes. `say` receives the notice about a repaired line."""

    def __init__(self, path: Path, *, say: Callable[[str], None] = _warn) -> None:
        self.path = path
        self._say = say

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Hold the log for read-check-append, repaired if need be."""
        with locked(self.path.with_suffix(".lock")):
            self._repair()
            yield

    def read(self) -> tuple[dict[str, Any], ...]:
        """All events in order.

        Raises:
            StoreError: a line other than a torn last one is damaged.
        """
        data = self._bytes()
        if data and not data.endswith(b"\n"):
            with self.exclusive():  # waits for an append in progress, so that only a dead writer's line is cut off
                data = self._bytes()
        return tuple(self._parse(line, number) for number, line in enumerate(data.splitlines(), start=1))

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one event and wait until it is on disk. Call inside `exclusive`."""
        is_new = not self.path.exists()
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(handle).st_size
        try:
            line = memoryview((dump_json(row) + "\n").encode())
            while line:
                line = line[os.write(handle, line) :]
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, size)
            raise StoreError(explain(self.path, None, f"cannot be written ({error.strerror})", expected="free space",
                                     remedy="Free some space and run the same command again")) from error  # fmt: skip
        finally:
            os.close(handle)
        if is_new:
            sync_folder(self.path.parent)

    def _bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _repair(self) -> None:
        data = self._bytes()
        if not data or data.endswith(b"\n"):
            return
        end = data.rfind(b"\n") + 1
        with self.path.open("rb+") as file:
            file.truncate(end)
            os.fsync(file.fileno())
        torn = shorten(data[end:].decode("utf-8", errors="replace"))
        self._say(f"{self.path} ended in the middle of an event ({torn}); the event never took effect and was cut off.")

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        where = f"{self.path}:{number}"
        try:
            value = parse_json(line.decode("utf-8"), where)
        except (UnicodeDecodeError, DataError) as error:
            raise StoreError(explain(where, None, "is damaged", expected="one JSON event a line",
                                     remedy="Restore the file from a backup")) from error  # fmt: skip
        if not isinstance(value, dict):
            raise StoreError(explain(where, value, "is not an event", expected="a JSON object",
                                     remedy="Restore the file from a backup"))  # fmt: skip
        return cast(dict[str, Any], value)
