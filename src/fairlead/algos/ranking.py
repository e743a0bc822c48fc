"""Reward modelling from rankings of k completions: Plackett-Luce, or all pairs of a ranking.

Both are sums over choices: a winner and the set that it was chosen from.

    choice  = log sum_{j in set} exp(score_j) - score_winner
    plackett_luce: the best from all, the second from what is left, ...       all_pairs: the better of every two, mean over pairs

Legend:
    B  sequences
    P  groups (rankings of two or more)
    E  choices
    M  members of the sets of all choices

Example:
    config = RankingConfig(model="plackett_luce", top=3)
    (RANKING.loss(batch, config).total / RANKING.count(batch, config)).backward()
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fairlead.algos.masks import sum_and_count
from fairlead.algos.pairs import pair_weights
from fairlead.algos.spec import Algorithm, GroupBatch, Loss
from fairlead.core.errors import ConfigError, explain

MAX_TIED = 10
"""Completions of equal rank inside one ranking: all their subsets are visited, t * 2^(t-1) choices."""

Model = Literal["plackett_luce", "all_pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingConfig:
    """Settings of the two ranking losses."""

    model: Model = "plackett_luce"
    """plackett_luce: likelihood of the whole order. all_pairs: mean Bradley-Terry loss of all pairs of a ranking (InstructGPT)."""
    top: int | None = None
    """Places that are read from the top; what stands below is known to be worse and is not ordered. None reads all."""
    center_coef: float = 0.01
    """Pull of the group's mean score towards 0: loss per (score unit)^2 of twice the mean. 0 turns it off."""

    def __post_init__(self) -> None:
        if self.top is not None and self.top < 1:
            raise ConfigError(
                explain("top", self.top, "reads no place", expected=">= 1", remedy="Use null to read whole rankings")
            )
        if self.center_coef < 0:
            raise ConfigError(
                explain("center_coef", self.center_coef, "is negative", expected=">= 0", remedy="Use 0 to turn it off")
            )


class Choice(NamedTuple):
    """One stage of a ranking; places count the completions of the group from 0."""

    winner: int
    members: tuple[int, ...]
    """The set it was chosen from, itself included."""
    weight: float


@functools.lru_cache(maxsize=4096)
def choices(ranks: tuple[int, ...], model: Model, top: int | None) -> tuple[Choice, ...]:
    """The choices that a ranking consists of; equal ranks count as every order of them, each equally likely.

    Args:
        ranks: one a completion, 0 the best.
    Raises:
        ValueError: more than MAX_TIED completions of one rank inside the places that are read.
    """
    limit = len(ranks) if top is None else top
    return tuple(_stages(ranks, limit) if model == "plackett_luce" else _pairs(ranks, limit))


def _stages(ranks: Sequence[int], top: int) -> Iterator[Choice]:
    """A block of t equal ranks: at each of its stages any of its subsets is left, and any member of that may be next."""
    place = 0
    for rank in sorted(set(ranks)):
        block = [i for i, r in enumerate(ranks) if r == rank]
        rest = tuple(i for i, r in enumerate(ranks) if r > rank)
        if place < top and len(block) > MAX_TIED:
            raise ValueError(f"{len(block)} completions share rank {rank}; expected at most {MAX_TIED}")
        for size in range(len(block), 0, -1):
            if place >= top:
                return
            place += 1
            weight = 1 / (math.comb(len(block), size) * size)
            if size + len(rest) > 1:  # what is left alone is chosen with probability 1
                for left in itertools.combinations(block, size):
                    yield from (Choice(winner, (*left, *rest), weight) for winner in left)


def _pairs(ranks: Sequence[int], top: int) -> Iterator[Choice]:
    """Every two completions of which one stands in the top places; a tie is half a win each way."""
    places = [sum(other < rank for other in ranks) for rank in ranks]
    found = [(i, j) for i, j in itertools.combinations(range(len(ranks)), 2) if min(places[i], places[j]) < top]
    for i, j in found:
        if ranks[i] == ranks[j]:
            yield from (Choice(winner, (i, j), 0.5 / len(found)) for winner in (i, j))
        else:
            yield Choice(i if ranks[i] < ranks[j] else j, (i, j), 1 / len(found))


def count(batch: GroupBatch, config: RankingConfig) -> Float[Tensor, ""]:
    """Sum of the weights of groups with something to compare."""
    like = batch.weights if batch.weights is not None else torch.ones((), device=batch.group_index.device)
    return _weights(batch, like).sum()


def loss(batch: GroupBatch, config: RankingConfig) -> Loss:
    """Negative log-likelihood of the rankings, and a penalty that keeps scores around 0.

    loss = sum_g w_g * (p NLL(ranking) + (1 - p) NLL(the ranking upside down) + center_coef * (2 mean_g)^2)

    Returns:
        Sum over groups, nats; divide by `count`. Computed in float32 or better.
    Source: Plackett 1975, Luce 1959; as a reward model: Zhu et al. 2023, arXiv:2301.11270, section 4; `all_pairs`: Ouyang et al. 2022,
        arXiv:2203.02155, eq. 1.
    Differs: ties are the mean over all orders that they allow, where Plackett-Luce has none. Margins are not read.
    Equals: `reward` with ties=soft and without margins for k = 2, soft labels and centring included (tested).
    """
    assert batch.scores is not None, "the ranking loss reads scores"
    scores = batch.scores.to(torch.promote_types(batch.scores.dtype, torch.float32))
    weights = _weights(batch, scores)
    keep = weights > 0
    scores = torch.where(keep[batch.group_index], scores, torch.zeros_like(scores))
    groups = _read_groups(batch)
    live = [g for g, is_kept in enumerate(keep.tolist()) if is_kept]
    nll = _likelihoods(scores, batch, groups, live, config)
    sizes = torch.bincount(batch.group_index, minlength=batch.num_groups).clamp_min(1)
    means = torch.zeros_like(weights).index_add(0, batch.group_index, scores) / sizes
    total = (weights * (nll + config.center_coef * (2 * means) ** 2)).sum()
    keep_score = keep[batch.group_index]
    metrics = {
        "reward/ranking_loss": sum_and_count(nll, keep),
        "reward/accuracy": _pair_accuracy(scores, groups, live),
        "reward/score_mean": sum_and_count(scores, keep_score),
        "reward/score_squared": sum_and_count(scores * scores, keep_score),
    }
    return Loss(total=total, metrics=metrics)


