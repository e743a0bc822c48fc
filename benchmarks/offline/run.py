"""Compare the training core with TRL on the fixed work, side by side on this machine, and write benchmarks/results/offline.json.

    python -m benchmarks.offline.run                              # everything, or what is left of it
    python -m benchmarks.offline.run --plan                       # what that is, and about how long it takes; runs nothing
    python -m benchmarks.offline.run --works S/sft S/dpo          # some of it
    until python -m benchmarks.offline.run --max-cells 1; [ $? != 75 ]; do :; done     # a cell a time

Builds the work and an environment for TRL (benchmarks/peers/trl.txt) under benchmarks/.work unless they are there. Both sides get the same
token ids, the same weights, two threads and the same malloc setting, each in fp32 and in bf16; they alternate, one process a cell. Cells are
written as they finish (benchmarks/.work/offline/cells.jsonl), each with commit, time, device and versions: a run that is stopped goes on
where it was. A cell that fails is written with its reason, and the others go on. Nothing else should run meanwhile.

Why it is fair:

- Losses of 20 steps from the same weights on the same rows must agree in fp32, or a method is not timed.
- Short cells time few steps, so these must be a fair sample of an epoch. TRL's grouping begins with its longest rows and goes down; a random
  handful is long or short by chance. Either side's batches of one epoch (grouped over all 2,048 rows as TRL does it, packed, or shuffled) are
  sorted by size and visited in even strides (`cells.fair_order`): any few steps are spread over all sizes. Before them stand as many steps of
  warm-up on either side, the largest batch first, for memory that grows makes steps slow. Measured on SFT in bf16: after 16 steps those of
  shapes never met are as fast as when they come again, on both sides.
- Rates are useful tokens (a prompt once a completion, no padding) by seconds, summed over the timed steps; medians of steps stand beside them.
- DPO trains on all rows, or TRL would group within a few; its reference pass is timed over some of them after a warm-up, and counted by
  their tokens. The other rows have the logprob of a model that knows nothing, -log(vocabulary) a token, for their reference on both sides:
  numbers near the true ones, as the weights are random, so that a step does the same arithmetic. Where losses are compared, all are true.
- TRL's best is whichever of its settings was the fastest in the same run.
- Utilisation counts what the useful tokens need (`flops.py`), against the fastest product of the same precision in the same run.

Exit status: 0 all is there, 75 more cells are left, 1 a cell failed or losses disagree.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.offline import cell_plan as plan
from benchmarks.offline.cell_plan import AGREE_TOLERANCE, WORKS, Cell, Work, agrees, find, keep, provenance
from benchmarks.offline.cells import device_name
from benchmarks.offline.summary import keep_results, summarise
from benchmarks.offline.work import SHAPES, make

HERE = Path(__file__).parent
PLACE = HERE.parent / ".work" / "offline"
RESULTS = HERE.parent / "results" / "offline.json"
MALLOC = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=67108864:glibc.malloc.hugetlb=1"
MORE_LEFT = 75
LONGEST_CELL_S = 1800
WIDE = 140
"""Columns of the table where there is no terminal."""
SAID_CHARS = 600
"""Of what a failed process said last."""


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = [work.name for work in WORKS]
    parser.add_argument("--works", nargs="+", choices=names, default=names, metavar="SIZE/METHOD", help=" ".join(names))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="measured in a cell, at least")
    parser.add_argument("--max-cells", type=int, help="run so many cells at most")
    parser.add_argument("--plan", action="store_true", help="say what would run; run nothing")
    parser.add_argument("--summarise", action="store_true", help="write and print what there is so far; run nothing")
    parser.add_argument("--retry-failed", action="store_true", help="forget the cells that failed")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are there")
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter of an environment made from benchmarks/peers/trl.txt"
    )
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of the work and the cells")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then aggregate."""
    args, console = parse_args(arguments), Console(width=None if sys.stdout.isatty() else WIDE)
    args.place.mkdir(parents=True, exist_ok=True)
    if args.fresh:
        (args.place / "cells.jsonl").unlink(missing_ok=True)
    if args.retry_failed:
        plan.forget_failed(args.place)
    if args.plan:
        print_plan(args, console)
        return 0
    if not args.summarise and not run_cells(args, console):
        return MORE_LEFT
    rows = [row for work in chosen(args) for row in summarise(work, here(args), place=args.place)]
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
        (work, key) for work, key in plan.planned(chosen(args), repeats=args.repeats)
        if not any(all(c.get(k) == v for k, v in key.items()) for c in cells) and ("agree" in key or agrees(work, cells) is not False)
    ]  # fmt: skip


