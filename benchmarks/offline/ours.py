"""One cell of the comparison on Fairlead's side; the last line printed is its JSON.

python -m benchmarks.offline.ours --work DIR/S --method dpo --setting bf16
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.offline import cells, work
from fairlead.algos import get_algorithm
from fairlead.models.heads import ScalarModel, new_reward_head
from fairlead.models.load import load_policy
from fairlead.models.memory import keep_freed_memory
from fairlead.text.packing import Branch, Tree
from fairlead.train.batches import EpochBatches
from fairlead.train.forward import Models, PolicyLogprobs, annotate, with_array
from fairlead.train.loop import Learner
from fairlead.train.optim import OptimizerSettings

OPTIM = OptimizerSettings(
    learning_rate=cells.LEARNING_RATE,
    schedule="constant",
    warmup_share=0.0,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    max_grad_norm=1.0,
)


def main() -> None:
    """Run the cell."""
    args = cells.parse_args(__doc__, ("fp32", "bf16"))
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    trees = read_trees(args.work, args.method)
    models, prepared = make_models(args.work, args.method, precision=args.setting), {}
    if args.method in ("dpo", "long"):
        trees, prepared = with_reference(models, trees, args)
    algo = get_algorithm({"long": "dpo", "rank8": "ranking"}.get(args.method, args.method))
    options = {"reward": {"center_coef": 0.0}, "rank8": {"center_coef": 0.0}}.get(args.method, {})
    learner = Learner(models=models, algo=algo, algo_config=algo.config(**options), optim=OPTIM, num_steps=10**6,
                      max_tokens=args.max_tokens)  # fmt: skip
    if args.agree:
        batches = [trees[i : i + args.batch_size] for i in range(0, args.agree * args.batch_size, args.batch_size)]
        cells.report(losses=[learner.step(batch)["loss"] for batch in batches], versions=cells.versions())
        return
    source = FairBatches(trees, batch_size=args.batch_size, seed=args.seed)
    clock = cells.Clock(args.seconds, warmup=args.warmup, min_steps=args.min_steps)
    for step in range(10**6):
        batch = source[step]
        learner.step(batch)
        if clock.tick(rows=len(batch), tokens=sum(map(num_unshared, batch))):
            break
    memory = cells.peak_memory_mb()
    cells.report(
        **clock.summary(),
        prepared=prepared,
        memory_mb=memory,
        peak_gflops=cells.peaks_gflops(),
        versions=cells.versions(),
    )


class FairBatches(Sequence[list[Tree]]):
    """The shuffled batches of one epoch, again and again, in an order of which every beginning is a fair sample of their sizes."""

    def __init__(self, trees: Sequence[Tree], *, batch_size: int, seed: int) -> None:
        self._batches = EpochBatches(
            trees[: len(trees) // batch_size * batch_size], batch_size=batch_size, num_epochs=1, seed=seed
        )
        self._order = cells.fair_order([sum(map(num_unshared, batch)) for batch in self._batches], seed=seed)

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, step: int) -> list[Tree]:
        return self._batches[self._order[step % len(self._order)]]


def with_reference(models: Models, trees: list[Tree], args: Namespace) -> tuple[list[Tree], dict[str, float]]:
    """Trees with reference logprobs, and what the pass over some of them took.

    The others get the logprob of a model that knows nothing: a step costs the same, and an epoch of them need not be waited for. Where
    losses are compared, all of those rows get theirs.
    """
    assert models.policy is not None
    num, compute = args.agree * args.batch_size or args.num_reference, PolicyLogprobs(models.policy)
    some = trees[:num]
    if not args.agree:
        further = trees[num : num + cells.NUM_REFERENCE_WARMUP] or some
        annotate(further, "ref_logprobs", compute, max_tokens=args.max_tokens)
    started = cells.now(args.device)
    done = annotate(some, "ref_logprobs", compute, max_tokens=args.max_tokens)
    prepared = {"rows": len(some), "tokens": sum(map(num_unshared, some)), "seconds": cells.now(args.device) - started}
    return [*done, *with_placeholders(trees[num:], vocab_size=models.policy.causal_lm.config.vocab_size)], prepared


def with_placeholders(trees: Sequence[Tree], *, vocab_size: int) -> list[Tree]:
    """Trees with the reference logprobs of a model that knows nothing."""
    value = cells.placeholder_logprob(vocab_size)
    return [
        with_array(tree, "ref_logprobs", np.full(sum(b.num_kept for b in tree.branches), value, dtype=np.float32))
        for tree in trees
    ]


def read_trees(folder: Path, method: str) -> list[Tree]:
    """The rows as trees."""
    ids = lambda row, name: np.asarray(row[name], dtype=np.int64)  # noqa: E731
    if method == "sft":
        return [Tree(prompt_ids=ids(row, "prompt_ids"), branches=(Branch(token_ids=ids(row, "completion_ids")),))
                for row in work.read_rows(folder / "sft.jsonl")]  # fmt: skip
    if method == "rank8":
        return [Tree(prompt_ids=ids(row, "prompt_ids"), ranks=tuple(range(8)),
                     branches=tuple(Branch(token_ids=np.asarray(c, dtype=np.int64)) for c in row["completions_ids"]))
                for row in work.read_rows(folder / "rankings.jsonl")]  # fmt: skip
    return [Tree(prompt_ids=ids(row, "prompt_ids"), ranks=(0, 1),
                 branches=tuple(Branch(token_ids=ids(row, name)) for name in ("chosen_ids", "rejected_ids")))
            for row in work.read_rows(folder / ("long.jsonl" if method == "long" else "pairs.jsonl"))]  # fmt: skip


def num_unshared(tree: Tree) -> int:
    """Tokens that a padded trainer would call useful: the prompt counts once a completion."""
    return sum(len(tree.prompt_ids) + len(b.token_ids) for b in tree.branches)


def make_models(folder: Path, method: str, *, precision: str) -> Models:
    """The same weights as the peer's."""
    policy = load_policy(str(folder / "model"), precision="bf16" if precision == "bf16" else "fp32")
    policy.module.train()
    if method not in ("reward", "rank8"):
        return Models(policy=policy)
    from safetensors.torch import load_file

    reward: ScalarModel = new_reward_head(policy, seed=0)
    with torch.no_grad():
        reward.head.weight.copy_(load_file(folder / "reward" / "model.safetensors")["score.weight"])
    return Models(reward=reward)


if __name__ == "__main__":
    main()
