"""Checkpoints written while training goes on, and the one that a run goes on from.

    loop      snapshot (one copy into host memory) ----> next step ... ----> an error of the writer is raised here
    thread            write, sync, rename, rotate

One write at a time. A save that is due by the clock while another is written is put off to the next step; one that a step number or a
new best measurement asks for waits; ctrl-C and the end of the run wait until the newest is on disk.
"""

import contextlib
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import safe_open
from torch import Tensor

from fairlead.core.errors import FairleadError, ModelError, StoreError, explain
from fairlead.core.io import sync_file, write_error
from fairlead.models.snapshot import Snapshot
from fairlead.train.average import AVERAGE
from fairlead.train.forward import Models
from fairlead.train.identity import difference
from fairlead.train.shelf import TENSORS, Entry, Shelf, now
from fairlead.train.state import PARAMETER, load_parameters, named_parameters

MAX_SNAPSHOTS = 3  # what a rule asked for is looked at soon or never; each is as large as the run's state


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRule:
    """Which checkpoints are made besides those that are due by the clock, and which stay."""

    keep: int | Literal["all"] = 2
    """So many of the newest stay, and the best that each of them knows of."""
    every_steps: int | None = None
    """Optimiser steps between checkpoints; None leaves it to the clock."""


@dataclass(slots=True, eq=False)
class Checkpoints:
    """Reads and writes the checkpoints of one run. One thread calls it; it has one thread of its own while it writes."""

    shelf: Shelf
    rule: CheckpointRule
    owner: Mapping[str, Any]
    """What they belong to; see `identity`."""
    best: str | None = None
    """Name of the best one so far."""
    good: str | None = None
    """Name of the newest one that may be gone back to."""
    snapshots: list[str] = field(default_factory=list[str])
    """Names of those that a rule asked for; the newest three stay."""
    _snapshot: Snapshot = field(default_factory=Snapshot)
    _thread: threading.Thread | None = None
    _fault: BaseException | None = None

    @property
    def is_writing(self) -> bool:
        """True while a checkpoint is on its way to the disk."""
        return self._thread is not None and self._thread.is_alive()

    def save(
        self, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, is_best: bool, is_good: bool = False, is_snapshot: bool = False,
        also: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        """Copy the tensors and write them in the background, after the one that is being written.

        Args:
            state: plain values with `step` and `metrics`; not changed afterwards.
            is_best: this is the best so far.
            is_good: it may be gone back to.
            is_snapshot: it stays when it would rotate, to be looked at.
            also: files to sync to disk before the checkpoint shows (its metrics).
        Raises:
            StoreError: the one before could not be written.
        """
        self.join()
        self._snapshot.take(tensors)
        entry = self.shelf.place(int(state["step"]))
        if is_best:
            self.best = entry.name
        if is_good:
            self.good = entry.name
        if is_snapshot:
            self.snapshots = [*self.snapshots, entry.name][-MAX_SNAPSHOTS:]
        full = {
            **state,
            "owner": dict(self.owner),
            "best": self.best,
            "good": self.good,
            "snapshots": self.snapshots,
            "written": now(),
        }
        self._thread = threading.Thread(target=self._write, args=(entry, full, tuple(also)), name="checkpoint")
        self._thread.start()

    def _write(self, entry: Entry, state: dict[str, Any], also: Sequence[Path]) -> None:
        draft: Path | None = None
        try:
            draft = self.shelf.draft()
            state["sha256"] = self._snapshot.write(draft / TENSORS)
            for path in also:
                sync_file(path)
            self.shelf.commit(draft, entry, state)
            self.shelf.rotate(self.rule.keep)
        except BaseException as error:  # raised by the loop
            self._fault = error
        finally:
            if draft is not None:
                shutil.rmtree(draft, ignore_errors=True)

    def join(self) -> None:
        """Wait until nothing is being written.

        Raises:
            StoreError: the last one could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the background, once.

        Raises:
            StoreError: the last one could not be written.
        """
        fault, self._fault = self._fault, None
        if isinstance(fault, OSError):
            raise StoreError(str(write_error(self.shelf.folder, fault))) from fault
        if fault is not None:
            raise fault

    def resume(self) -> "Found | None":
        """The newest checkpoint that is whole; damaged ones after it are dropped.

        When the best one that it knows of is not whole, there is none from here on: nothing else that is whole is given up for it.

        Raises:
            ModelError: all are damaged, or it belongs to another run.
        """
        self.shelf.clean()
        damaged: list[tuple[Entry, FairleadError]] = []
        for entry in reversed(self.shelf.entries()):
            try:
                state = entry.verify()
            except ModelError as error:
                damaged.append((entry, error))
                continue
            self._require_own(entry, state)
            self.shelf.drop([e for e, _ in damaged], reason="damaged")
            self.good, self.snapshots = state["good"], list(state["snapshots"])
            lost = self._take_best(entry, state["best"])
            return Found(entry, state, tuple(str(error) for _, error in damaged), lost)
        if damaged:
            raise damaged[0][1]
        return None

    def _take_best(self, entry: Entry, name: str | None) -> str:
        """Know the best one that `entry` knows of; returns what is wrong with it, nothing when it is whole."""
        self.best = name
        if name in (None, entry.name):
            return ""
        best = Entry(0, 0, self.shelf.folder / name)
        try:
            best.verify()
        except ModelError as error:
            self.best = None
            self.shelf.drop([e for e in self.shelf.entries() if e.name == name], reason="damaged")
            return str(error)
        return ""

    def _require_own(self, entry: Entry, state: Mapping[str, Any]) -> None:
        if told := difference(state["owner"], self.owner):
            raise ModelError(explain(entry.path, None, f"is the checkpoint of another run: {told}", expected="one of this model, data, method and "
                                   "version", remedy=f"Undo the change, or delete {self.shelf.folder} to start the stage again"))  # fmt: skip

    def read_good(self) -> "Found | None":
        """The newest checkpoint that may be gone back to; None when there is none, or it is damaged."""
        self.join()
        if self.good is None:
            return None
        entry = next((e for e in self.shelf.entries() if e.name == self.good), None)
        try:
            return None if entry is None else Found(entry, entry.verify(), (), "")
        except ModelError:
            return None

    def read_best(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of the best checkpoint whose names begin with `prefix`; none when there is no best one."""
        self.join()
        if self.best is None:
            return {}
        path = self.shelf.folder / self.best
        Entry(0, 0, path).verify()
        return read_tensors(path, prefix)


def load_weights(path: Path, models: Models) -> None:
    """Put the weights of the checkpoint in folder `path` into models that were made as those that were trained (adapters too).

    Of a training with a moving average these are the averages, as they are of the policy that it saves in the end.

    Raises:
        ModelError: damaged, or of a model with other trained parameters.
    """
    state = Entry(0, 0, path).verify()
    named, shapes = named_parameters(models), state["owner"]["parameters"]
    for name, shape in shapes.items():
        if name not in named or list(named[name].shape) != shape:
            raise ModelError(explain(path, None, f"does not fit this model: {name} {'has another shape' if name in named else 'is not there'}",
                                     expected="the model that was trained, with its adapter", remedy="Load its base model first"))  # fmt: skip
    averages = read_tensors(path, AVERAGE)
    tensors, prefix = (averages, AVERAGE) if averages else (read_tensors(path, PARAMETER), PARAMETER)
    load_parameters({name: named[name] for name in shapes}, tensors, prefix=prefix)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """A checkpoint to go on from."""

    entry: Entry
    state: Mapping[str, Any]
    damaged: tuple[str, ...]
    """What was wrong with newer ones."""
    lost_best: str
    """What was wrong with the best one that it knows of; empty when that is whole, or there is none."""

    def tensors(self) -> dict[str, Tensor]:
        """All of its tensors, on the CPU."""
        return read_tensors(self.entry.path)


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of a checkpoint whose names begin with `prefix`, on the CPU."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(safe_open(path / TENSORS, framework="pt"))
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118 - not a mapping
