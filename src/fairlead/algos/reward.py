"""Reward modelling: scores such that the better completion of a pair gets the higher one.

Legend:
    B  sequences, two a pair
    P  pairs

Example:
    config = RewardConfig(center_coef=0.01)
    (REWARD.loss(batch, config).total / REWARD.count(batch, config)).backward()
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.masks import sum_and_count
from fairlead.algos.pairs import pair_accuracy, pair_count, pair_labels, pair_weights
from fairlead.algos.ranking import with_score_std
from fairlead.algos.spec import Algorithm, GroupBatch, Loss, pair_rows
from fairlead.core.errors import ConfigError, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """Settings of the Bradley-Terry reward model and its two extensions with ties."""

    center_coef: float = 0.01
    """Pull of the pair's mean score towards 0: loss per (score unit)^2 of (chosen + rejected). 0 turns it off."""
    ties: Literal["soft", "davidson", "rao_kupper"] = "soft"
    """How a tie is modelled: as a win of probability one half, or as an outcome of its own."""
    tie_rate: float = 0.2
    """davidson and rao_kupper: probability of a tie between equally good completions, in (0, 1). Read it off the votes."""

    def __post_init__(self) -> None:
        if not 0.0 < self.tie_rate < 1.0:
            raise ConfigError(
                explain(
                    "tie_rate",
                    self.tie_rate,
                    "is out of range",
                    expected="(0, 1)",
                    remedy="Use ties=soft for no tie model",
                )
            )
        if self.center_coef < 0:
            raise ConfigError(
                explain("center_coef", self.center_coef, "is negative", expected=">= 0", remedy="Use 0 to turn it off")
            )


def count(batch: GroupBatch, config: RewardConfig) -> Float[Tensor, ""]:
    """Sum of the pair weights."""
    return pair_count(batch)


def loss(batch: GroupBatch, config: RewardConfig) -> Loss:
    """Negative log-likelihood of the votes, and a penalty that keeps scores around 0.

    loss = sum_p w_p * (-p log P(c > r | d - m) - (1 - p) log P(c > r | -d - m) + center_coef * (r_c + r_r)^2)

    d = r_c - r_r; p soft label; m margin, asked of whichever side wins. A tie is p = 1/2, or its own outcome (see `ties`).

    Returns:
        Sum over pairs, nats; divide by `count`. Computed in float32 or better.
    Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 1; margin: Touvron et al. 2023, arXiv:2307.09288, eq. 2;
        centring: Eisenstein et al. 2023, arXiv:2312.09244, eq. 2.
    Differs: the margin holds for both sides of a soft label, so swapping a pair and its label changes nothing.
    """
    assert batch.scores is not None, "the reward model reads scores"
    scores = batch.scores.to(torch.promote_types(batch.scores.dtype, torch.float32))
    labels, weights = pair_labels(batch, scores), pair_weights(batch, scores)
    keep = weights > 0
    scores = torch.where(keep[batch.group_index], scores, torch.zeros_like(scores))
    chosen, rejected = (scores[rows] for rows in pair_rows(batch))
    asked = 0.0 if batch.margins is None else batch.margins.to(scores.dtype)
    difference = chosen - rejected
    nll = -labels * win_logprob(difference - asked, config) - (1 - labels) * win_logprob(-difference - asked, config)
    if batch.is_tie is not None and config.ties != "soft":
        nll = torch.where(batch.is_tie, -tie_logprob(difference, config), nll)
    total = (weights * (nll + config.center_coef * (chosen + rejected) ** 2)).sum()
    both, keep_both = torch.cat([chosen, rejected]), torch.cat([keep, keep])
    metrics = {
        "reward/loss": sum_and_count(nll, keep),
        "reward/accuracy": pair_accuracy(difference, labels, keep),
        "reward/margin": sum_and_count(difference, keep),
        "reward/chosen_score": sum_and_count(chosen, keep),
        "reward/rejected_score": sum_and_count(rejected, keep),
        "reward/score_mean": sum_and_count(both, keep_both),
        "reward/score_squared": sum_and_count(both * both, keep_both),
    }
    return Loss(total=total, metrics=metrics)


def win_logprob(difference: Float[Tensor, "P"], config: RewardConfig) -> Float[Tensor, "P"]:
    """Log-probability that the side which leads by `difference` wins, nats.

    Source: Bradley & Terry 1952; ties: Davidson 1970 and Rao & Kupper 1967, with
        the tie parameter written as the tie rate at equal strength.
    """
    if config.ties == "davidson":
        tie = _davidson_log_strength(config) - difference / 2
        return -torch.logsumexp(torch.stack([torch.zeros_like(difference), -difference, tie]), dim=0)
    if config.ties == "rao_kupper":
        return logsigmoid(difference - _rao_kupper_threshold(config))
    return logsigmoid(difference)


def tie_logprob(difference: Float[Tensor, "P"], config: RewardConfig) -> Float[Tensor, "P"]:
    """Log-probability of a tie under `davidson` or `rao_kupper`, nats; largest at a difference of 0."""
    if config.ties == "davidson":
        return _davidson_log_strength(config) - difference / 2 + win_logprob(difference, config)
    threshold = _rao_kupper_threshold(config)
    log_odds = math.log(math.expm1(2 * threshold))
    return log_odds + logsigmoid(difference - threshold) + logsigmoid(-difference - threshold)


def _davidson_log_strength(config: RewardConfig) -> float:
    """log nu, where P(tie | equal) = nu / (2 + nu)."""
    return math.log(2 * config.tie_rate / (1 - config.tie_rate))


def _rao_kupper_threshold(config: RewardConfig) -> float:
    """log theta, where P(tie | equal) = tanh(log(theta) / 2)."""
    return 2 * math.atanh(config.tie_rate)


REWARD = Algorithm(
    name="reward",
    paper="Ouyang et al. 2022, arXiv:2203.02155, section 3.5 (step 2)",
    batch="groups",
    config=RewardConfig,
    count=count,
    loss=loss,
    needs=frozenset({"scores"}),
    derived=with_score_std,
)
