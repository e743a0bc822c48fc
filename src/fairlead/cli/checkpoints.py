"""`fairlead checkpoints`: what stages in progress could go on from, and setting one back to an earlier step."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fairlead.cli import terminal
from fairlead.cli.running import as_data
from fairlead.core.errors import ConfigError, ModelError, StoreError, explain
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.locks import FileLock
from fairlead.train.shelf import FOLDER, Entry, Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    entry: Entry
    shelf: Shelf
    state: dict[str, Any]
    """Empty when it is damaged."""
    num_bytes: int

    def values(self) -> dict[str, Any]:
        """Plain values for people and programs."""
        state = self.state
        return {
            "run": state.get("run", ""), "title": state.get("title", "damaged"), "checkpoint": self.entry.name, "step": self.entry.step,
            "written": state.get("written", ""), "is_best": state.get("best") == self.entry.name,
            "bytes": self.num_bytes, "metrics": state.get("metrics", {}), "path": str(self.entry.path),
        }  # fmt: skip


def show_checkpoints(home: Path, run: str | None, *, set_back: str | None, as_json: bool) -> None:
    """List the checkpoints of stages in progress (of one run), or set a stage back.

    Raises:
        ConfigError: `set_back` names no checkpoint, several, or one of a stage that is done.
        StoreError: the stage is being run.
    """
    rows = list(_rows(home, run))
    if set_back is not None:
        _set_back(home, rows, set_back)
        return
    if as_json:
        terminal.say(as_data([row.values() for row in rows]))
        return
    if not rows:
        terminal.say(
            f"No checkpoints in {home / 'work'}: they are there while a stage trains, and afterwards with keep_checkpoints: all."
        )
        return
    table = Table(box=None)
    for column in ("run", "training", "checkpoint", "written, UTC", "MB", "loss", ""):
        table.add_column(column, justify="right" if column in ("MB", "loss") else "left")
    for row in rows:
        found = row.values()
        loss = found["metrics"].get("loss")
        table.add_row(found["run"], found["title"], found["checkpoint"], found["written"][:16].replace("T", " "), f"{found['bytes'] / 2**20:.1f}",
                      "" if loss is None else f"{loss:.4f}", "best" if found["is_best"] else "")  # fmt: skip
    terminal.show_table(table)
    terminal.say(
        "Next: the run's own command goes on from the last of each; --set-back CHECKPOINT forgets those after it."
    )


def _rows(home: Path, run: str | None) -> list[_Row]:
    found: list[_Row] = []
    for folder in sorted(Path(path) / FOLDER for path, names, _ in os.walk(home / "work") if FOLDER in names):
        shelf = Shelf(folder)
        with contextlib.suppress(FileNotFoundError):  # the stage ended meanwhile
            found += [row for entry in shelf.entries() if (row := _row(shelf, entry)) is not None]
    return [row for row in found if run is None or str(row.state.get("run", "")).startswith(f"{run}/")]


def _row(shelf: Shelf, entry: Entry) -> _Row | None:
    """None when a run that goes on has dropped it meanwhile."""
    try:
        state = entry.read()
    except ModelError:
        state = dict[str, Any]()
    try:
        num_bytes = sum(path.stat().st_size for path in entry.path.iterdir())
    except FileNotFoundError:
        return None
    return _Row(entry=entry, shelf=shelf, state=state, num_bytes=num_bytes)


def _set_back(home: Path, rows: list[_Row], name: str) -> None:
    chosen = [row for row in rows if name in (row.entry.name, str(row.entry.path))]
    if len(chosen) != 1:
        wrong = "names several checkpoints" if chosen else "names no checkpoint"
        expected = (
            ", ".join(str(row.entry.path) if chosen else row.entry.name for row in chosen or rows)
            or "a checkpoint; none is there"
        )
        raise ConfigError(
            explain("--set-back", name, wrong, expected=expected, remedy="Give the name of one, or its path")
        )
    row = chosen[0]
    work = home / "work" / row.entry.path.relative_to(home / "work").parts[0]
    lock = FileLock(work.with_name(work.name + ".lock"))
    if not lock.acquire(wait=False):
        raise StoreError(explain(row.state.get("run", work.name), None, "is being run", expected="a run that is stopped",
                                 remedy="Press ctrl-C there and wait for it to end"))  # fmt: skip
    try:
        _require_unfinished(home, work.name, name)
        dropped = row.shelf.rewind(row.entry.name)
    finally:
        lock.release(remove=True)
    terminal.say(
        f"{row.state.get('run', '')} goes on at step {row.entry.step}; {len(dropped)} later checkpoints were forgotten."
    )
    terminal.say("Next: run the same command again.")


def _require_unfinished(home: Path, key: str, name: str) -> None:
    """A stage that is done is not trained again, and its checkpoints would be gone for nothing."""
    artifact = ArtifactStore(home).find(key)
    if artifact is not None:
        raise ConfigError(explain("--set-back", name, f"belongs to a stage that is done ({artifact.id})", expected="a stage in progress",
                                  remedy="Load the checkpoint by its path, or change a setting to train the stage again"))  # fmt: skip
