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
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from benchmarks import comparison
from benchmarks.comparison import MORE_LEFT
from benchmarks.offline import cell_plan as plan
from benchmarks.offline.cell_plan import AGREE_TOLERANCE, WORKS, Cell, Work, agrees
from benchmarks.offline.summary import summarise

__all__ = ["MORE_LEFT", "main"]

HERE = Path(__file__).parent
PLACE = HERE.parent / ".work" / "offline"
RESULTS = HERE.parent / "results" / "offline.json"


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    comparison.add_arguments(parser, [work.name for work in WORKS])
    parser.add_argument("--seconds", type=float, default=30.0, help="measured in a cell, at least")
    parser.add_argument(
        "--peer-python", type=Path, help="interpreter of an environment made from benchmarks/peers/trl.txt"
    )
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of the work and the cells")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then aggregate."""
    return comparison.run(COMPARISON, parse_args(arguments))


def chosen(args: argparse.Namespace) -> list[Work]:
    """The works that were asked for."""
    return [work for work in WORKS if work.name in args.works]


def planned(args: argparse.Namespace, cells: list[Cell]) -> list[tuple[Work, Cell]]:
    """All cells, but none of a method whose losses disagree."""
    return [
        (work, key)
        for work, key in plan.planned(chosen(args), repeats=args.repeats)
        if "agree" in key or agrees(work, cells) is not False
    ]


def run_cell(args: argparse.Namespace, work: Work, key: Cell) -> Cell:
    """What one process of one side reports, or why it did not."""
    if key["side"] == "ours":
        command, path = [sys.executable, "-m", "benchmarks.offline.ours"], comparison.our_path()
    else:
        command, path = [str(args.peer_python or comparison.peer_environment()), str(HERE / "theirs.py")], str(HERE)
    command += ["--work", str(args.place / work.size), "--method", work.method, "--setting", key["setting"]]
    if "agree" in key:
        command += ["--agree", str(key["agree"])]
    else:
        rows = work.our_rows if key["side"] == "ours" else work.rows
        command += ["--seconds", str(args.seconds), "--seed", str(key["repeat"]), "--batch-size", str(rows), "--warmup", str(work.warmup),
                    "--min-steps", str(work.min_steps), "--num-reference", str(work.num_reference)]  # fmt: skip
    return comparison.run_process(command, path=path)


def told(key: Cell) -> str:
    """A cell in words."""
    what = f"losses of {key['agree']} steps" if "agree" in key else f"repeat {key['repeat'] + 1}"
    return f"{key['size']}/{key['method']}, {key['side']} {key['setting']}, {what}"


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


def disagreements(args: argparse.Namespace, cells: list[Cell]) -> Iterator[str]:
    """Works that were not timed."""
    for work in chosen(args):
        found = plan.differences(work, cells)
        if found and found["fp32"] > AGREE_TOLERANCE:
            yield f"{work.name}: losses disagree (relative {found['fp32']:.1e} > {AGREE_TOLERANCE}); it was not timed"


COMPARISON = comparison.Comparison(
    sources="benchmarks/offline", work_place=lambda args: args.place, planned=planned, run_cell=run_cell, told=told,
    name_of=lambda cell: f"{cell['size']}/{cell['method']}",
    estimate_s=lambda args, work, key, cells: plan.estimate_s(work, key, cells, seconds=args.seconds),
    summarise=lambda args, cells: [row for work in chosen(args) for row in summarise(work, cells, place=args.place)],
    table_of=table_of, disagreements=disagreements,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
