"""One cell of the GPU benchmark on Fairlead's side; the last line printed is its JSON.

python -m benchmarks.gpu.ours --work DIR/0.5B --method dpo --setting full --device cuda
"""

from argparse import Namespace
from dataclasses import replace

import torch

from benchmarks.gpu.work import RECOMPUTE, WAYS
from benchmarks.offline import cells
from benchmarks.offline.ours import OPTIM, FairBatches, num_unshared, read_trees, with_reference
from fairlead.algos import get_algorithm
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.heads import new_reward_head
from fairlead.models.load import load_policy
from fairlead.models.recompute import recompute_activations
from fairlead.train.forward import Models
from fairlead.train.loop import Learner, run_loop


def main() -> None:
    """Run the cell; memory that runs out is its result."""
    args = cells.parse_args(__doc__, WAYS)
    torch.set_num_threads(args.threads)
    try:
        cells.report(**measure(args))
    except torch.OutOfMemoryError as error:
        cells.report(failed=str(error).splitlines()[0])


def measure(args: Namespace) -> dict[str, float]:
    """Rates, peak memory, and the speed of a product in this run."""
    trees, models, prepared = read_trees(args.work, args.method), make_models(args), {}
    if args.method == "dpo":
        trees, prepared = with_reference(models, trees, args)
    algo = get_algorithm(args.method)
    config = algo.config(**({"center_coef": 0.0} if args.method == "reward" else {}))
    optim = replace(OPTIM, optimizer="adamw_8bit") if args.setting.startswith("low_8bit") else OPTIM
    learner = Learner(
        models=models, algo=algo, algo_config=config, optim=optim, num_steps=10**6, max_tokens=args.max_tokens
    )
    source, seen = (FairBatches(trees, batch_size=args.batch_size, seed=args.seed) for _ in range(2))
    clock = cells.Clock(args.seconds, warmup=args.warmup, min_steps=args.min_steps, device=args.device)

    def tick(learner: Learner, _metrics: dict[str, float]) -> bool:
        batch = seen[learner.step_number - 1]
        return clock.tick(rows=len(batch), tokens=sum(map(num_unshared, batch)))

    run_loop(learner, source, hooks=[tick])
    memory = cells.peak_memory_mb(args.device)
    return {
        **clock.summary(),
        "prepared": prepared,
        "memory_mb": memory,
        "peak_gflops": cells.peaks_gflops(args.device),
        "max_tokens": learner.max_tokens,
    }


def make_models(args: Namespace) -> Models:
    """The model in the dtype of its weights, bf16 products on a GPU."""
    policy = load_policy(str(args.work / "model"), dtype=getattr(torch, args.dtype), device=args.device,
                         precision="bf16" if args.device == "cuda" else "fp32")  # fmt: skip
    if args.setting.startswith("lora"):
        policy = add_lora(policy, LoraSettings(), seed=0)
    if args.setting.endswith(RECOMPUTE):
        recompute_activations(policy)
    return Models(reward=new_reward_head(policy, seed=0)) if args.method == "reward" else Models(policy=policy)


if __name__ == "__main__":
    main()
