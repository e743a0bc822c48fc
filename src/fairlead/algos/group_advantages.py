"""Advantages without a value model: what the other completions of a prompt, a greedy one, or the whole batch got is the baseline.

    token rewards --sum--> score of each completion --estimator--> one advantage a completion --spread--> its tokens
    token rewards --reward to go--> one a token --whiten--> (REINFORCE++)

A completion without a score (NaN: not applicable, or its scorer failed) has no part in any baseline, gets 0 and is marked, so that the caller
can give it weight 0. A group with one scored completion, or with equal scores, has nothing to compare: advantage 0.
Nothing here has a gradient. A group must be whole: it may not be split over ranks or filtered before.

Legend:
    N  tokens of all completions, flat, sorted by sequence
    B  sequences (completions)
    P  groups (prompts)

Example:
    found = rollout_advantages("group_normalised", rewards, sequence_index=index, group_index=torch.tensor([0, 0, 1, 1]))
    found.advantages, found.is_scored
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fairlead.algos.advantages import gae, mean_and_std, whiten, whitening_statistics
from fairlead.algos.spec import sum_by_sequence

AdvantageName = Literal[
    "group_normalised", "group_centered", "leave_one_out", "greedy_baseline", "whitened_returns", "whitened_group_centered"
]  # fmt: skip

STD_EPSILON = 1e-4
"""Added to a group's standard deviation (TRL's value; verl 1e-6, OpenRLHF 1e-9): two scores that differ by rounding are no lesson."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Advantages:
    """Advantages of completions or of their tokens, and which completions had a score."""

    advantages: Float[Tensor, "M"]
    """[B] or [N]; 0 where there is nothing to compare."""
    is_scored: Bool[Tensor, "B"]
    """False: NaN score; its weight in the loss should be 0."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Groups:
    """Statistics of the scored completions of every group."""

    scores: Float[Tensor, "B"]
    """0 where there is none."""
    is_scored: Bool[Tensor, "B"]
    counts: Float[Tensor, "P"]
    means: Float[Tensor, "P"]
    """0 for a group without a scored completion."""
    is_equal: Bool[Tensor, "P"]
    """All scores of the group are the same number; also true of groups with one or none."""
    index: Int[Tensor, "B"]


def group_normalised(
    scores: Float[Tensor, "B"], group_index: Int[Tensor, "B"], *, eps: float = STD_EPSILON
) -> Advantages:
    """GRPO: (score - mean of the group) / (standard deviation of the group + eps), sample deviation (divided by n - 1).

    Source: Shao et al. 2024, arXiv:2402.03300, section 4.1.2.
    """
    groups = _read(scores, group_index)
    centered = _centered(groups)
    squares = _per_group(centered**2, groups)
    std = (squares / (groups.counts - 1).clamp_min(1)).sqrt()
    return _told(centered / (std + eps)[group_index], groups)


def group_centered(scores: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> Advantages:
    """Dr. GRPO: score - mean of the group. Without the division a group of nearly equal scores is not blown up.

    Source: Liu et al. 2025, arXiv:2503.20783, section 3.2.
    """
    groups = _read(scores, group_index)
    return _told(_centered(groups), groups)


def leave_one_out(scores: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> Advantages:
    """RLOO: score - mean of the other scored completions of the group.

    Source: Kool et al. 2019; for language models Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
    Equals: n / (n - 1) times `group_centered` for n scored completions (tested); unbiased, since no completion is in its own baseline.
    """
    groups = _read(scores, group_index)
    counts = groups.counts[group_index]
    return _told(_centered(groups) * counts / (counts - 1).clamp_min(1), groups)


def greedy_baseline(
    scores: Float[Tensor, "B"], group_index: Int[Tensor, "B"], *, greedy_scores: Float[Tensor, "P"]
) -> Advantages:
    """ReMax: score - score of the greedy completion of the same prompt; works with one sample a prompt.

    Args:
        greedy_scores: [P]; NaN leaves the prompt's completions without an advantage, like a NaN score.
    Source: Li et al. 2024, arXiv:2310.10505, algorithm 1.
    """
    baselines = greedy_scores[group_index]
    groups = _read(torch.where(baselines.isnan(), torch.nan, scores), group_index)
    advantages = torch.where(groups.is_scored, groups.scores - baselines, torch.zeros_like(scores))
    return _told(advantages, groups)


def rollout_advantages(
    name: AdvantageName,
    rewards: Float[Tensor, "N"],
    *,
    sequence_index: Int[Tensor, "N"],
    group_index: Int[Tensor, "B"],
    gamma: float = 1.0,
    greedy_scores: Float[Tensor, "P"] | None = None,
) -> Advantages:
    """Advantage of every token by the named estimator.

    Args:
        rewards: [N] of `advantages.token_rewards`, reward units; a completion with a NaN among them has no score.
        group_index: [B] prompt of each completion, in [0, P).
        gamma: discount a token of the estimator that looks at single tokens (whitened_returns).
        greedy_scores: [P] for greedy_baseline: scores of greedy completions; any baseline that does not look at the sample is unbiased.
    Returns:
        Advantages [N], not whitened but by the estimators that say so.
    """
    scores = sum_by_sequence(rewards, sequence_index, group_index.numel())
    if name == "whitened_returns":
        return _whitened_returns(rewards, scores, sequence_index, group_index, gamma)
    if name == "greedy_baseline":
        assert greedy_scores is not None, "greedy_baseline reads the scores of greedy completions"
        found = greedy_baseline(scores, group_index, greedy_scores=greedy_scores)
    elif name == "group_normalised":
        found = group_normalised(scores, group_index)
    elif name == "leave_one_out":
        found = leave_one_out(scores, group_index)
    else:
        found = group_centered(scores, group_index)
    tokens = found.advantages[sequence_index]
    if name == "whitened_group_centered":
        tokens = _whitened(tokens, found.is_scored[sequence_index])
    return replace(found, advantages=tokens)


def informative_groups(scores: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> Bool[Tensor, "P"]:
    """DAPO's dynamic sampling: groups with two different scores; the others have no gradient, so others are sampled in their place.

    Source: Yu et al. 2025, arXiv:2503.14476, eq. 11 (there: some but not all answers right).
    """
    return ~_read(scores, group_index).is_equal


def _whitened_returns(
    rewards: Tensor, scores: Tensor, sequence_index: Tensor, group_index: Tensor, gamma: float
) -> Advantages:
    """REINFORCE++: the discounted sum of a token's own and later rewards, whitened over the tokens of the batch.

    Source: Hu et al. 2025, arXiv:2501.03262. Equals: `gae` with lam = 1 and no value model.
    """
    groups = _read(scores, group_index)
    keep = groups.is_scored[sequence_index]
    known = torch.where(keep, rewards, torch.zeros_like(rewards))
    returns, _ = gae(known, torch.zeros_like(known), gamma=gamma, lam=1.0, sequence_index=sequence_index)
    return _told(_whitened(returns, keep), groups)


def _whitened(x: Tensor, keep: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over what is kept, 0 elsewhere."""
    if not bool(keep.any()):
        return torch.zeros_like(x)
    mean, std = mean_and_std(whitening_statistics(x[keep]))
    return torch.where(keep, whiten(x, mean=mean, std=std), torch.zeros_like(x))


