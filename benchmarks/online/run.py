"""Compare a step of GRPO and of PPO with TRL's, side by side on this machine, and write benchmarks/results/online.json.

    python -m benchmarks.online.run                              # everything, or what is left of it
    python -m benchmarks.online.run --plan                       # what that is, and about how long it takes; runs nothing
    python -m benchmarks.online.run --works S/grpo               # some of it
    python -m benchmarks.online.run --works S/ppo --sides ours/default trl/bf16
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
  each round also where the loss has none. Its products are what `auto` takes (bf16 where it pays) or fp32, TRL's fp32 or bf16: the fastest of
  its settings in the same run counts, and its defaults stand beside it.
- Neither side saves checkpoints.
- With random weights no sample ends early, so both sides write the same number of tokens; the more lengths differ, the more padding costs TRL.
- Rates are steps by seconds over whole steps: sampling, scoring, reference, update, logging. Warm-up steps come first,
  the one with the longest prompts before all, for steps that need more memory than those before them wait for the kernel to give it.

Exit status: 0 all is there, 75 more cells are left, 1 a cell failed or losses disagree.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from benchmarks import comparison
from benchmarks.comparison import MORE_LEFT
from benchmarks.offline.cell_plan import ROOT, Cell
from benchmarks.offline.run import PLACE
from benchmarks.online.plan import AGREE_TOLERANCE, WORKS, Work, difference
from benchmarks.online.plan import planned as all_planned
from benchmarks.online.summary import summarise

__all__ = ["MORE_LEFT", "main"]

HERE = Path(__file__).parent
CELLS = HERE.parent / ".work" / "online" / "steps"
RESULTS = HERE.parent / "results" / "online.json"
PEERS = {"grpo": ("trl", "benchmarks.online.their_grpo"), "ppo": ("trl-ppo", "benchmarks.online.their_ppo")}


def parse_args(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online.run", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    comparison.add_arguments(parser, [work.name for work in WORKS])
    parser.add_argument("--sides", nargs="+", metavar="SIDE/SETTING", help="time these alone")
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
    return comparison.run(COMPARISON, parse_args(arguments))


def chosen(args: argparse.Namespace) -> list[Work]:
    """The works that were asked for."""
    return [work for work in WORKS if work.name in args.works]


def planned(args: argparse.Namespace, cells: list[Cell]) -> list[tuple[Work, Cell]]:
    """All cells of the sides that were asked for, but none of a method whose losses disagree."""
    return [
        (work, key)
        for work, key in all_planned(chosen(args), repeats=args.repeats)
        if "agree" in key
        or (
            (difference(work.method, cells) or 0.0) <= AGREE_TOLERANCE
            and (args.sides is None or f"{key['side']}/{key['setting']}" in args.sides)
        )
    ]


def run_cell(args: argparse.Namespace, work: Work, key: Cell) -> Cell:
    """What one process of one side reports, or why it did not."""
    if key["side"] == "ours":
        command, path = [sys.executable, "-m", "benchmarks.online.ours"], comparison.our_path()
    else:
        name, module = PEERS[work.method]
        given = args.trl_python if name == "trl" else args.trl_ppo_python
        command, path = [str(given or comparison.peer_environment(name)), "-m", module], str(ROOT)
    command += ["--work", str(args.work_place / work.size), "--method", work.method, "--setting", key["setting"]]
    if "agree" in key:
        command += ["--agree", str(key["agree"])]
    else:
        command += ["--prompts", str(work.prompts), "--new", str(work.new), "--warmup", str(work.warmup), "--steps", str(work.steps),
                    "--repeat", str(key["repeat"])]  # fmt: skip
    return comparison.run_process(command, path=path)


def told(key: Cell) -> str:
    """A cell in words."""
    what = f"losses of {key['agree']} rounds" if "agree" in key else f"repeat {key['repeat'] + 1}"
    return f"{key['work']}, {key['side']} {key['setting']}, {what}"


def estimate_s(_args: argparse.Namespace, work: Work, key: Cell, cells: list[Cell]) -> float:
    """Wall-clock seconds of a cell: as its like took, else as it is on two cores."""
    same = [c["wall_s"] for c in cells if all(c.get(k) == key.get(k) for k in ("work", "side", "setting", "agree"))]
    return statistics.median(same) if same else work.wall_s if key["side"] == "trl" else work.wall_s / 3


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


def disagreements(args: argparse.Namespace, cells: list[Cell]) -> Iterator[str]:
    """Methods that were not timed."""
    for method in dict.fromkeys(work.method for work in chosen(args)):
        found = difference(method, cells)
        if found is not None and found > AGREE_TOLERANCE:
            yield f"{method}: losses disagree (relative {found:.1e} > {AGREE_TOLERANCE}); it was not timed"


COMPARISON = comparison.Comparison(
    sources="benchmarks/online", work_place=lambda args: args.work_place, planned=planned, run_cell=run_cell, told=told,
    name_of=lambda cell: cell["work"], estimate_s=estimate_s,
    summarise=lambda args, cells: [row for work in chosen(args) for row in summarise(work, cells)],
    table_of=table_of, disagreements=disagreements,
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
