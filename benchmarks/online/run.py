"""Compare a step of GRPO and of PPO with TRL's, side by side on this machine, and write benchmarks/results/online.json.

    python -m benchmarks.online.run                              # everything, or what is left of it
    python -m benchmarks.online.run --plan                       # what that is, and about how long it takes; runs nothing
    python -m benchmarks.online.run --works S/grpo               # some of it
    until python -m benchmarks.online.run --max-cells 1; [ $? != 75 ]; do :; done     # a cell a time

GRPO against TRL 1.16 (benchmarks/peers/trl.txt), PPO against TRL 1.12 (trl-ppo.txt), the last with a PPOTrainer: each in an environment of its
own, built under benchmarks/.work when it is not there. Both sides get the same prompts in the same order as token ids, eight samples
each, the same weights, the same number of new tokens, two threads and the same malloc setting. GRPO's completions are paid by a rule (share
of different tokens), PPO's by the same reward model. They alternate, one process a cell; cells are written as they finish
(benchmarks/.work/online/steps/cells.jsonl) with commit, time, device and versions, and a run that is stopped goes on where it was. Nothing else
should run meanwhile.

Why it is fair:

- On the same completions and rewards the losses of several rounds (and GRPO's norms of gradients), from the same weights on, agree in fp32 to 1e-4,
  or a method is not timed. Ratios leave 1 there: GRPO makes two passes over a round, PPO four, at a high learning rate.
- Ours is the loop that `fairlead train` runs, with its metrics, its rules and the KL to the reference, which costs a forward of the reference
  each round also where the loss has none. Its products are fp32, TRL's fp32 or bf16: the fastest of its settings in the same run counts.
- With random weights no sample ends early, so both sides write the same number of tokens; the more lengths differ, the more padding costs TRL.
- Rates are steps by seconds over whole steps: sampling, scoring, reference, update, logging. Warm-up steps come first,
  the one with the longest prompts before all, for steps that need more memory than those before them wait for the kernel to give it.

Exit status: 0 all is there, 75 more cells are left, 1 a cell failed or losses disagree.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.offline.cell_plan import Cell, find, forget_failed, keep, provenance
from benchmarks.offline.cells import device_name
from benchmarks.offline.run import LONGEST_CELL_S, MALLOC, MORE_LEFT, PLACE, SAID_CHARS, WIDE, peer_environment
from benchmarks.offline.summary import keep_results
from benchmarks.offline.work import SHAPES, make
from benchmarks.online.plan import AGREE_TOLERANCE, WORKS, Work, difference, planned
from benchmarks.online.summary import summarise

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CELLS = HERE.parent / ".work" / "online" / "steps"
RESULTS = HERE.parent / "results" / "online.json"
PEERS = {"grpo": ("trl", "benchmarks.online.their_grpo"), "ppo": ("trl-ppo", "benchmarks.online.their_ppo")}


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = [work.name for work in WORKS]
    parser.add_argument("--works", nargs="+", choices=names, default=names, metavar="SIZE/METHOD", help=" ".join(names))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-cells", type=int, help="run so many cells at most")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="begin no cell, after the first, that would end later"
    )
    parser.add_argument("--peer-settings", nargs="+", help="these of the peer alone")
    parser.add_argument("--plan", action="store_true", help="say what would run; run nothing")
    parser.add_argument("--summarise", action="store_true", help="write and print what there is so far; run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="forget the cells that failed")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are there")
    parser.add_argument(
        "--trl-python", type=Path, help="interpreter of an environment made from benchmarks/peers/trl.txt"
    )
    parser.add_argument("--trl-ppo-python", type=Path, help="the same for trl-ppo.txt")
    parser.add_argument("--work-place", type=Path, default=PLACE, help="folder of the fixed work")
    parser.add_argument("--place", type=Path, default=CELLS, help="folder of the cells")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then aggregate."""
    args, console = parse_args(arguments), Console(width=None if sys.stdout.isatty() else WIDE)
    args.place.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        (args.place / "cells.jsonl").unlink(missing_ok=True)
    if args.retry_failed:
        forget_failed(args.place)
    if args.plan:
        print_plan(args, console)
        return 0
    if not args.summarise and not run_cells(args, console):
        return MORE_LEFT
    rows = [row for work in chosen(args) for row in summarise(work, here(args))]
    if rows:
        keep_results(args.results, rows)
    console.print(table_of(rows))
    return told_faults(args, console)


def chosen(args: argparse.Namespace) -> list[Work]:
    """The works that were asked for."""
    return [work for work in WORKS if work.name in args.works]


def here(args: argparse.Namespace) -> list[Cell]:
    """The cells of this device."""
    return find({"device": device_name()}, place=args.place)


