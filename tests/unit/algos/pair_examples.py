"""Pairs for the tests of methods on likelihoods: built by hand, and taken out of random batches as padded rows."""

import math

import torch

from fairlead.algos.spec import GroupBatch


def pair(chosen, rejected, *, ref=0.0, **optional):
    """One pair from two lists of token log-probabilities; the reference is `ref` everywhere."""
    logprobs = torch.tensor([*chosen, *rejected], dtype=torch.float64)
    return GroupBatch(
        sequence_index=torch.tensor([0] * len(chosen) + [1] * len(rejected)),
        group_index=torch.tensor([0, 0]),
        ranks=torch.tensor([0, 1]),
        num_groups=1,
        logprobs=logprobs,
        ref_logprobs=torch.full_like(logprobs, ref),
        **optional,
    )


def mean_loss(algorithm, batch, config):
    """What the loop would descend."""
    return float(algorithm.loss(batch, config).total / algorithm.count(batch, config))


def metric_means(algorithm, batch, config):
    """What the loop would log."""
    return {name: float(total / count) for name, (total, count) in algorithm.loss(batch, config).metrics.items()}


def padded_pairs(batch, *names):
    """(label, weight, {side: (rows of the named tensors..., mask)}) of every pair; rows end in junk that the mask leaves out."""
    rows = {}
    for b in range(2 * batch.num_groups):
        mine = batch.sequence_index == b
        tensors = tuple([*getattr(batch, name)[mine].tolist(), math.nan, math.inf] for name in names)
        side = "chosen" if batch.ranks[b] == 0 else "rejected"
        rows.setdefault(int(batch.group_index[b]), {})[side] = (*tensors, [True] * int(mine.sum()) + [False, False])
    for number in range(batch.num_groups):
        p = 0.5 if batch.is_tie[number] else float(batch.p_chosen[number])
        yield p, float(batch.weights[number]), rows[number]


def turned(chosen, rejected):
    """3 of 4 votes at weight 4, and the four pairs that they stand for."""
    soft = pair(chosen, rejected, p_chosen=torch.tensor([0.75]), weights=torch.tensor([4.0]))
    return soft, [pair(chosen, rejected)] * 3 + [pair(rejected, chosen)]
