"""Runs one program and reports how it ended. Started anew for every program, by run.py; standard library only.

    launcher (here: clock, pipes, report)
       fork -> init (process 1 of the box: own root; nobody can trace it; ends when the launcher does, and with it all that is in the box)
                  fork -> the program (nobody, no capabilities, limits, filter of system calls)

Without namespaces (`is_boxed` false) the program is the launcher's child; what it leaves behind is adopted by the launcher and killed.

Standard input: the JSON of run.py. Standard output: {"exit", "signal", "ended", "stdout", "stderr", "result"}, or {"unavailable": why}.
"""

import contextlib
import json
import os
import resource
import selectors
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead.rewards.sandbox import namespaces, seccomp

_PR_SET_CHILD_SUBREAPER = 36
_CHUNK = 1 << 16
_RESULT_FD = 3
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0",  # noqa: S108 - the box has its own
                "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}  # fmt: skip
_MAX_OPEN_FILES = 64


def main() -> None:
    """Read, run, report."""
    spec = json.load(sys.stdin)
    is_linux = sys.platform == "linux"
    if is_linux:
        namespaces.die_with_parent()
    can_be_nobody = False
    if spec["is_boxed"]:
        try:
            can_be_nobody = namespaces.enter_namespaces()
        except OSError as error:
            print(json.dumps({"unavailable": str(error)}))  # noqa: T201 - the report
            return
        namespaces.die_with_parent()
    elif is_linux:
        namespaces.libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(json.dumps(_Run(spec, can_be_nobody).run()))  # noqa: T201 - the report


