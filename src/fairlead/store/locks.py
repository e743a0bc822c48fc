"""Locks between processes that the kernel releases when their owner dies, however it dies (POSIX flock)."""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from fairlead.core.errors import StoreError, explain


class FileLock:
    """Exclusive lock on a small file of its own.

    Lifecycle: acquire, release, reusable. Two instances exclude each other even inside one process. A forked child shares the
    lock of its parent. Invariant: the file at `path` is the one that is locked, also when another owner removed it meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; without `wait`, return False when someone else has it.

        Raises:
            StoreError: the folder cannot be written.
        """
        while True:
            handle = self._open()
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                if self._is_current(handle):
                    self._handle, handle = handle, -1
                    return True
            except BlockingIOError:
                return False
            finally:
                if handle >= 0:
                    os.close(handle)

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(explain(self.path, None, f"cannot be written ({error.strerror})", expected="a writable folder",
                                     remedy="Fix its mode or choose another folder")) from error  # fmt: skip

    def _is_current(self, handle: int) -> bool:
        """False when the previous owner removed the file between our open and our lock."""
        try:
            return os.path.samestat(os.fstat(handle), self.path.stat())
        except FileNotFoundError:
            return False

    def is_held(self) -> bool:
        """Whether somebody has the lock. Nothing is made or removed; it stands in the way of `acquire` for an instant only."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def release(self, *, remove: bool = False) -> None:
        """Give the lock back; `remove` deletes its file too."""
        assert self._handle is not None, f"{self.path} is not locked"
        if remove:
            self.path.unlink(missing_ok=True)
        os.close(self._handle)
        self._handle = None


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock at `path`, waiting for it."""
    lock = FileLock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()
