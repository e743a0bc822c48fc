"""What a step does when memory runs out: the token budget is halved and the step made again from the start.

Nothing of the failed attempt stays: its gradients are dropped, the noise and the statistics of a step are functions of the step, so the
result is that of a run which had the smaller budget at this step.
"""

import gc
from collections.abc import Sequence

import torch

from fairlead.text.packing import Tree, plan_microbatches

_MESSAGES = ("DefaultCPUAllocator", "not enough memory")  # torch tells of a CPU's by a plain RuntimeError


def is_out_of_memory(error: BaseException) -> bool:
    """Did memory run out, on a device or on the host?"""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def tree_size(tree: Tree) -> int:
    """Tokens of the row that a tree needs by itself, or with its mismatched replies where those are more."""
    return max(tree.num_tokens, len(tree.prompt_ids) + sum(len(b.token_ids) for b in tree.mismatched))


def smaller_budget(trees: Sequence[Tree], *, max_tokens: int) -> int | None:
    """Half of the largest row that was made, at least the largest tree; None when every tree had a row of its own already."""
    sizes = [tree_size(t) for t in trees]
    rows = [sum(sizes[i] for i in row) for row in plan_microbatches(sizes, max_tokens=max_tokens)]
    smaller = max(max(sizes), max(rows) // 2)
    return smaller if smaller < max(rows) else None


def free_memory() -> None:
    """Give back what the failed attempt held. Called where no exception holds its frames any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