def _read(scores: Float[Tensor, "B"], group_index: Int[Tensor, "B"]) -> _Groups:
    is_scored = ~scores.isnan()
    num_groups = int(group_index.max()) + 1 if group_index.numel() else 0
    known = torch.where(is_scored, scores, torch.zeros_like(scores))
    counts = sum_by_sequence(is_scored.to(scores.dtype), group_index, num_groups)
    means = sum_by_sequence(known, group_index, num_groups) / counts.clamp_min(1)
    lows, highs = (
        torch.full((num_groups,), edge, dtype=scores.dtype, device=scores.device).scatter_reduce(
            0, group_index, torch.where(is_scored, scores, edge), reduce
        )
        for edge, reduce in ((torch.inf, "amin"), (-torch.inf, "amax"))
    )
    return _Groups(
        scores=known, is_scored=is_scored, counts=counts, means=means, is_equal=~(lows < highs), index=group_index
    )


def _centered(groups: _Groups) -> Tensor:
    """Scores minus the mean of their group; exactly 0 in groups of equal scores, where the mean is rounded."""
    learns = groups.is_scored & ~groups.is_equal[groups.index]
    return torch.where(learns, groups.scores - groups.means[groups.index], torch.zeros_like(groups.scores))


def _per_group(x: Tensor, groups: _Groups) -> Tensor:
    return sum_by_sequence(x, groups.index, groups.counts.numel())


def _told(advantages: Tensor, groups: _Groups) -> Advantages:
    return Advantages(advantages=advantages, is_scored=groups.is_scored)
