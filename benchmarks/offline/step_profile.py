"""Where each second of a training step goes, on our side: linear products, attention, head, norms, what is elementwise, optimiser, data.

    python -m benchmarks.offline.step_profile                       # SFT, reward model and DPO of model S in bf16 and fp32, about two minutes
    python -m benchmarks.offline.step_profile --methods dpo --precisions fp32 --steps 10

Steps are timed after two passes over the same batches, then under torch's profiler, whose seconds are scaled to the former: the
profiler slows small operations. An operation belongs to the innermost part around it: in the forward a labelled module or function, in the
backward the autograd node by its name, else what it is by itself (a product or not). `products_share_of_peak` is what a part's own
arithmetic (`flops.py`) reaches of the machine's fastest product; `backward_nodes` are the ten that took longest, so that a new kernel
that no rule knows is seen.
Nothing else should run. Writes benchmarks/results/offline_profile.json.
"""

import argparse
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.offline import cells, flops, ours
from benchmarks.offline.cell_plan import provenance
from benchmarks.offline.run import PLACE
from benchmarks.offline.summary import keep_results
from benchmarks.offline.work import SHAPES, make
from fairlead.algos import get_algorithm
from fairlead.models import attention, load, varlen
from fairlead.models.heads import ScalarModel
from fairlead.models.memory import keep_freed_memory
from fairlead.text.packing import Tree
from fairlead.train import loop, optim
from fairlead.train.forward import Models
from fairlead.train.loop import Learner

RESULTS = Path(__file__).parents[1] / "results" / "offline_profile.json"
METHODS = ("sft", "reward", "dpo")
PASSES = 2
"""Over the batches, timed and profiled; the quicker counts, for other programs take their turns in between."""
LINEAR, ATTENTION, HEAD, NORMS = "linear products", "attention", "head and logprobs", "norms"
ELEMENTWISE, EMBEDDING, OPTIMISER, DATA, REST = (
    "rotary, activations, residuals", "embedding", "optimiser and clipping", "data", "loss, Python, the rest",
)  # fmt: skip
PARTS = (LINEAR, ATTENTION, HEAD, NORMS, ELEMENTWISE, EMBEDDING, OPTIMISER, DATA, REST)
BACKBONE = "backbone"
"""A label that only says that what is inside and has no part of its own is elementwise."""
NODE = re.compile(r"autograd::engine::evaluate_function: (.*)")
NODES = (
    (ATTENTION, re.compile(r"Attend|Spread|Collect|Softmax|ScaledDot|Bmm|Attention")),
    (HEAD, re.compile(r"Logprob|LogSoftmax|Nll|Gather")),
    (LINEAR, re.compile(r"Linear|Addmm|^Mm|Projection")),
    (NORMS, re.compile(r"Norm|Rsqrt")),
    (EMBEDDING, re.compile(r"Embedding")),
)
"""Parts of autograd's nodes by name; any other is split by operation."""
PRODUCT = re.compile(r"^(aten::(mm|addmm|linear|_addmm_activation|mkldnn_linear)|mkldnn::)")
LABEL = "part: "