def left(args: argparse.Namespace) -> list[tuple[Work, Cell]]:
    """Cells that are not there yet; none of a method whose losses disagree."""
    cells = here(args)
    return [
        (work, key) for work, key in planned(chosen(args), repeats=args.repeats)
        if not any(all(c.get(k) == v for k, v in key.items()) for c in cells)
        and ("agree" in key or (difference(work.method, cells) or 0.0) <= AGREE_TOLERANCE)
        and (key["side"] == "ours" or "agree" in key or args.peer_settings is None or key["setting"] in args.peer_settings)
    ]  # fmt: skip


def run_cells(args: argparse.Namespace, console: Console) -> bool:
    """Run what is left, as many as allowed; True when nothing is left."""
    num, began = 0, time.monotonic()
    while cells := left(args):
        work, key = cells[0]
        is_late = num and time.monotonic() - began + estimate_s(work, key, here(args)) > args.seconds
        if num == args.max_cells or is_late:
            console.print(f"{len(cells)} cells are left; the same command runs them")
            return False
        if not (args.work_place / work.size / "checksums.json").exists():
            make(args.work_place / work.size, SHAPES[work.size])
        console.print(f"{len(cells)} left: {told(key)}", highlight=False)
        started = time.monotonic()
        cell = {**key, **provenance("benchmarks/online"), **run_cell(args, work, key)}
        keep({**cell, "wall_s": round(time.monotonic() - started, 1)}, place=args.place)
        if "failed" in cell:
            console.print(f"  failed: {cell['failed']}", highlight=False, markup=False)
        num += 1
    return True


def run_cell(args: argparse.Namespace, work: Work, key: Cell) -> Cell:
    """What one process of one side reports, or why it did not."""
    path = str(ROOT)
    if key["side"] == "ours":
        command, more = [sys.executable, "-m", "benchmarks.online.ours"], os.environ.get("PYTHONPATH", "")
        path = f"{path}{os.pathsep}{more}" if more else path
    else:
        name, module = PEERS[work.method]
        given = args.trl_python if name == "trl" else args.trl_ppo_python
        command = [str(given or peer_environment(name)), "-m", module]
    environment = {**os.environ, "GLIBC_TUNABLES": MALLOC, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path,
                   "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    command += ["--work", str(args.work_place / work.size), "--method", work.method, "--setting", key["setting"]]
    if "agree" in key:
        command += ["--agree", str(key["agree"])]
    else:
        command += ["--prompts", str(work.prompts), "--new", str(work.new), "--warmup", str(work.warmup), "--steps", str(work.steps),
                    "--repeat", str(key["repeat"])]  # fmt: skip
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=LONGEST_CELL_S, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {LONGEST_CELL_S} s"}
    if done.returncode:
        return {"failed": f"status {done.returncode}: {done.stderr.strip()[-SAID_CHARS:]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def told(key: Cell) -> str:
    """A cell in words."""
    what = f"losses of {key['agree']} rounds" if "agree" in key else f"repeat {key['repeat'] + 1}"
    return f"{key['work']}, {key['side']} {key['setting']}, {what}"


def estimate_s(work: Work, key: Cell, cells: list[Cell]) -> float:
    """Wall-clock seconds of a cell: as its like took, else as it is on two cores."""
    same = [c["wall_s"] for c in cells if all(c.get(k) == key.get(k) for k in ("work", "side", "setting", "agree"))]
    return statistics.median(same) if same else work.wall_s if key["side"] == "trl" else work.wall_s / 3


def print_plan(args: argparse.Namespace, console: Console) -> None:
    """The cells that are left, and their time."""
    cells, total = here(args), 0.0
    for work, key in left(args):
        seconds = estimate_s(work, key, cells)
        total += seconds
        console.print(f"{seconds:5.0f} s  {told(key)}", highlight=False)
    console.print(f"{total / 60:.0f} minutes, about")


def table_of(rows: list[dict]) -> Table:
    """What was found."""
    table = Table("work", "ours", "TRL", "ratio", "n", "s a step", "memory, MB", title="Steps a second")
    for row in rows:
        ratio, memory, steps = row["ratio"], row["memory_mb"], row["steps"]
        table.add_row(
            row["work"].removeprefix("online "), row["our_setting"], f"{row['peer_version'].removeprefix('trl ')} {row['peer_setting']}",
            f"{ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})", str(row["repeats"]),
            f"{steps['ours']['median_s']:.2f} : {steps['peer']['median_s']:.2f}", f"{memory['ours']:,} : {memory['peer']:,}",
        )  # fmt: skip
    return table


def told_faults(args: argparse.Namespace, console: Console) -> int:
    """Say what failed or disagrees; the exit status."""
    cells, status = here(args), 0
    for cell in cells:
        if "failed" in cell and cell["work"] in args.works:
            console.print(f"failed: {told(cell)}: {cell['failed']}", highlight=False, markup=False)
            status = 1
    for method in dict.fromkeys(work.method for work in chosen(args)):
        found = difference(method, cells)
        if found is not None and found > AGREE_TOLERANCE:
            console.print(f"{method}: losses disagree (relative {found:.1e} > {AGREE_TOLERANCE}); it was not timed")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
