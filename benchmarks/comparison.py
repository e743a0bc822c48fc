"""What comparisons with a peer share: their command line, one process a cell, cells kept as they finish, a run that goes on where it was.

A comparison says which cells are left, what runs one of them, and how they become rows of results; see benchmarks/offline/run.py.

Example:
    sys.exit(run(COMPARISON, parse_args()))
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.offline.cell_plan import ROOT, Cell, find, forget_failed, keep, provenance
from benchmarks.offline.cells import device_name
from benchmarks.offline.summary import keep_results
from benchmarks.offline.work import SHAPES, make

MALLOC = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1"
MORE_LEFT = 75
LONGEST_CELL_S = 1800
WIDE = 140
"""Columns of the table where there is no terminal."""
SAID_CHARS = 600
"""Of what a failed process said last."""

Args = argparse.Namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One comparison; works are its own, with a `name` and a `size`."""

    sources: str
    """Folder whose code it is besides src, from the root."""
    work_place: Callable[[Args], Path]
    """Folder of the fixed work."""
    planned: Callable[[Args, list[Cell]], list[tuple[Any, Cell]]]
    """All cells that may run, from those that are there; each with its work."""
    run_cell: Callable[[Args, Any, Cell], Cell]
    """What one process of one side reports, or why it did not."""
    told: Callable[[Cell], str]
    """A cell in words."""
    name_of: Callable[[Cell], str]
    """The work of a cell, as `--works` takes it."""
    estimate_s: Callable[[Args, Any, Cell, list[Cell]], float]
    """Wall-clock seconds of a cell that is left."""
    summarise: Callable[[Args, list[Cell]], list[dict]]
    """Rows of results."""
    table_of: Callable[[list[dict]], Table]
    disagreements: Callable[[Args, list[Cell]], Iterator[str]]
    """Methods that were not timed, in words."""


def add_arguments(parser: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Those of every comparison."""
    parser.add_argument("--works", nargs="+", choices=names, default=names, metavar="SIZE/METHOD", help=" ".join(names))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-cells", type=int, help="run so many cells at most")
    parser.add_argument("--plan", action="store_true", help="say what would run; run nothing")
    parser.add_argument("--summarise", action="store_true", help="write and print what there is so far; run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="forget the cells that failed")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are there")


def run(comparison: Comparison, args: Args) -> int:
    """Run what is missing, then aggregate; the exit status."""
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    args.place.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        (args.place / "cells.jsonl").unlink(missing_ok=True)
    if args.retry_failed:
        forget_failed(args.place)
    if args.plan:
        print_plan(comparison, args, console)
        return 0
    if not args.summarise and not run_cells(comparison, args, console):
        return MORE_LEFT
    rows = comparison.summarise(args, here(args))
    if rows:
        keep_results(args.results, rows)
    console.print(comparison.table_of(rows))
    return told_faults(comparison, args, console)


def here(args: Args) -> list[Cell]:
    """The cells of this device."""
    return find({"device": device_name()}, place=args.place)


def left(comparison: Comparison, args: Args) -> list[tuple[Any, Cell]]:
    """Cells that are not there yet."""
    cells = here(args)
    return [
        (work, key)
        for work, key in comparison.planned(args, cells)
        if not any(all(c.get(k) == v for k, v in key.items()) for c in cells)
    ]


def run_cells(comparison: Comparison, args: Args, console: Console) -> bool:
    """Run what is left, as many as allowed; True when nothing is left."""
    num = 0
    while cells := left(comparison, args):
        if num == args.max_cells:
            console.print(f"{len(cells)} cells are left; the same command runs them")
            return False
        work, key = cells[0]
        folder = comparison.work_place(args) / work.size
        if not (folder / "checksums.json").exists():
            make(folder, SHAPES[work.size])
        console.print(f"{len(cells)} left: {comparison.told(key)}", highlight=False)
        started = time.monotonic()
        cell = {**key, **provenance(comparison.sources), **comparison.run_cell(args, work, key)}
        keep({**cell, "wall_s": round(time.monotonic() - started, 1)}, place=args.place)
        if "failed" in cell:
            console.print(f"  failed: {cell['failed']}", highlight=False, markup=False)
        num += 1
    return True


def run_process(command: list[str], *, path: str, asked: str | None = None) -> Cell:
    """The JSON of the last line that one process prints, two threads and one malloc for every side; or why there is none.

    Args:
        path: its PYTHONPATH.
        asked: what it reads.
    """
    environment = {**os.environ, "GLIBC_TUNABLES": MALLOC, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path,
                   "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LONGEST_CELL_S, cwd=ROOT, input=asked
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {LONGEST_CELL_S} s"}
    if done.returncode:
        return {"failed": f"status {done.returncode}: {done.stderr.strip()[-SAID_CHARS:]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def our_path() -> str:
    """PYTHONPATH of our side: the root before what was given."""
    given = os.environ.get("PYTHONPATH", "")
    return f"{ROOT}{os.pathsep}{given}" if given else str(ROOT)


def peer_environment(name: str = "trl") -> Path:
    """A peer's interpreter; its environment is built from benchmarks/peers/NAME.txt when it is not there."""
    folder = ROOT / "benchmarks" / ".work" / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        requirements = ROOT / "benchmarks" / "peers" / f"{name}.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    return python


def print_plan(comparison: Comparison, args: Args, console: Console) -> None:
    """The cells that are left, and their time."""
    cells, total = here(args), 0.0
    for work, key in left(comparison, args):
        seconds = comparison.estimate_s(args, work, key, cells)
        total += seconds
        console.print(f"{seconds:5.0f} s  {comparison.told(key)}", highlight=False)
    console.print(f"{total / 60:.0f} minutes, about")


def told_faults(comparison: Comparison, args: Args, console: Console) -> int:
    """Say what failed or disagrees; the exit status."""
    cells, status = here(args), 0
    for cell in cells:
        if "failed" in cell and comparison.name_of(cell) in args.works:
            console.print(f"failed: {comparison.told(cell)}: {cell['failed']}", highlight=False, markup=False)
            status = 1
    for text in comparison.disagreements(args, cells):
        console.print(text)
        status = 1
    return status
