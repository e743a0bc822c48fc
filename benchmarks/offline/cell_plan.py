"""Which cells the comparison has, in which order, which of them are there, and how long the others will take.

A cell is one process of one side. Cells are kept as lines of a file, each with what it ran on; cells of another device than this one are
not this run's.
"""

import datetime
import json
import statistics
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.offline.cells import device_name
from benchmarks.offline.work import read_rows

Cell = dict[str, Any]
ROOT = Path(__file__).parents[2]
AGREE_STEPS = 20
AGREE_TOLERANCE = 1e-4
AGREE_SIDES = {
    "ours": ("ours", "fp32"),
    "trl": ("trl", "grouped"),
    "ours_bf16": ("ours", "bf16"),
    "trl_bf16": ("trl", "grouped_bf16"),
}
"""Whose losses are compared; in row order, whatever the setting says of the order."""
SHORT = (("ours", "bf16"), ("trl", "grouped_bf16"))
"""What is compared on the longer works: both sides at their fastest."""
SIDES = (*SHORT, ("ours", "fp32"), ("trl", "grouped"), ("trl", "default"))
PACKED = ("trl", "packing_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One method on one size of model."""

    size: str
    method: str
    sides: tuple[tuple[str, str], ...]
    """Side and setting, in the order in which they alternate."""
    has_agreement: bool = False
    rows: int = 8
    """Of a step."""
    our_rows: int = 8
    """Two prompts with eight completions are eight pairs."""
    num_reference: int = 128
    warmup: int = 16
    """Steps before the timed ones: memory goes on growing for a dozen after the largest batch, on our side too."""
    min_steps: int = 8
    wall_s: float = 75.0
    """What a cell takes on two cores, before one of them has been timed."""

    @property
    def name(self) -> str:
        """As `--works` takes it."""
        return f"{self.size}/{self.method}"


WORKS = (
    Work(size="S", method="sft", sides=(*SIDES, PACKED), has_agreement=True),
    Work(size="S", method="reward", sides=SIDES, has_agreement=True),
    Work(size="S", method="dpo", sides=SIDES, has_agreement=True, wall_s=100),
    Work(size="S", method="long", sides=SHORT, num_reference=64, warmup=8, wall_s=150),
    Work(size="S", method="rank8", sides=SHORT, our_rows=2),
    Work(size="M", method="sft", sides=(*SHORT, PACKED), warmup=3, min_steps=5, wall_s=170),
    Work(size="M", method="dpo", sides=SHORT, num_reference=32, warmup=3, min_steps=5, wall_s=280),
)


def planned(works: Iterable[Work], *, repeats: int) -> Iterator[tuple[Work, Cell]]:
    """All cells: losses first, then the timed ones repeat by repeat, so that a run that is cut off has compared everything."""
    works = list(works)
    for work in works:
        if work.has_agreement:
            for name, (side, setting) in AGREE_SIDES.items():
                yield work, {**_key(work, side, setting), "agree": AGREE_STEPS, "name": name}
    for repeat in range(repeats):
        for work in works:
            for side, setting in work.sides:
                yield work, {**_key(work, side, setting), "repeat": repeat}


def _key(work: Work, side: str, setting: str) -> Cell:
    return {"size": work.size, "method": work.method, "side": side, "setting": setting}


def differences(work: Work, cells: Iterable[Cell]) -> dict[str, float] | None:
    """The largest relative differences of losses: ours to the peer's in fp32, and bf16 to fp32 on either side; None until all four are there."""
    found = {cell["name"]: cell["losses"] for cell in cells if _is_of(cell, work) and "losses" in cell}
    if set(found) != set(AGREE_SIDES):
        return None
    pairs = {"fp32": ("ours", "trl"), "ours_bf16": ("ours_bf16", "ours"), "peer_bf16": ("trl_bf16", "trl")}
    return {
        name: float(f"{max(abs(x - y) / abs(y) for x, y in zip(found[a], found[b], strict=True)):.2g}")
        for name, (a, b) in pairs.items()
    }


def agrees(work: Work, cells: Iterable[Cell]) -> bool | None:
    """The losses are the same, or the comparison would be of different work; None where that has not been tried, or failed."""
    found = differences(work, cells)
    return None if found is None else found["fp32"] <= AGREE_TOLERANCE


def _is_of(cell: Cell, work: Work) -> bool:
    return cell["size"] == work.size and cell["method"] == work.method


def find(key: Cell, *, place: Path) -> list[Cell]:
    """Cells of that key that have been run."""
    path = place / "cells.jsonl"
    return [
        cell for cell in (read_rows(path) if path.exists() else []) if all(cell.get(k) == v for k, v in key.items())
    ]


def keep(cell: Cell, *, place: Path) -> None:
    """Append one cell."""
    with (place / "cells.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(cell) + "\n")


def forget_failed(place: Path) -> None:
    """Drop the cells that failed, so that they are run again."""
    path = place / "cells.jsonl"
    left = [cell for cell in find({}, place=place) if "failed" not in cell]
    new = path.with_suffix(".new")
    new.write_text("".join(json.dumps(cell) + "\n" for cell in left), encoding="utf-8")
    new.replace(path)


def estimate_s(work: Work, key: Cell, cells: Iterable[Cell], *, seconds: float) -> float:
    """Wall-clock seconds of a cell: as its like took, else as its side did on this work, else as it is on two cores."""
    known = [
        c
        for c in cells
        if "wall_s" in c and _is_of(c, work) and c["side"] == key["side"] and ("agree" in c) == ("agree" in key)
    ]
    same = [c["wall_s"] for c in known if c["setting"] == key["setting"]]
    if same or known:
        return statistics.median(same or [c["wall_s"] for c in known])
    return 60.0 if "agree" in key else work.wall_s + max(0.0, seconds - 30)


def provenance(folder: str = "benchmarks/offline") -> dict[str, str]:
    """Commit of this code (`+` where the sources or `folder` were changed since), now, and where."""
    git = ["git", "-C", str(ROOT)]
    commit = _output([*git, "rev-parse", "--short", "HEAD"])
    is_changed = _output([*git, "status", "--porcelain", "--", "src", folder])
    now = datetime.datetime.now(datetime.UTC)
    return {"commit": commit + ("+" if is_changed else ""), "date": now.date().isoformat(), "time": now.isoformat(timespec="seconds"),
            "device": device_name()}  # fmt: skip


def _output(command: list[str]) -> str:
    """What it prints, without the last newline; nothing when it fails (a copy without its repository)."""
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()