def _weights(batch: GroupBatch, like: Tensor) -> Float[Tensor, "P"]:
    """Weight of every group; 0 for a group of fewer than two, which compares nothing."""
    sizes = torch.bincount(batch.group_index, minlength=batch.num_groups)
    weights = pair_weights(batch, like)
    return torch.where(sizes >= 2, weights, torch.zeros_like(weights))


class _Group(NamedTuple):
    rows: list[int]
    ranks: tuple[int, ...]
    p: float
    """Probability that the order is right and not the reverse."""


def _read_groups(batch: GroupBatch) -> list[_Group]:
    """Rows and ranks of every group; a tie (`is_tie`) makes all ranks equal."""
    rows: list[list[int]] = [[] for _ in range(batch.num_groups)]
    for row, group in enumerate(batch.group_index.tolist()):
        rows[group].append(row)
    ranks = batch.ranks.tolist()
    ties = [False] * batch.num_groups if batch.is_tie is None else batch.is_tie.tolist()
    labels = [1.0] * batch.num_groups if batch.p_chosen is None else batch.p_chosen.tolist()
    return [
        _Group(members, tuple(0 if tie else ranks[row] for row in members), p)
        for members, tie, p in zip(rows, ties, labels, strict=True)
    ]


def _likelihoods(
    scores: Float[Tensor, "B"], batch: GroupBatch, groups: Sequence[_Group], live: Sequence[int], config: RankingConfig
) -> Float[Tensor, "P"]:
    """Negative log-likelihood of every group, nats; 0 for those that are left out."""
    owners: list[int] = []
    winners: list[int] = []
    members: list[int] = []
    sizes: list[int] = []
    shares: list[float] = []
    for g in live:
        rows, ranks, p = groups[g]
        reverse = tuple(-rank for rank in ranks)
        for share, order in ((p, ranks), (1 - p, reverse)):
            for choice in choices(order, config.model, config.top) if share else ():
                owners.append(g)
                winners.append(rows[choice.winner])
                members += [rows[place] for place in choice.members]
                sizes.append(len(choice.members))
                shares.append(share * choice.weight)

    def on_device(numbers: list[int]) -> Int[Tensor, "X"]:
        return torch.tensor(numbers, dtype=torch.long, device=scores.device)

    stage = torch.repeat_interleave(on_device(list(range(len(sizes)))), on_device(sizes))
    nll = _log_sum_exp(scores[on_device(members)], stage, len(sizes)) - scores[on_device(winners)]
    weighted = nll * torch.tensor(shares, dtype=scores.dtype, device=scores.device)
    return scores.new_zeros(batch.num_groups).index_add(0, on_device(owners), weighted)


def _log_sum_exp(x: Float[Tensor, "M"], owner: Int[Tensor, "M"], num_owners: int) -> Float[Tensor, "E"]:
    """log sum exp within every owner, shifted by its largest."""
    largest = x.new_full((num_owners,), -torch.inf).scatter_reduce(0, owner, x.detach(), "amax")
    return x.new_zeros(num_owners).index_add(0, owner, (x - largest[owner]).exp()).log() + largest


def _pair_accuracy(
    scores: Float[Tensor, "B"], groups: Sequence[_Group], live: Sequence[int]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Right pairs and decided pairs over all rankings; equal scores are half right."""
    better: list[int] = []
    worse: list[int] = []
    for g in live:
        rows, ranks, p = groups[g]
        for i, j in itertools.permutations(range(len(rows)), 2):
            if ranks[i] < ranks[j] and p != 0.5:
                better.append(rows[i] if p > 0.5 else rows[j])
                worse.append(rows[j] if p > 0.5 else rows[i])
    differences = scores.detach()[better] - scores.detach()[worse]
    return sum_and_count(0.5 * (1 + torch.sign(differences)))


def with_score_std(means: Mapping[str, float]) -> dict[str, float]:
    """Log the standard deviation of the scores in place of their mean square."""
    logged = dict(means)
    mean_square = logged.pop("reward/score_squared")
    logged["reward/score_std"] = math.sqrt(max(mean_square - means["reward/score_mean"] ** 2, 0.0))
    return logged


RANKING = Algorithm(
    name="ranking",
    paper="Zhu et al. 2023, arXiv:2301.11270; Ouyang et al. 2022, arXiv:2203.02155, eq. 1",
    batch="groups",
    config=RankingConfig,
    count=count,
    loss=loss,
    needs=frozenset({"scores"}),
    derived=with_score_std,
)
