"""Where each second of a round of GRPO or PPO goes, on our side, against what this machine's products and memory can do.

    python -m benchmarks.online.step_profile                       # model S, two prompts with eight samples of 64 tokens, under a minute
    python -m benchmarks.online.step_profile --method ppo --prompts 8 --new 128
    python -m benchmarks.online.step_profile --setting fp32

Rounds are timed as they are, then under torch's profiler, whose seconds are scaled to the former. A phase is a function of the loop; the update is
split further as `benchmarks.offline.step_profile` does it. `gflop_per_s` of a phase is its own arithmetic by its seconds, `share_of_gemm` that by
the fastest product in the run's precision, `share_of_copy` the bytes that it must read (weights once a decoding step, keys and
values) by the rate of a copy.
Nothing else should run. Writes benchmarks/results/online_profile.json.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.offline import flops
from benchmarks.offline.cell_plan import provenance
from benchmarks.offline.cells import versions
from benchmarks.offline.run import PLACE
from benchmarks.offline.step_profile import ancestry, labelled, needed_flops, part_of
from benchmarks.offline.summary import keep_results
from benchmarks.offline.work import SHAPES, make
from benchmarks.online import ours
from benchmarks.online.cells import EPOCHS
from benchmarks.online.engine import machine_limits
from fairlead.engine.by_kernel import KernelRunner
from fairlead.models.memory import keep_freed_memory
from fairlead.policies import sampling
from fairlead.policies.collect import NUM_GAP_TREES, Collector
from fairlead.policies.composed import ComposedRewarder
from fairlead.policies.rewarding import ModelRewarder
from fairlead.text.packing import Tree
from fairlead.train.loop import Learner

RESULTS = Path(__file__).parents[1] / "results" / "online_profile.json"
PHASE = "phase: "
PREFILL, DECODE, DRAW, SAMPLING = "sampling: prompts", "sampling: decoding", "sampling: drawing", "sampling: the rest"
SCORING, REFERENCE, GAP, UPDATE, REST = (
    "scoring",
    "reference, old logprobs, values",
    "engine against trainer",
    "update",
    "metrics, records, the rest",
)
FUNCTIONS = (
    (KernelRunner, "prefill", PREFILL), (KernelRunner, "decode", DECODE), (KernelRunner, "draw", DRAW),
    (sampling, "sample_rollouts", SAMPLING), (ComposedRewarder, "__call__", SCORING), (ModelRewarder, "__call__", SCORING),
    (Collector, "_compared", REFERENCE),
    (Collector, "_sampling_signals", GAP), (Learner, "step", UPDATE),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Profile, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.online.step_profile", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--size", choices=sorted(SHAPES), default="S")
    parser.add_argument("--method", choices=("grpo", "ppo"), default="grpo")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--setting",
        choices=("default", "fp32"),
        default="default",
        help="default: the precision that `auto` takes here",
    )
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of the fixed work, made when it is not there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    make(args.place / args.size, SHAPES[args.size])
    row = measure(args)
    keep_results(args.results, [row])
    Console(width=140).print(table_of(row))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One row of results."""
    args.work, args.repeat, args.agree = args.place / args.size, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        plain = ours.make_loop(args, Path(folder))
        ours.run(plain)
    with tempfile.TemporaryDirectory() as folder:
        seconds, trees, steps, about = profiled(args, Path(folder))
    times = plain.clock.steps[args.warmup :]
    mean, found = sum(times) / len(times), sum(seconds.values())
    parts = {name: value * mean / found for name, value in seconds.most_common()}
    precision = plain.models.policy.arithmetic.precision
    is_low = precision == "bf16"
    gemm, copy = machine_limits(precision)
    needed = {
        name: flop / args.steps / 1e9
        for name, flop in arithmetic(
            SHAPES[args.size], trees, method=args.method, a_round=args.prompts, old_logprobs=plain.config.old_logprobs
        ).items()
    }
    traffic = (
        read_by_decoding(SHAPES[args.size], trees, steps, epochs=EPOCHS[args.method], number_bytes=2 if is_low else 4)
        / args.steps
        / 1e9
    )
    return {
        "work": f"online profile {args.method} {args.size} {args.prompts}x8x{args.new} {precision}", "setting": about, "unit": "s a round",
        "mean_round_s": round(mean, 4), "num_rounds": len(times), "profiler_slowdown": round(found / args.steps / mean, 3),
        "parts": {name: round(value, 5) for name, value in parts.items()},
        "shares": {name: round(value / mean, 4) for name, value in parts.items()},
        "gflop": {name: round(value, 2) for name, value in needed.items()},
        "gflop_per_s": {name: round(value / spent(parts, name)) for name, value in needed.items() if spent(parts, name)},
        "share_of_gemm": {name: round(value / spent(parts, name) / gemm, 3) for name, value in needed.items() if spent(parts, name)},
        "share_of_copy": {DECODE: round(traffic / parts[DECODE] / copy, 3)} if DECODE in parts else {},
        "gemm_gflops": round(gemm), "copy_gb_per_s": round(copy, 1), "command": "python -m benchmarks.online.step_profile",
        **provenance("benchmarks/online"), "versions": versions(),
    }  # fmt: skip


