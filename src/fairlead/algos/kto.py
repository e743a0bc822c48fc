"""Kahneman-Tversky optimisation: completions that are each good or bad, valued against what the policy gives to any completion.

    r    = sum_t (logprobs - ref_logprobs) of a completion
    z    = max(0, mean of r over completions of OTHER prompts), a constant of the global batch: an estimate of KL(policy || reference)
    loss = sum over good  lambda_desirable   * (1 - sigma(beta (r - z)))
         + sum over bad   lambda_undesirable * (1 - sigma(beta (z - r)))

Legend:
    N  completion tokens, flat
    B  sequences

Example:
    known = replace(batch, statistics=KTO.statistics(mismatched, config))
    (KTO.loss(known, config).total / KTO.count(known, config)).backward()
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masks import sum_and_count
from fairlead.algos.spec import Algorithm, Loss, UnpairedBatch
from fairlead.algos.unpaired import read_ratios, require_positive, side_metrics, unpaired_count

WEIGHT_BAND = (1.0, 4 / 3)
"""Where lambda_desirable * n_good / (lambda_undesirable * n_bad) should lie. Source: Ethayarajh et al. 2024, arXiv:2402.01306, section 4.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KTOConfig:
    """Settings of KTO."""

    beta: float = 0.1
    """Slope of the value function, per nat; larger is more averse to risk and stays closer to the reference."""
    lambda_desirable: float = 1.0
    """Weight of good completions."""
    lambda_undesirable: float = 1.0
    """Weight of bad completions."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta, remedy="Use 0.01 to 0.5")
        for name in ("lambda_desirable", "lambda_undesirable"):
            require_positive(name, getattr(self, name), remedy="Use 1 for the commoner side")


def count(batch: UnpairedBatch, config: KTOConfig) -> Float[Tensor, ""]:
    """Sum of the sequence weights."""
    return unpaired_count(batch)


def statistics(mismatched: UnpairedBatch, config: KTOConfig) -> dict[str, Tensor]:
    """z: the mean log-ratio of completions of other prompts, at least 0, nats.

    Args:
        mismatched: prompts of the batch with completions of others; their labels are not read.
    Source: arXiv:2402.01306, section 4.1 (z_0, estimated from mismatched completions, without gradient).
    """
    ratios = read_ratios(mismatched)
    mean = ratios.mean(ratios.keep)
    return {"z": torch.zeros_like(ratios.sequences.sum().detach()) if mean is None else mean.clamp_min(0.0)}


def loss(batch: UnpairedBatch, config: KTOConfig) -> Loss:
    """Sum of lambda minus value over completions.

    Returns:
        Weighted sum over sequences, in units of lambda; divide by `count`.
    Source: arXiv:2402.01306, eq. 8.
    Equals: half of lambda on every completion when the policy is the reference (tested).
    """
    ratios, z = read_ratios(batch), batch.statistics["z"]
    gain = config.beta * (ratios.sequences - z)
    losses = torch.where(
        ratios.is_good, config.lambda_desirable * torch.sigmoid(-gain), config.lambda_undesirable * torch.sigmoid(gain)
    )
    metrics = {
        "kto/loss": sum_and_count(losses, ratios.keep),
        "kto/z": sum_and_count(z.expand(losses.shape), ratios.keep),
        **side_metrics(batch, ratios, beta=config.beta),
    }
    return Loss(total=(ratios.weights * losses).sum(), metrics=metrics)


KTO = Algorithm(
    name="kto",
    paper="Ethayarajh et al. 2024, arXiv:2402.01306",
    batch="unpaired",
    config=KTOConfig,
    count=count,
    loss=loss,
    needs=frozenset({"ref_logprobs", "mismatched"}),
    statistics=statistics,
)
