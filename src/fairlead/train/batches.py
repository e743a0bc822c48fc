"""From a global batch of trees to micro-batches: planned to a token budget, laid out flat, with the arrays that losses read.

Legend: N row tokens, K kept tokens, B completions, P trees.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairlead.text.packing import Layout, Tree, pack_trees, plan_microbatches


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Some trees of a global batch in one row."""

    trees: tuple[Tree, ...]
    layout: Layout

    def per_token(self, name: str) -> Tensor:
        """[K] a branch array, in kept-token order."""
        return torch.from_numpy(
            np.concatenate([b.arrays[name] for t in self.trees for b in t.branches]).astype(np.float32)
        )

    def per_sequence_weight(self) -> Tensor:
        """[B] branch weights."""
        return torch.tensor([b.weight for t in self.trees for b in t.branches], dtype=torch.float32)

    def per_tree(self, name: str, default: float) -> Tensor:
        """[P] a group number."""
        return torch.tensor([t.numbers.get(name, default) for t in self.trees], dtype=torch.float32)

    def ranks(self) -> Tensor:
        """[B] rank of each completion in its tree."""
        return torch.tensor([r for t in self.trees for r in t.ranks], dtype=torch.long)


def make_microbatches(trees: Sequence[Tree], *, max_tokens: int) -> list[MicroBatch]:
    """Plan and lay out one global batch."""
    plan = plan_microbatches([t.num_tokens for t in trees], max_tokens=max_tokens)
    return [MicroBatch(tuple(trees[i] for i in row), pack_trees([trees[i] for i in row])) for row in plan]


def epoch_batches(trees: Sequence[Tree], *, batch_size: int, num_epochs: int, seed: int) -> Iterator[list[Tree]]:
    """Shuffled batches of `batch_size` trees, a new order each epoch; the last batch of an epoch may be smaller.

    A pure function of its arguments, so that step k after a resume is the step k that would have been.
    """
    for epoch in range(num_epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(trees))
        for start in range(0, len(order), batch_size):
            yield [trees[i] for i in order[start : start + batch_size]]


def num_steps(num_trees: int, *, batch_size: int, num_epochs: int) -> int:
    """How many batches `epoch_batches` yields."""
    return num_epochs * -(-num_trees // batch_size)
