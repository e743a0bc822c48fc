"""The worker's side of the sandbox: what to run, under which limits, and how it ended.

Example:
    ran = run_python({"main.py": "print(input())"}, stdin="7", limits=Limits())
    ran.exit, ran.stdout        # 0, "7\\n"
"""

import functools
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fairlead.core.errors import ConfigError, EngineError, explain
from fairlead.rewards.sandbox import seccomp

_REPORT_S = 10.0
"""Beyond the program's own time: to start, to kill, to report."""
LAUNCHER = [sys.executable, "-S", "-s", "-m", "fairlead.rewards.sandbox.launcher"]
_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use."""

    wall_s: float = 5.0
    cpu_s: int = 5
    """Of each process."""
    memory_bytes: int = 512 << 20
    """Address space of each process."""
    processes: int = 8
    """Processes and threads at a time."""
    disk_bytes: int = 16 << 20
    """Of /tmp, which is memory, and of each file."""
    output_bytes: int = 1 << 20
    """Of standard output, of standard error and of the results each; a program that writes more is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended."""

    exit: int | None
    """Exit status; None when it was ended."""
    signal: int | None
    """Signal that ended it, by itself or by a limit."""
    ended: Literal["", "time", "output", "lost"]
    """Why it was ended from outside; empty when it ended."""
    stdout: str
    stderr: str
    result: str
    """What it wrote to descriptor 3."""


def run_python(files: Mapping[str, str], *, stdin: str = "", limits: Limits, is_boxed: bool = True) -> Ran:
    """Run main.py among `files` with this interpreter's standard library, in the box.

    Args:
        files: name -> text; beside one another.
        is_boxed: False runs it with the limits alone, as the user that we are, with all that the user's files and network hold.
    Raises:
        EngineError: the box cannot be made.
    """
    if is_boxed:
        return _run(files, stdin, limits, folder=None)
    with tempfile.TemporaryDirectory(prefix="fairlead-code-", ignore_cleanup_errors=True) as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        return _run(files, stdin, limits, folder=folder)


def _run(files: Mapping[str, str], stdin: str, limits: Limits, *, folder: str | None) -> Ran:
    ran = _try_run(files, stdin, limits, folder=folder)
    if isinstance(ran, str):
        raise EngineError(explain("sandbox", None, f"cannot be made ({ran})", expected="Linux 5.12 with user namespaces",
                                  remedy="See docs/stages/verifiers.md"))  # fmt: skip
    return ran


def _try_run(files: Mapping[str, str], stdin: str, limits: Limits, *, folder: str | None) -> Ran | str:
    """How the program ended, or why the box cannot be made."""
    report = _launch(_spec(files, stdin, limits, folder=folder), timeout_s=limits.wall_s + _REPORT_S)
    return str(report["unavailable"]) if "unavailable" in report else Ran(**report)


def _spec(files: Mapping[str, str], stdin: str, limits: Limits, *, folder: str | None) -> dict[str, Any]:
    """What the launcher reads; `folder` is where the files lie without the box."""
    return {
        "is_boxed": folder is None, "files": dict(files), "folder": folder, "stdin": stdin, "limits": asdict(limits), "readable": _readable(),
        "argv": [_interpreter(), "-I", "-S", "-B", f"{folder or '/box'}/main.py"],
        "environment": {} if folder is None else {"TMPDIR": folder, "HOME": folder},
    }  # fmt: skip


def _environment() -> dict[str, str]:
    return {
        "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
    }


def _launch(spec: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
    launched = subprocess.run(  # noqa: S603 - the arguments are our own; no shell takes part
        LAUNCHER,
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=_environment(),
        timeout=timeout_s,
        check=False,
    )
    if not launched.stdout:
        words = launched.stderr.strip().splitlines()
        return {"unavailable": words[-1] if words else f"exit status {launched.returncode}"}
    return json.loads(launched.stdout)


def _interpreter() -> str:
    """The interpreter itself, not the link of a virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _readable() -> list[str]:
    """Python's own installation and the shared libraries; outer folders first."""
    python = {
        sys.base_prefix,
        sys.base_exec_prefix,
        os.path.realpath(sys.base_prefix),
        sysconfig.get_path("stdlib"),
        _interpreter(),
    }
    return sorted({*python, *_LIBRARIES}, key=lambda path: (path.count("/"), path))


@functools.cache
def why_unavailable() -> str:
    """Why the box cannot be made on this system; empty when it can. Found by running a program in it."""
    if sys.platform != "linux":
        return f"{sys.platform} has no namespaces"
    if not seccomp.is_supported():
        return f"the system calls of {os.uname().machine} are not known"
    ran = _try_run({"main.py": "print('in the box')"}, "", Limits(wall_s=30.0, cpu_s=30), folder=None)
    if isinstance(ran, str):
        return ran
    return "" if ran.stdout == "in the box\n" else f"Python does not run in it: {ran.stderr.strip() or ran}"


def require_sandbox() -> None:
    """Refuse untrusted code where the box cannot be made.

    Raises:
        ConfigError: with the reason.
    """
    if why := why_unavailable():
        raise ConfigError(explain("sandbox", None, f"is not to be had on this system ({why})", expected="user namespaces for untrusted code",
                                  remedy="Allow them (docs/stages/verifiers.md), or set allow_unsandboxed: true (--allow-unsandboxed)"))  # fmt: skip