class _Run:
    """One program. Single-use."""

    def __init__(self, spec: Mapping[str, Any], can_be_nobody: bool) -> None:
        self.spec, self.limits, self.can_be_nobody = spec, spec["limits"], can_be_nobody
        self.stdin, self.stdout, self.stderr, self.result, self.status = (os.pipe() for _ in range(5))

    def run(self) -> dict[str, Any]:
        child = os.fork()
        if child == 0:
            self._be_child()
        for pipe in (self.stdin[0], self.stdout[1], self.stderr[1], self.result[1], self.status[1]):
            os.close(pipe)
        try:
            texts, ended = self._watch()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)  # of the box's first process: the kernel ends all others with it
            os.waitpid(child, 0)
            _kill_children()
        if self.status[0] in texts and texts[self.status[0]].startswith(b"!"):
            return {"unavailable": texts[self.status[0]][1:].decode()}
        return self._report(texts, ended)

    def _report(self, texts: Mapping[int, bytes], ended: str) -> dict[str, Any]:
        said = texts[self.status[0]]
        status = int(said) if said else None
        report: dict[str, Any] = {"ended": ended, "exit": None, "signal": None}
        if status is not None:
            report["signal" if os.WIFSIGNALED(status) else "exit"] = (
                os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            )
        names = {"stdout": self.stdout[0], "stderr": self.stderr[0], "result": self.result[0]}
        return report | {name: texts[pipe].decode(errors="replace") for name, pipe in names.items()}

    def _watch(self) -> tuple[dict[int, bytes], str]:
        """Feed and read until the program has ended, its time is over, or it wrote too much."""
        unsent = self.spec["stdin"].encode()
        texts = dict.fromkeys((self.stdout[0], self.stderr[0], self.result[0], self.status[0]), b"")
        deadline = time.monotonic() + self.limits["wall_s"]
        with selectors.DefaultSelector() as selector:
            for pipe in texts:
                selector.register(pipe, selectors.EVENT_READ)
            os.set_blocking(self.stdin[1], False)
            selector.register(self.stdin[1], selectors.EVENT_WRITE)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    return texts, "time"
                for key, _ in selector.select(left):
                    pipe = key.fd
                    if pipe == self.stdin[1]:
                        unsent = _send(pipe, unsent)
                        if not unsent:
                            selector.unregister(pipe)
                            os.close(pipe)
                        continue
                    chunk = os.read(pipe, _CHUNK)
                    texts[pipe] += chunk
                    if len(texts[pipe]) > self.limits["output_bytes"]:
                        texts[pipe] = texts[pipe][: self.limits["output_bytes"]]
                        return texts, "output"
                    if not chunk:
                        selector.unregister(pipe)
                if texts[self.status[0]]:  # it ended; what it wrote before is in the pipes
                    self._drain(texts)
                    return texts, ""
                if self.status[0] not in selector.get_map():
                    return texts, "lost"

    def _drain(self, texts: dict[int, bytes]) -> None:
        for pipe in (self.stdout[0], self.stderr[0], self.result[0]):
            os.set_blocking(pipe, False)
            with contextlib.suppress(BlockingIOError):
                while len(texts[pipe]) < self.limits["output_bytes"] and (chunk := os.read(pipe, _CHUNK)):
                    texts[pipe] += chunk
            texts[pipe] = texts[pipe][: self.limits["output_bytes"]]

    def _be_child(self) -> None:
        """The first process: makes the root, starts the program, waits for it and says how it ended."""
        status = b"!the first process of the box failed"
        try:
            for pipe in (self.stdin[1], self.stdout[0], self.stderr[0], self.result[0], self.status[0]):
                os.close(pipe)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if self.spec["is_boxed"]:
                namespaces.change_root(
                    readable=self.spec["readable"], files=self.spec["files"], max_disk_bytes=self.limits["disk_bytes"]
                )
                namespaces.forbid_looking_in()
                namespaces.die_with_parent()
            else:
                os.setsid()
            program = os.fork()
            if program == 0:
                self._be_program()
            for pipe in (self.stdin[0], self.stdout[1], self.stderr[1], self.result[1]):
                os.close(pipe)
            while True:
                pid, code = os.waitpid(-1, 0)
                if pid == program:
                    status = str(code).encode()
                    break
        except BaseException as error:
            status = f"!{type(error).__name__}: {error}".encode()
        finally:
            os.write(self.status[1], status)
            os._exit(0)

    def _be_program(self) -> None:
        """Lose every privilege, take the limits, and become the program."""
        try:
            if self.can_be_nobody:
                namespaces.become_nobody()
            os.closerange(self.status[1], self.status[1] + 1)
            for i, pipe in enumerate((self.stdin[0], self.stdout[1], self.stderr[1], self.result[1])):
                os.dup2(pipe, 100 + i)
            for i in range(4):
                os.dup2(100 + i, i, inheritable=True)
            os.closerange(_RESULT_FD + 1, 4096)
            self._limit()
            if self.spec["is_boxed"]:
                namespaces.forbid_privileges()
                seccomp.apply_filter(namespaces.libc)
            else:
                os.chdir(self.spec["folder"])
            argv = self.spec["argv"]
            os.execve(argv[0], argv, _ENVIRONMENT | self.spec["environment"])  # noqa: S606 - no shell takes part
        except BaseException as error:
            os.write(2, f"cannot start: {error}".encode())
        finally:
            os._exit(127)

    def _limit(self) -> None:
        limits = self.limits
        wanted = {
            resource.RLIMIT_CPU: limits["cpu_s"], resource.RLIMIT_AS: limits["memory_bytes"], resource.RLIMIT_FSIZE: limits["disk_bytes"],
            resource.RLIMIT_NOFILE: _MAX_OPEN_FILES, resource.RLIMIT_CORE: 0,
        }  # fmt: skip
        if self.spec["is_boxed"]:  # elsewhere it would count all processes of the user
            wanted[resource.RLIMIT_NPROC] = limits["processes"]
        for name, value in wanted.items():
            resource.setrlimit(name, (value, value))


def _send(pipe: int, unsent: bytes) -> bytes:
    """Write what fits; a program that does not read its input is no fault."""
    try:
        return unsent[os.write(pipe, unsent[:_CHUNK]) :] if unsent else b""
    except BrokenPipeError:
        return b""


def _kill_children() -> None:
    """Kill all that is left below this process, which adopts what lost its parent, until there is nothing."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


if __name__ == "__main__":
    main()