def main(arguments: list[str] | None = None) -> int:
    """Profile, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline.step_profile", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--precisions", nargs="+", choices=("bf16", "fp32"), default=["bf16", "fp32"])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--size", choices=sorted(SHAPES), default="S")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--place", type=Path, default=PLACE, help="folder of the fixed work, made when it is not there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    make(args.place / args.size, SHAPES[args.size])
    rows = [measure(args, method, precision) for method in args.methods for precision in args.precisions]
    for row in rows:
        add_shares_of_peak(
            row, peak=max(other["peak_gflops"] for other in rows if other["precision"] == row["precision"])
        )
    keep_results(args.results, rows)
    Console(width=140).print(table_of(rows))
    return 0


def measure(args: argparse.Namespace, method: str, precision: str) -> dict:
    """One row of results."""
    folder = args.place / args.size
    learner = make_learner(folder, method, precision)
    largest, *batches = batches_of(folder, method, size=args.size, num=1 + args.steps)
    for batch in (largest, *batches, *batches):  # until memory does not grow any more
        learner.step(batch)
    taken = [
        min(times) for times in zip(*([timed(learner, batch) for batch in batches] for _ in range(PASSES)), strict=True)
    ]
    seconds, nodes, profiled = min((profile_steps(learner, batches) for _ in range(PASSES)), key=lambda found: found[2])
    scale, num = sum(taken) / profiled, len(batches)
    needed = needed_flops(SHAPES[args.size], batches, method)
    parts = {part: seconds.get(part, 0.0) * scale / num for part in PARTS}
    return {
        "work": f"offline profile {method} {args.size} {precision}", "precision": precision, "setting": "batches of 8", "unit": "s a step",
        "mean_step_s": round(sum(taken) / num, 4), "median_step_s": round(statistics.median(taken), 4), "num_steps": num,
        "profiler_slowdown": round(1 / scale, 3), "parts": {part: round(value, 5) for part, value in parts.items()},
        "shares": {part: round(value * num / sum(taken), 4) for part, value in parts.items()},
        "gflop": {part: round(flop / num / 1e9, 3) for part, flop in needed.items()},
        "peak_gflops": round(cells.peaks_gflops()[precision]),
        "backward_nodes": {name: round(s * scale / num, 5) for name, s in nodes.most_common(10)},
        "command": "python -m benchmarks.offline.step_profile", **provenance(), "versions": cells.versions(),
    }  # fmt: skip


def timed(learner: Learner, batch: list[Tree]) -> float:
    """Seconds of a step."""
    started = time.perf_counter()
    learner.step(batch)
    return time.perf_counter() - started


def add_shares_of_peak(row: dict, *, peak: float) -> None:
    """What the parts that are products reach of the fastest product of their precision in this run, GFLOP/s."""
    row["peak_gflops"] = peak
    row["products_share_of_peak"] = {
        part: round(gflop / row["parts"][part] / peak, 3) for part, gflop in row["gflop"].items() if row["parts"][part]
    }


def make_learner(folder: Path, method: str, precision: str) -> Learner:
    """As the comparison trains."""
    models, algo = ours.make_models(folder, method, precision=precision), get_algorithm(method)
    config = algo.config(**({"center_coef": 0.0} if method == "reward" else {}))
    return Learner(models=models, algo=algo, algo_config=config, optim=ours.OPTIM, num_steps=10**6)


def batches_of(folder: Path, method: str, *, size: str, num: int) -> list[list[Tree]]:
    """As the comparison takes them; the reference of DPO is a model that knows nothing."""
    trees = ours.read_trees(folder, method)
    if method == "dpo":
        trees = ours.with_placeholders(trees, vocab_size=SHAPES[size]["vocab_size"])
    source = ours.FairBatches(trees, batch_size=8, seed=0)
    return [source[i] for i in range(num)]


def profile_steps(learner: Learner, batches: Sequence[list[Tree]]) -> tuple[Counter[str], Counter[str], float]:
    """Seconds of all steps by part, by backward node, and in all."""
    with labelled(learner.models), profile(activities=[ProfilerActivity.CPU]) as found:
        for batch in batches:
            with record_function(LABEL + REST):
                learner.step(batch)
    events = found.events()
    assert events is not None
    seconds: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    total = 0.0
    for event in events:
        own = event.self_cpu_time_total / 1e6
        seconds[part_of(ancestry(event))] += own
        total += own
        if match := NODE.match(event.name):
            nodes[match[1]] += event.cpu_time_total / 1e6
    return seconds, nodes, total


def ancestry(event: Any) -> list[str]:
    """Names of an event and of what is around it, innermost first."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return names


