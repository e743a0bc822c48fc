"""The parent's end of one worker process: it never blocks on it, and kills it for certain."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any, cast

_CHUNK_BYTES = 1 << 16
_KEPT_STDERR_BYTES = 4096


def worker_environment() -> dict[str, str]:
    """What a worker sees of the environment: no secrets, one thread, the same order of sets every time."""
    passed = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "TZ") if key in os.environ}
    modules = os.pathsep.join(path for path in sys.path if path)
    return passed | {"PYTHONPATH": modules, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
                     "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}  # fmt: skip


class WorkerProcess:
    """A running worker: `stdout` and `stderr` are to be watched, `send` and `flush` to be called. Single-use."""

    def __init__(self, *, max_memory_bytes: int) -> None:
        # The arguments are our own; no shell takes part.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "fairlead.rewards.worker", str(max_memory_bytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=worker_environment(), start_new_session=True, bufsize=0,
        )  # fmt: skip
        self.stdin, self.stdout, self.stderr = (
            cast(IO[bytes], p) for p in (self._process.stdin, self._process.stdout, self._process.stderr)
        )
        for pipe in (self.stdin, self.stdout, self.stderr):
            os.set_blocking(pipe.fileno(), False)
        self._unread, self._unsent, self._said = b"", b"", b""

    @property
    def pid(self) -> int:
        """Of the process, which leads a group of its own."""
        return self._process.pid

    @property
    def has_unsent(self) -> bool:
        """Is there something to flush?"""
        return bool(self._unsent)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue a message and write what fits."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Write what fits; a worker that is gone is noticed when its output ends."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while self._unsent:
                self._unsent = self._unsent[os.write(self.stdin.fileno(), self._unsent) :]

    def read(self) -> Iterator[dict[str, Any] | None]:
        """The messages that are there; None, as the last one, when the worker is gone."""
        is_open = True
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.stdout.fileno(), _CHUNK_BYTES):
                self._unread += chunk
            is_open = False
        *lines, self._unread = self._unread.split(b"\n")
        yield from (json.loads(line) for line in lines)
        if not is_open:
            yield None

    def hear(self) -> bool:
        """Take in what it wrote to standard error; False at its end."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.stderr.fileno(), _CHUNK_BYTES):
                self._said = (self._said + chunk)[-_KEPT_STDERR_BYTES:]
            return False
        return True

    def last_words(self) -> str:
        """The last line on standard error, or how it ended."""
        lines = [line for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self._process.poll()}"

    def kill(self) -> None:
        """End it with everything in its process group, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()