def profiled(args: argparse.Namespace, folder: Path) -> tuple[Counter[str], list[Tree], int, str]:
    """Seconds of the rounds after the warm-up by part, what they trained on, how many decoding steps they made, and the engine in words."""
    trees: list[Tree] = []
    seconds: Counter[str] = Counter()
    loop = ours.make_loop(args, folder)
    profiler = profile(activities=[ProfilerActivity.CPU])
    fill, step, num_decoded = loop._fill, Learner.step, [0]

    def filled(bos_token_id: int | None) -> None:
        if len(loop.clock.steps) + 1 == args.warmup and loop.is_started:
            profiler.start()
        fill(bos_token_id)

    def stepped(learner: Learner, batch: Sequence[Tree], **found: Any) -> dict[str, float]:
        if len(loop.clock.steps) >= args.warmup:
            trees.extend(batch)
        return step(learner, batch, **found)

    with ExitStack() as stack:
        stack.enter_context(labelled(loop.learner.models))
        stack.enter_context(patch.object(Learner, "step", stepped))
        for owner, name, phase in FUNCTIONS:
            stack.enter_context(patch.object(owner, name, in_phase(getattr(owner, name), phase)))
        stack.enter_context(patch.object(loop, "_fill", filled))
        ours.run(loop)
    profiler.stop()
    for event in profiler.events() or ():
        names = ancestry(event)
        phase = next((name.removeprefix(PHASE) for name in names if name.startswith(PHASE)), REST)
        seconds[f"{UPDATE}: {part_of(names)}" if phase == UPDATE else phase] += event.self_cpu_time_total / 1e6
        num_decoded[0] += event.name == PHASE + DECODE
    seconds[REST] += sum(loop.clock.steps[args.warmup :]) - sum(seconds.values())
    return seconds, trees, num_decoded[0], loop.engine.about


def in_phase(function: Any, phase: str) -> Any:
    """The function under a label."""

    def run(*given: Any, **named: Any) -> Any:
        with record_function(PHASE + phase):
            return function(*given, **named)

    return run


def arithmetic(
    shape: dict[str, int], trees: Sequence[Tree], *, method: str, a_round: int, old_logprobs: str
) -> dict[str, float]:
    """FLOPs of all rounds by phase, or by part of the update.

    Args:
        trees: what was trained on, once an epoch.
        a_round: prompts of a round.
        old_logprobs: as the config has it. trainer: a forward before the step, which is also the look at the engine's. engine: a look at a few.
            step: neither.
    """
    layers, head = shape["num_hidden_layers"] * flops.layer_weights(shape), shape["vocab_size"] * shape["hidden_size"]
    is_ppo, epochs = method == "ppo", EPOCHS[method]
    prompts = sum(len(tree.prompt_ids) for tree in trees) / epochs
    tokens = sum(len(b.token_ids) for tree in trees for b in tree.branches) / epochs
    states, choices = 2.0 * layers * (prompts + tokens), 2.0 * head * tokens
    firsts = sum(len(tree.branches[0].token_ids) for tree in trees) / epochs
    looked = min(1.0, NUM_GAP_TREES / a_round) * (2.0 * layers * (prompts + firsts) + 2.0 * head * firsts)
    update = Counter(needed_flops(shape, [list(trees)], "grpo"))
    if is_ppo:  # a value model is a policy without its head
        update.update(needed_flops(shape, [list(trees)], "reward"))
    return {PREFILL: 2.0 * layers * prompts + 2.0 * head * len(trees) / epochs, DECODE: 2.0 * (layers + head) * tokens,
            SCORING: states if is_ppo else 0.0, REFERENCE: (states + choices) * (2 if old_logprobs == "trainer" else 1) + (states if is_ppo else 0.0),
            GAP: looked if old_logprobs == "engine" else 0.0, **{f"{UPDATE}: {part}": float(value) for part, value in update.items()}}  # fmt: skip


def read_by_decoding(
    shape: dict[str, int], trees: Sequence[Tree], steps: int, *, epochs: int, number_bytes: int
) -> float:
    """Bytes: all weights a step, and the keys and values before every token."""
    weights = shape["num_hidden_layers"] * flops.layer_weights(shape) + shape["vocab_size"] * shape["hidden_size"]
    width = shape["hidden_size"] // shape["num_attention_heads"] * shape["num_key_value_heads"]
    contexts = sum(
        len(b.token_ids) * len(tree.prompt_ids) + len(b.token_ids) * (len(b.token_ids) - 1) / 2
        for tree in trees
        for b in tree.branches
    )
    return float(number_bytes) * (steps * weights + 2 * shape["num_hidden_layers"] * width * contexts / epochs)


def spent(parts: dict[str, float], name: str) -> float:
    """Seconds of a part; 0 where nothing was seen of it."""
    return parts.get(name, 0.0)


def table_of(row: dict[str, Any]) -> Table:
    """Milliseconds, shares, and what is reached of the machine."""
    table = Table(
        "part",
        "ms a round",
        "share",
        "GFLOP",
        "of the GEMM peak",
        "of a copy",
        title=row["work"].removeprefix("online "),
    )
    for name, seconds in row["parts"].items():
        gemm, copy = row["share_of_gemm"].get(name), row["share_of_copy"].get(name)
        table.add_row(name, f"{1000 * seconds:.1f}", f"{row['shares'][name]:.1%}", str(row["gflop"].get(name, "")),
                      "" if gemm is None else f"{gemm:.0%}", "" if copy is None else f"{copy:.0%}")  # fmt: skip
    table.add_section()
    table.add_row("a round", f"{1000 * row['mean_round_s']:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