def part_of(names: Sequence[str]) -> str:
    """The part that an operation belongs to; its own name comes first, then those around it."""
    is_product = PRODUCT.match(names[0]) is not None
    for name in names:
        if name.startswith(LABEL):
            part = name.removeprefix(LABEL)
            if part == BACKBONE:
                return LINEAR if is_product else ELEMENTWISE
            return part
        if match := NODE.match(name):
            known = next((part for part, pattern in NODES if pattern.search(match[1])), None)
            return known or (LINEAR if is_product else ELEMENTWISE)
    return REST


@contextmanager
def labelled(models: Models) -> Iterator[None]:
    """Modules and functions say what they belong to meanwhile."""
    with ExitStack() as stack:
        for trunk in models.trunks():
            for handle in label_modules(trunk.backbone):
                stack.callback(handle.remove)
        for owner, name, part in (
            (attention.TreeAttention, "attend", ATTENTION), (varlen, "plan_attention", ATTENTION), (load, "token_logprobs", HEAD),
            (ScalarModel, "_read", HEAD), (optim.OptimizerSet, "step", OPTIMISER), (optim.OptimizerSet, "zero_grad", OPTIMISER),
            (Learner, "_gradient_norm", OPTIMISER), (loop, "prepare", DATA),
        ):  # fmt: skip
            stack.enter_context(patch.object(owner, name, in_part(getattr(owner, name), part)))
        yield


def label_modules(backbone: nn.Module) -> Iterator[Any]:
    """Hooks on the parts of a backbone, and on the whole."""
    for module in backbone.modules():
        kind = type(module).__name__
        part = (
            LINEAR
            if isinstance(module, nn.Linear)
            else NORMS
            if "Norm" in kind
            else EMBEDDING
            if isinstance(module, nn.Embedding)
            else None
        )
        if module is backbone:
            part = BACKBONE
        if part is None:
            continue
        open_labels: list[record_function] = []

        def enter(_module: nn.Module, _inputs: Any, *, part: str = part, stack: list = open_labels) -> None:
            stack.append(record_function(LABEL + part))
            stack[-1].__enter__()

        def leave(_module: nn.Module, _inputs: Any, _output: Any, *, stack: list = open_labels) -> None:
            stack.pop().__exit__(None, None, None)

        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave)


def in_part(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    """The function under a label."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with record_function(LABEL + part):
            return function(*args, **kwargs)

    return run


def needed_flops(shape: dict[str, int], batches: Sequence[list[Tree]], method: str) -> dict[str, float]:
    """Arithmetic of all steps by the parts that are products."""
    rows = [
        (len(tree.prompt_ids), tuple(len(b.token_ids) for b in tree.branches)) for batch in batches for tree in batch
    ]
    useful = sum(map(flops.useful_tokens, rows))

    def of(**changes: int) -> float:
        return useful * flops.flops_per_token(
            {**shape, **changes}, rows, has_head=method != "reward", has_reference=False, is_shared=True
        )

    whole, without_head = of(), of(vocab_size=0)
    linear = sum(
        6 * shape["num_hidden_layers"] * flops.layer_weights(shape) * (prompt + sum(completions))
        for prompt, completions in rows
    )
    found = {LINEAR: float(linear), ATTENTION: without_head - linear, HEAD: whole - without_head}
    return {part: value for part, value in found.items() if value}


def table_of(rows: Sequence[dict]) -> Table:
    """Milliseconds and shares by part."""
    table = Table("milliseconds a step", *(row["work"].removeprefix("offline profile ") for row in rows))
    for part in PARTS:
        table.add_row(
            part, *(f"{1000 * row['parts'][part]:.1f} ({row['shares'][part]:.0%}{of_peak(row, part)})" for row in rows)
        )
    table.add_section()
    table.add_row("a step", *(f"{1000 * row['mean_step_s']:.1f}" for row in rows))
    return table


def of_peak(row: dict, part: str) -> str:
    """What a part reaches, where it is products."""
    share = row["products_share_of_peak"].get(part)
    return "" if share is None else f"; {share:.0%} of peak"


if __name__ == "__main__":
    sys.exit(main())
