"""The folder in which the checkpoints of one run stand, oldest to newest: what is there, what stays, what is remembered of the rest.

    checkpoints/step-00000040/tensors.safetensors      weights, optimiser, extras, random generators
    checkpoints/step-00000040/state.json               step, metrics, what it belongs to, SHA-256 of the tensors and of itself
    checkpoints.jsonl                                  one line for each that is there no more: hash, time, step, metrics, reason

A checkpoint appears by one rename after everything in it is on disk, and leaves by one rename before anything of it is deleted. Nothing
here needs torch.

Example:
    for entry in Shelf(work / "checkpoints").entries():
        entry.name, entry.step, entry.read()["metrics"]
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fairlead.core.errors import ModelError, explain
from fairlead.core.io import sync_file, sync_folder

FOLDER = "checkpoints"
LOG = "checkpoints.jsonl"
STATE, TENSORS = "state.json", "tensors.safetensors"
_NAME = re.compile(r"step-(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One checkpoint; later ones compare greater."""

    step: int
    """Optimiser steps that were made."""
    number: int
    """Of those of the same step (a run that was interrupted twice at one step), from 0."""
    path: Path

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.name

    def read(self) -> dict[str, Any]:
        """Its state, checked against its own hash.

        Raises:
            ModelError: missing or damaged.
        """
        try:
            state: dict[str, Any] = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            seal = state.pop("seal")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise self._damaged(f"{STATE} cannot be read ({error})") from error
        if seal != _seal(state):
            raise self._damaged(f"{STATE} is not what was written")
        return state

    def verify(self) -> dict[str, Any]:
        """Its state, after the tensors were checked too.

        Raises:
            ModelError: missing or damaged.
        """
        state = self.read()
        try:
            found = _file_hash(self.path / TENSORS)
        except OSError as error:
            raise self._damaged(f"{TENSORS} cannot be read ({error.strerror})") from error
        if found != state["sha256"]:
            raise self._damaged(f"{TENSORS} is not what was written")
        return state

    def _damaged(self, what: str) -> ModelError:
        return ModelError(explain(self.path, None, f"is damaged: {what}", expected="a checkpoint as it was written",
                                  remedy="Delete the folder to go on from an earlier one"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shelf:
    """The checkpoints in one folder. Holds no state; one process writes at a time."""

    folder: Path

    def entries(self) -> list[Entry]:
        """What is there, oldest first; whole, but not verified."""
        found: list[Entry] = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if match := _NAME.fullmatch(path.name):
                found.append(Entry(int(match[1]), int(match[2] or 0), path))
        return sorted(found)

    def clean(self) -> None:
        """Delete what a killed process was writing or deleting."""
        for path in self.folder.glob(".*") if self.folder.is_dir() else ():
            shutil.rmtree(path, ignore_errors=True)

    def draft(self) -> Path:
        """A new hidden folder to write a checkpoint in."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=".draft-", dir=self.folder))

    def place(self, step: int) -> Entry:
        """Where a checkpoint of this step will stand."""
        number = 1 + max((e.number for e in self.entries() if e.step == step), default=-1)
        return Entry(step, number, self.folder / f"step-{step:08d}{f'.{number}' if number else ''}")

    def commit(self, draft: Path, entry: Entry, state: Mapping[str, Any]) -> None:
        """Add the state to a draft that holds the tensors, and show it. It is on disk once this returns."""
        text = json.dumps({**state, "seal": _seal(state)}, allow_nan=False)
        (draft / STATE).write_text(text, encoding="utf-8")
        sync_file(draft / STATE)
        sync_folder(draft)
        draft.rename(entry.path)
        sync_folder(self.folder)

    def rotate(self, keep: int | Literal["all"]) -> None:
        """Drop all but the newest `keep`, and what each of these needs: the best one, the one to go back to, and snapshots."""
        if keep == "all":
            return
        entries = self.entries()
        newest = entries[-keep:]
        needed = {e.name for e in newest} | {name for e in newest for name in _needed(e)}
        self.drop([e for e in entries if e.name not in needed], reason="rotated")

    def drop(self, entries: Iterable[Entry], *, reason: str) -> None:
        """Delete checkpoints; what is remembered of each is written first."""
        for entry in entries:
            self._remember(entry, reason)
            gone = entry.path.with_name(f".gone-{entry.name}")
            shutil.rmtree(gone, ignore_errors=True)
            entry.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _remember(self, entry: Entry, reason: str) -> None:
        try:
            state = entry.read()
        except ModelError:
            state = {}
        row = {"name": entry.name, "step": entry.step, "sha256": state.get("sha256"), "written": state.get("written"),
               "dropped": now(), "reason": reason, "is_best": state.get("best") == entry.name, "metrics": state.get("metrics", {})}  # fmt: skip
        path = self.folder.with_name(LOG)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        sync_file(path)

    def rewind(self, name: str) -> list[Entry]:
        """Drop every checkpoint after `name`, so that the run goes on from there; returns the dropped ones.

        Raises:
            ModelError: there is none of this name, or it is damaged.
        """
        entries = self.entries()
        chosen = next((e for e in entries if e.name == name), None)
        if chosen is None:
            raise ModelError(explain("checkpoint", name, f"is not in {self.folder}", expected=_names(e.name for e in entries),
                                     remedy="List them with `fairlead checkpoints`"))  # fmt: skip
        chosen.verify()
        later = [e for e in entries if e > chosen]
        self.drop(reversed(later), reason=f"the run was set back to {name}")
        return later


def retire(work: Path, *, log: Path, stage: str, keep_all: bool) -> None:
    """Of the work folder of a stage that is done: move what is remembered of its checkpoints to `log`, and delete the rest.

    Args:
        keep_all: the checkpoints stay where they are.
    """
    for folder in sorted(path.parent for path in work.rglob(FOLDER)) if work.is_dir() else ():
        shelf = Shelf(folder / FOLDER)
        if not keep_all:
            shelf.drop(shelf.entries(), reason="the stage is done")
        if (folder / LOG).is_file():
            lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps({"stage": stage, **json.loads(line)}) + "\n" for line in lines)
            (folder / LOG).unlink()
    if not keep_all:
        shutil.rmtree(work, ignore_errors=True)


def _needed(entry: Entry) -> tuple[str | None, ...]:
    """Names of the other checkpoints that a run which goes on from this one may want."""
    try:
        state = entry.read()
    except ModelError:
        return ()
    return (state["best"], state["good"], *state["snapshots"])


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none is there"


def _seal(state: Mapping[str, Any]) -> str:
    """Of the values in their order, which a resumed run writes again."""
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def now() -> str:
    """The time for people, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
