"""What a step does when memory runs out: the token budget is halved and the step made again from the start.

Nothing of the failed attempt stays: its gradients are dropped, the noise and the statistics of a step are functions of the step, so the
result is that of a run which had the smaller budget at this step.

The models that are only read (a reference, a reward model) share the budget of what is trained beside them: `read_within`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from fairlead.models.out_of_memory import is_out_of_memory
from fairlead.text.packing import Tree, plan_microbatches

_T = TypeVar("_T")


def tree_size(tree: Tree) -> int:
    """Tokens of the row that a tree needs by itself, or with its mismatched replies where those are more."""
    return max(tree.num_tokens, len(tree.prompt_ids) + sum(len(b.token_ids) for b in tree.mismatched))


def smaller_budget(trees: Sequence[Tree], *, max_tokens: int) -> int | None:
    """Half of the largest row that was made, at least the largest tree; None when every tree had a row of its own already."""
    sizes = [tree_size(t) for t in trees]
    rows = [sum(sizes[i] for i in row) for row in plan_microbatches(sizes, max_tokens=max_tokens)]
    smaller = max(max(sizes), max(rows) // 2)
    return smaller if smaller < max(rows) else None


class Budget(Protocol):
    """Tokens of one forward, which may become fewer. A `Learner` is one."""

    max_tokens: int

    def lower_budget(self, max_tokens: int) -> None:
        """Memory ran out: from now on `max_tokens`; told and counted."""
        ...


@dataclass(slots=True)
class PlainBudget:
    """A budget of its own, for what is read beside no training. Tells nobody."""

    max_tokens: int

    def lower_budget(self, max_tokens: int) -> None:
        """Take it."""
        self.max_tokens = max_tokens


def read_within(budget: Budget, trees: Sequence[Tree], read: Callable[[int], _T]) -> _T:
    """`read(max_tokens)`, made again from the start with a smaller budget as often as memory runs out.

    Args:
        trees: what it reads.
        read: forwards without gradient; a pure function of its models and trees.
    Raises:
        Exception: what `read` raised when every tree had a forward of its own already.
    """
    while True:
        try:
            return read(budget.max_tokens)
        except Exception as error:
            smaller = smaller_budget(trees, max_tokens=budget.max_tokens) if is_out_of_memory(error) else None
            if smaller is None:
                raise
        budget.lower_budget(smaller)
