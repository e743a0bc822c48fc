"""Contrastive preference optimisation: DPO with a uniform reference, and imitation of the better side to stay sane.

    l(a, b) = -log sigma(beta (a - b)), a and b the summed log-probability of the chosen and the rejected side
    loss    = sum_p w_p * (p * l(a, b) + (1 - p) * l(b, a) + nll_coef * NLL of the better side)

Legend:
    N  completion tokens, flat
    P  pairs

Example:
    (CPO.loss(batch, CPOConfig()).total / CPO.count(batch, CPOConfig())).backward()
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.dpo_links import check_nll, check_range
from fairlead.algos.masks import sum_and_count
from fairlead.algos.pairs import pair_count, pair_metrics, read_pairs
from fairlead.algos.spec import Algorithm, GroupBatch, Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class CPOConfig:
    """Settings of CPO."""

    beta: float = 0.1
    """Reward units per nat; 0.1 as in the paper."""
    nll_coef: float = 1.0
    """Weight of the negative log-likelihood of the better side; it stands in for the reference, so 0 is for ablations."""
    nll_average: Literal["token", "sum"] = "token"
    """token: the likelihood is averaged over the tokens of each completion, near to the authors' code; sum: summed, as the paper writes."""

    def __post_init__(self) -> None:
        check_range("beta", self.beta, self.beta > 0, expected="> 0", remedy="Use 0.1")
        check_nll(self.nll_coef)


def count(batch: GroupBatch, config: CPOConfig) -> Float[Tensor, ""]:
    """Sum of the pair weights."""
    return pair_count(batch)


def loss(batch: GroupBatch, config: CPOConfig) -> Loss:
    """Sum over pairs of the sigmoid loss on log-probabilities and of the likelihood of the better side.

    Returns:
        Weighted sum over pairs, nats; divide by `count`.
    Source: Xu et al. 2024, arXiv:2401.08417, eq. 3 with its likelihood term.
    Differs: the authors' code and TRL average the likelihood over all tokens of a micro-batch (TRL: prompts too); here each
    completion counts alike, so that accumulation changes nothing.
    Equals: DPO with a reference of log-probability 0 when nll_coef = 0 (tested).
    """
    assert batch.logprobs is not None, "CPO reads logprobs"
    pairs = read_pairs(batch)
    chosen, rejected = pairs.sums(batch.logprobs)
    rewards = config.beta * chosen, config.beta * rejected
    losses = pairs.expected(lambda a, b: -logsigmoid(a - b), rewards)
    nll = pairs.imitation(batch.logprobs, average=config.nll_average)
    metrics = pair_metrics(pairs, losses=losses, logprobs=batch.logprobs, rewards=rewards)
    metrics["dpo/nll"] = sum_and_count(nll, pairs.keep)
    return Loss(total=(pairs.weights * (losses + config.nll_coef * nll)).sum(), metrics=metrics)


CPO: Algorithm = Algorithm(
    name="cpo",
    paper="Xu et al. 2024, arXiv:2401.08417",
    batch="groups",
    config=CPOConfig,
    count=count,
    loss=loss,
)
