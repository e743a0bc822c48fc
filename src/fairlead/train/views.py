"""One tree compared several times: a view for every output of a reward model with several.

An ensemble of heads sees every tree once a head, with weights of its own (`weight/0`, `weight/1`, ... of the tree). Criteria and
attributes see the completions that were rated (`targets` of the tree); what is missing is not in the view, so it has no part in the
loss, the count or the gradient. Losses know nothing of it: a view is one more group.

Legend: B completions, K outputs, P trees, R rows of all views (B when there is one output).
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from fairlead.algos.spec import GroupBatch
from fairlead.text.packing import Tree
from fairlead.train.batches import MicroBatch

NUM_HEADS = "num_heads"
"""Number of a tree: heads of the ensemble that is trained on it."""


def head_weight(head: int) -> str:
    """Name of the number that holds a tree's weight for one head."""
    return f"weight/{head}"


def expand_views(batch: MicroBatch, groups: GroupBatch) -> GroupBatch:
    """The groups of all outputs, output by output; the same object when there is one."""
    trees = batch.trees
    if trees[0].targets:
        return _rated(trees, groups)
    num_heads = int(trees[0].numbers.get(NUM_HEADS, 1))
    if num_heads == 1:
        return groups
    assert groups.weights is not None, "trees carry weights"
    weights = [batch.per_tree(head_weight(head), 1.0) for head in range(num_heads)]
    return replace(
        groups,
        group_index=torch.cat([groups.group_index + head * groups.num_groups for head in range(num_heads)]),
        ranks=groups.ranks.repeat(num_heads),
        num_groups=groups.num_groups * num_heads,
        p_chosen=_repeated(groups.p_chosen, num_heads),
        margins=_repeated(groups.margins, num_heads),
        is_tie=_repeated(groups.is_tie, num_heads),
        weights=groups.weights.repeat(num_heads) * torch.cat(weights),
    )


def pick_outputs(batch: MicroBatch, outputs: Tensor) -> Tensor:
    """[R] scores of the views from [B, K] outputs, in the order of `expand_views`."""
    if not batch.trees[0].targets:
        return outputs.T.reshape(-1)
    cells = _cells(batch.trees, num_outputs=outputs.shape[1])
    rows = torch.tensor([row for row, *_ in cells], device=outputs.device)
    columns = torch.tensor([column for _, column, *_ in cells], device=outputs.device)
    return outputs[rows, columns]


def _cells(trees: tuple[Tree, ...], *, num_outputs: int) -> list[tuple[int, int, int, int, float]]:
    """(completion, output, group, rank, rating) of everything that was rated."""
    found: list[tuple[int, int, int, int, float]] = []
    for k in range(num_outputs):
        row = 0
        for t, tree in enumerate(trees):
            values = [targets[k] for targets in tree.targets]
            for value in values:
                if not math.isnan(value):
                    found.append((row, k, k * len(trees) + t, sum(other > value for other in values), value))
                row += 1
    return found


def _rated(trees: tuple[Tree, ...], groups: GroupBatch) -> GroupBatch:
    assert groups.weights is not None, "trees carry weights"
    num_outputs = len(trees[0].targets[0])
    cells = _cells(trees, num_outputs=num_outputs)
    return GroupBatch(
        sequence_index=groups.sequence_index,
        group_index=torch.tensor([group for _, _, group, _, _ in cells], dtype=torch.long),
        ranks=torch.tensor([rank for *_, rank, _ in cells], dtype=torch.long),
        num_groups=groups.num_groups * num_outputs,
        weights=groups.weights.repeat(num_outputs),
        targets=torch.tensor([value for *_, value in cells], dtype=torch.float32),
    )


def _repeated(x: Tensor | None, times: int) -> Tensor | None:
    return None if x is None else x.repeat(times)
