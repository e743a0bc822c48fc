"""Odds-ratio preference optimisation: supervised fine-tuning on the better side, plus a penalty on the odds of the worse one.

    P = exp(mean_t logprobs), log odds = log P - log(1 - P)
    l(a, b) = -log sigma(log odds(a) - log odds(b))
    loss    = sum_p w_p * (NLL of the better side + beta * (p * l(a, b) + (1 - p) * l(b, a)))

One stage from the base model, with no reference: the likelihood term is the SFT.

Legend:
    N  completion tokens, flat
    P  pairs

Example:
    (ORPO.loss(batch, ORPOConfig()).total / ORPO.count(batch, ORPOConfig())).backward()
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.dpo_links import check_range
from fairlead.algos.masks import sum_and_count
from fairlead.algos.pairs import pair_count, pair_metrics, read_pairs
from fairlead.algos.spec import Algorithm, GroupBatch, Loss

_MAX_MEAN_LOGPROB = -1e-6
"""Odds are infinite at P = 1. Nearer than this a completion counts as certain and gets no more gradient from its odds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ORPOConfig:
    """Settings of ORPO."""

    beta: float = 0.1
    """lambda of the paper: weight of the odds-ratio loss against the likelihood; 0.1 to 0.25 there. No KL coefficient."""

    def __post_init__(self) -> None:
        check_range("beta", self.beta, self.beta > 0, expected="> 0", remedy="Use 0.1 to 0.25, or plain SFT")


def count(batch: GroupBatch, config: ORPOConfig) -> Float[Tensor, ""]:
    """Sum of the pair weights."""
    return pair_count(batch)


def log_odds(mean_logprobs: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """log P - log(1 - P), finite for all P in [0, 1]."""
    x = mean_logprobs.clamp_max(_MAX_MEAN_LOGPROB)
    return x - torch.log(-torch.expm1(x))


def loss(batch: GroupBatch, config: ORPOConfig) -> Loss:
    """Sum over pairs of the likelihood of the better side and beta times the odds-ratio loss.

    Returns:
        Weighted sum over pairs, nats; divide by `count`.
    Source: Hong et al. 2024, arXiv:2403.07691, eq. 2 and 4 to 7.
    Differs: TRL averages the likelihood over all tokens of a micro-batch, prompts included; here, as in the paper's eq. 2, over the
    tokens of each completion, and prompts are not trained.
    """
    assert batch.logprobs is not None, "ORPO reads logprobs"
    pairs = read_pairs(batch)
    chosen, rejected = pairs.means(batch.logprobs)
    odds = log_odds(chosen), log_odds(rejected)
    losses = pairs.expected(lambda a, b: -logsigmoid(a - b), odds)
    nll = pairs.imitation(batch.logprobs, average="token")
    metrics = pair_metrics(pairs, losses=losses, logprobs=batch.logprobs, rewards=odds)
    metrics["dpo/nll"] = sum_and_count(nll, pairs.keep)
    return Loss(total=(pairs.weights * (nll + config.beta * losses)).sum(), metrics=metrics)


ORPO: Algorithm = Algorithm(
    name="orpo",
    paper="Hong et al. 2024, arXiv:2403.07691",
    batch="groups",
    config=ORPOConfig,
    count=count,
    loss=loss,
)
