"""Work folders: what a stage needs while it runs, and a killed one to go on. One a stage and cache key, under `work` in the home folder.

A key names the version of the code too, so after an update the folders of killed runs are found by nobody any more. They say which
version they belong to, so that these can be told apart from runs that will go on.

Example:
    with work_alone(home / "work" / key, stage="sft", code=code_version()):
        ...
    for folder in stale_work(store, code=code_version()):
        folder.remove()
"""

import contextlib
import shutil
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, StoreError, explain
from fairlead.core.io import read_json, write_json
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.locks import FileLock

FOLDER = "work"
_OWNER = "owner.json"
_UNKNOWN = "unknown"
_TRIES, _PAUSE_S = 3, 0.05
"""Of taking a work folder: one who only looks whether it is in use holds its lock for an instant."""


@contextlib.contextmanager
def work_alone(work: Path, *, stage: str, code: str) -> Generator[None]:
    """Make the work folder and keep other processes out of it; one in which nothing is left is removed.

    Args:
        code: version of the code, which is noted in the folder.
    Raises:
        StoreError: another process is at the same stage of the same run.
    """
    lock = _lock_of(work)
    if not _take(lock):
        raise StoreError(explain(stage, None, "is being run by another process", expected="one run of this recipe at a time in a home folder",
                                 remedy="Wait for it to end, or set another FAIRLEAD_HOME"))  # fmt: skip
    try:
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / _OWNER, {"stage": stage, "code_version": code})
        yield
    finally:
        with contextlib.suppress(OSError):
            if [path.name for path in work.iterdir()] == [_OWNER]:
                (work / _OWNER).unlink()
                work.rmdir()
        lock.release(remove=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleWork:
    """A work folder that no run finds any more."""

    path: Path
    stage: str
    code_version: str
    """Of the code that made it; `unknown` of folders that do not say."""
    num_bytes: int

    def remove(self) -> bool:
        """Delete it; False, and nothing is touched, when somebody has taken it into use meanwhile."""
        lock = _lock_of(self.path)
        if not lock.acquire(wait=False):
            return False
        try:
            shutil.rmtree(self.path)
        finally:
            lock.release(remove=True)
        return True


def stale_work(store: ArtifactStore, *, code: str) -> list[StaleWork]:
    """Work folders of other versions of the code, but for those in use and those whose stage is done and kept its checkpoints."""
    found: list[StaleWork] = []
    for path in sorted(p for p in (store.root / FOLDER).glob("*") if p.is_dir()):
        owner = _owner(path)
        if owner["code_version"] != code and store.find(path.name) is None and not is_in_use(path):
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            found.append(StaleWork(path=path, stage=owner["stage"], code_version=owner["code_version"], num_bytes=size))
    return found


def _owner(path: Path) -> dict[str, Any]:
    try:
        owner = read_json(path / _OWNER)
        return {"stage": str(owner["stage"]), "code_version": str(owner["code_version"])}
    except (DataError, KeyError, TypeError):
        return {"stage": _UNKNOWN, "code_version": _UNKNOWN}


def is_in_use(work: Path) -> bool:
    """Whether a process runs its stage in this work folder now."""
    return _lock_of(work).is_held()


def _take(lock: FileLock) -> bool:
    for _ in range(_TRIES):
        if lock.acquire(wait=False):
            return True
        time.sleep(_PAUSE_S)
    return False


def _lock_of(work: Path) -> FileLock:
    return FileLock(work.with_name(work.name + ".lock"))
