"""One cell of the comparison on Fairlead's side; the last line printed is its JSON.

python -m benchmarks.offline.ours --work DIR/S --method dpo --setting bf16
"""

import time
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
from fairlead.train.forward import Models, PolicyLogprobs, annotate
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
    models, prepared = make_models(args.work, args.method, precision=args.setting), 0.0
    if args.method in ("dpo", "long"):
        assert models.policy is not None
        num = args.agree * args.batch_size if args.agree else cells.NUM_REFERENCE
        started = time.perf_counter()
        done = annotate(trees[:num], "ref_logprobs", PolicyLogprobs(models.policy), max_tokens=args.max_tokens)
        prepared = (time.perf_counter() - started) / num
        trees = done
    algo = get_algorithm({"long": "dpo", "rank8": "ranking"}.get(args.method, args.method))
    options = {"reward": {"center_coef": 0.0}, "rank8": {"center_coef": 0.0}}.get(args.method, {})
    learner = Learner(models=models, algo=algo, algo_config=algo.config(**options), optim=OPTIM, num_steps=10**6,
                      max_tokens=args.max_tokens)  # fmt: skip
    if args.agree:
        batches = [trees[i : i + args.batch_size] for i in range(0, args.agree * args.batch_size, args.batch_size)]
        cells.report(losses=[learner.step(batch)["loss"] for batch in batches])
        return
    clock = cells.Clock(args.seconds)
    for batch in EpochBatches(trees, batch_size=args.batch_size, num_epochs=1000, seed=args.seed):
        learner.step(batch)
        computed = sum(t.num_tokens for t in batch)
        if clock.tick(rows=len(batch), tokens=sum(num_unshared(t) for t in batch), computed=computed):
            break
    memory = cells.peak_memory_mb()
    cells.report(
        **clock.summary(), prepare_s_per_row=prepared, memory_mb=memory, peak_gflops=cells.peak_gflops(args.setting)
    )


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
