"""From a global batch of trees to micro-batches: planned to a token budget, laid out flat, with the arrays that losses read.

Legend: N row tokens, K kept tokens, B completions, P trees.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import torch
from torch import Tensor

from fairlead.text.packing import Ints, Layout, Tree, join_choices, pack_trees, plan_microbatches


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

    def optional_per_token(self, name: str) -> Tensor | None:
        """[K] a branch array that a global batch may go without; None when no branch of this row has it.

        Raises:
            KeyError: some branches of the row have it and some have not.
        """
        return self.per_token(name) if any(name in b.arrays for t in self.trees for b in t.branches) else None

    def choices(self) -> Tensor | None:
        """[K, C] the tokens that each kept one was drawn from, -1 beyond them; None where no branch of this row says any.

        Raises:
            ValueError: some branches of the row say it and some do not.
        """
        found = [b.choices for t in self.trees for b in t.branches]
        known = [ids for ids in found if ids is not None]
        if not known:
            return None
        if len(known) < len(found):
            raise ValueError(f"{len(known)} of {len(found)} branches of a row say what their tokens were drawn from")
        return torch.from_numpy(join_choices(known))

    def per_sequence_weight(self) -> Tensor:
        """[B] branch weights."""
        return torch.tensor([b.weight for t in self.trees for b in t.branches], dtype=torch.float32)

    def per_tree(self, name: str, default: float) -> Tensor:
        """[P] a group number."""
        return torch.tensor([t.numbers.get(name, default) for t in self.trees], dtype=torch.float32)

    def ranks(self) -> Tensor:
        """[B] rank of each completion in its tree."""
        return torch.tensor([r for t in self.trees for r in t.ranks], dtype=torch.long)


def microbatch(trees: Sequence[Tree]) -> MicroBatch:
    """All of them in one row."""
    return MicroBatch(tuple(trees), pack_trees(trees))


def make_microbatches(trees: Sequence[Tree], *, max_tokens: int) -> list[MicroBatch]:
    """Plan and lay out one global batch."""
    plan = plan_microbatches([t.num_tokens for t in trees], max_tokens=max_tokens)
    return [MicroBatch(tuple(trees[i] for i in row), pack_trees([trees[i] for i in row])) for row in plan]


@dataclass(slots=True, eq=False)
class EpochBatches(Sequence[list[Tree]]):
    """Shuffled batches of `batch_size` trees, a new order each epoch; the last batch of an epoch may be smaller.

    A pure function of its fields, so that step k after a resume is the step k that would have been, and is found without the steps
    before it. Trees are taken only when their batch is asked for, so they may lie on disk.

    Example:
        source = EpochBatches(trees, batch_size=16, num_epochs=3, seed=0)
        source[1000]        # the trees of step 1000
    """

    trees: Sequence[Tree]
    batch_size: int
    num_epochs: int
    seed: int
    _epoch: int = field(init=False, default=-1)
    _order: Ints = field(init=False, default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return num_steps(len(self.trees), batch_size=self.batch_size, num_epochs=self.num_epochs)

    @overload
    def __getitem__(self, step: int) -> list[Tree]: ...

    @overload
    def __getitem__(self, step: slice) -> list[list[Tree]]: ...

    def __getitem__(self, step: int | slice) -> list[Tree] | list[list[Tree]]:
        if isinstance(step, slice):
            return [self[i] for i in range(*step.indices(len(self)))]
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        epoch, place = divmod(step, num_steps(len(self.trees), batch_size=self.batch_size, num_epochs=1))
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.trees))
            self._epoch = epoch
        start = place * self.batch_size
        return [self.trees[i] for i in self._order[start : start + self.batch_size].tolist()]


def num_steps(num_trees: int, *, batch_size: int, num_epochs: int) -> int:
    """How many batches `EpochBatches` holds."""
    return num_epochs * -(-num_trees // batch_size)