def run_cells(args: argparse.Namespace, console: Console) -> bool:
    """Run what is left, as many as allowed; True when nothing is left."""
    peer, num = args.peer_python or peer_environment(), 0
    while cells := left(args):
        if num == args.max_cells:
            console.print(f"{len(cells)} cells are left; the same command runs them")
            return False
        work, key = cells[0]
        if not (args.place / work.size / "checksums.json").exists():
            make(args.place / work.size, SHAPES[work.size])
        console.print(f"{len(cells)} left: {told(key)}", highlight=False)
        started = time.monotonic()
        cell = {**key, **provenance(), **run_cell(args, peer, work, key)}
        keep({**cell, "wall_s": round(time.monotonic() - started, 1)}, place=args.place)
        if "failed" in cell:
            console.print(f"  failed: {cell['failed']}", highlight=False, markup=False)
        num += 1
    return True


def run_cell(args: argparse.Namespace, peer: Path, work: Work, key: Cell) -> Cell:
    """What one process of one side reports, or why it did not."""
    if key["side"] == "ours":
        command, path = [sys.executable, "-m", "benchmarks.offline.ours"], os.environ.get("PYTHONPATH", "")
        path = f"{HERE.parents[1]}{os.pathsep}{path}" if path else str(HERE.parents[1])
    else:
        command, path = [str(peer), str(HERE / "theirs.py")], str(HERE)
    environment = {**os.environ, "GLIBC_TUNABLES": MALLOC, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1", "PYTHONPATH": path,
                   "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}  # fmt: skip
    command += ["--work", str(args.place / work.size), "--method", work.method, "--setting", key["setting"]]
    if "agree" in key:
        command += ["--agree", str(key["agree"])]
    else:
        rows = work.our_rows if key["side"] == "ours" else work.rows
        command += ["--seconds", str(args.seconds), "--seed", str(key["repeat"]), "--batch-size", str(rows), "--warmup", str(work.warmup),
                    "--min-steps", str(work.min_steps), "--num-reference", str(work.num_reference)]  # fmt: skip
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_CELL_S)
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {LONGEST_CELL_S} s"}
    if done.returncode:
        return {"failed": f"status {done.returncode}: {done.stderr.strip()[-SAID_CHARS:]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer_environment(name: str = "trl") -> Path:
    """A peer's interpreter; its environment is built from benchmarks/peers/NAME.txt when it is not there."""
    folder = HERE.parent / ".work" / name
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE.parent / "peers" / f"{name}.txt"], check=True)
    return python


def told(key: Cell) -> str:
    """A cell in words."""
    what = f"losses of {key['agree']} steps" if "agree" in key else f"repeat {key['repeat'] + 1}"
    return f"{key['size']}/{key['method']}, {key['side']} {key['setting']}, {what}"


def print_plan(args: argparse.Namespace, console: Console) -> None:
    """The cells that are left, and their time."""
    cells, total = here(args), 0.0
    for work, key in left(args):
        seconds = plan.estimate_s(work, key, cells, seconds=args.seconds)
        total += seconds
        console.print(f"{seconds:5.0f} s  {told(key)}", highlight=False)
    console.print(f"{total / 60:.0f} minutes, about")


def table_of(rows: list[dict]) -> Table:
    """What was found; the peer's fastest setting of a work is marked."""
    table = Table(
        "work",
        "ours",
        "TRL",
        "ratio",
        "n",
        "tokens/s",
        "use of peak",
        "memory, MB",
        title="Useful tokens a second; * TRL's fastest",
    )
    for row in rows:
        ratio, memory, mfu = row["ratio"], row["memory_mb"], row["mfu"]
        table.add_row(
            row["work"].removeprefix("offline "), row["precision"], row["peer_setting"] + "*" * row["is_peer_best"],
            f"{ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})", str(row["repeats"]),
            f"{row['ours']['median']:,.0f} : {row['peer']['median']:,.0f}", f"{mfu['ours']:.0%} : {mfu['peer']:.0%}",
            f"{memory['ours']:,} : {memory['peer']:,}",
        )  # fmt: skip
    return table


def told_faults(args: argparse.Namespace, console: Console) -> int:
    """Say what failed or disagrees; the exit status."""
    cells, status = here(args), 0
    for cell in cells:
        if "failed" in cell and f"{cell['size']}/{cell['method']}" in args.works:
            console.print(f"failed: {told(cell)}: {cell['failed']}", highlight=False, markup=False)
            status = 1
    for work in chosen(args):
        found = plan.differences(work, cells)
        if found and found["fp32"] > AGREE_TOLERANCE:
            console.print(
                f"{work.name}: losses disagree (relative {found['fp32']:.1e} > {AGREE_TOLERANCE}); it was not timed"
            )
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
