"""Simple preference optimisation: DPO without a reference, on mean log-probabilities and with a margin.

    l(a, b) = -log sigma(beta (a - b) - gamma), a and b the mean log-probability a token of the chosen and the rejected side
    loss    = sum_p w_p * (p * l(a, b) + (1 - p) * l(b, a) + nll_coef * NLL of the better side)

Nothing holds the policy near its start but the learning rate: keep it small, and watch what else changes.

Legend:
    N  completion tokens, flat
    P  pairs

Example:
    (SIMPO.loss(batch, SimPOConfig()).total / SIMPO.count(batch, SimPOConfig())).backward()
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
class SimPOConfig:
    """Settings of SimPO."""

    beta: float = 2.0
    """Reward units per nat a token; the paper uses 2 to 2.5, and 10 for one model. Not comparable with DPO's."""
    gamma: float = 1.0
    """Margin aimed at, reward units; the paper's best are 0.3 to 0.8 of beta."""
    nll_coef: float = 0.0
    """Weight of the negative log-likelihood of the better side, which is added (CPO-SimPO); 0 means off."""
    nll_average: Literal["token", "sum"] = "token"
    """token: the likelihood is averaged over the tokens of each completion; sum: summed."""

    def __post_init__(self) -> None:
        check_range("beta", self.beta, self.beta > 0, expected="> 0", remedy="Use 2 to 10")
        check_range("gamma", self.gamma, self.gamma >= 0, expected=">= 0", remedy="Use 0.3 to 0.8 of beta")
        check_nll(self.nll_coef)


def count(batch: GroupBatch, config: SimPOConfig) -> Float[Tensor, ""]:
    """Sum of the pair weights."""
    return pair_count(batch)


def loss(batch: GroupBatch, config: SimPOConfig) -> Loss:
    """Sum of -log sigma(beta (a - b) - gamma) over pairs, the margin asked for in whichever direction the label points.

    Returns:
        Weighted sum over pairs, nats; divide by `count`.
    Source: Meng et al. 2024, arXiv:2405.14734, eq. 6.
    Differs: a flipped label asks for the margin the other way round; the label smoothing of the authors' code and of TRL keeps
    gamma on the chosen side.
    """
    assert batch.logprobs is not None, "SimPO reads logprobs"
    pairs = read_pairs(batch)
    chosen, rejected = pairs.means(batch.logprobs)
    rewards = config.beta * chosen, config.beta * rejected
    losses = pairs.expected(lambda a, b: -logsigmoid(a - b - config.gamma), rewards)
    metrics = pair_metrics(pairs, losses=losses, logprobs=batch.logprobs, rewards=rewards)
    if config.nll_coef:
        nll = pairs.imitation(batch.logprobs, average=config.nll_average)
        metrics["dpo/nll"] = sum_and_count(nll, pairs.keep)
        losses = losses + config.nll_coef * nll
    return Loss(total=(pairs.weights * losses).sum(), metrics=metrics)


SIMPO: Algorithm = Algorithm(
    name="simpo",
    paper="Meng et al. 2024, arXiv:2405.14734",
    batch="groups",
    config=SimPOConfig,
    count=count,
    loss=loss,
)
