"""Binary classifier optimisation: the implicit reward as the logit of a classifier that tells good completions from bad ones.

    r     = beta * sum_t (logprobs - ref_logprobs) of a completion
    delta = (moving mean of r over good + moving mean of r over bad) / 2, a constant of the step
    loss  = - sum over good log sigma(r - delta)  -  sum over bad log sigma(delta - r)

Legend:
    N  completion tokens, flat
    B  sequences

Example:
    known = replace(batch, statistics=BCO.statistics(batch, config))
    (BCO.loss(known, config).total / BCO.count(known, config)).backward()
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from fairlead.algos.masks import sum_and_count
from fairlead.algos.spec import Algorithm, Loss, UnpairedBatch
from fairlead.algos.unpaired import read_ratios, require_positive, side_metrics, unpaired_count
from fairlead.core.errors import ConfigError, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class BCOConfig:
    """Settings of BCO."""

    beta: float = 0.1
    """Reward per nat of log-ratio; larger stays closer to the reference."""
    delta_decay: float = 0.9
    """Share of the old mean that a step keeps, in [0, 1); 0 takes the means of the step's own batch."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta, remedy="Use 0.01 to 0.5")
        if not 0 <= self.delta_decay < 1:
            raise ConfigError(
                explain("delta_decay", self.delta_decay, "is out of range", expected="[0, 1)", remedy="Use 0.9")
            )


def count(batch: UnpairedBatch, config: BCOConfig) -> Float[Tensor, ""]:
    """Sum of the sequence weights."""
    return unpaired_count(batch)


def statistics(batch: UnpairedBatch, config: BCOConfig) -> dict[str, Tensor]:
    """Moving means of the reward over good and over bad completions, and delta, the middle between them.

    A side's mean starts as that of the first batch that has this side, and stays as it is through batches without it. Until both
    sides were seen delta is the mean of the one that was.
    Source: Jung et al. 2024, arXiv:2404.04656, reward shift: delta = (E[r | good] + E[r | bad]) / 2.
    Differs: TRL takes the mean over all rewards of all steps so far, in which the commoner side weighs more and nothing is forgotten.
    """
    ratios = read_ratios(batch)
    found: dict[str, Tensor] = {}
    for name, side in (("good_mean", ratios.is_good), ("bad_mean", ~ratios.is_good)):
        now, old = ratios.mean(side), batch.statistics.get(name)
        if now is not None:
            now = config.beta * now
            found[name] = now if old is None else config.delta_decay * old + (1 - config.delta_decay) * now
        elif old is not None:
            found[name] = old
    means = list(found.values()) or [torch.zeros_like(ratios.sequences.detach().sum())]
    return found | {"delta": torch.stack(means).mean()}


def loss(batch: UnpairedBatch, config: BCOConfig) -> Loss:
    """Sum of the classifier's cross-entropy over completions.

    Returns:
        Weighted sum over sequences, nats; divide by `count`.
    Source: arXiv:2404.04656, the binary cross-entropy with reward shift.
    Differs: without the importance weights of underlying-distribution matching.
    Equals: B * log 2 when the policy is the reference (tested).
    """
    ratios, delta = read_ratios(batch), batch.statistics["delta"]
    logits = config.beta * ratios.sequences - delta
    losses = softplus(torch.where(ratios.is_good, -logits, logits))
    is_right = (ratios.is_good == (logits > 0)).to(losses.dtype)
    metrics = {
        "bco/loss": sum_and_count(losses, ratios.keep),
        "bco/delta": sum_and_count(delta.expand(losses.shape), ratios.keep),
        "bco/accuracy": sum_and_count(torch.where(logits == 0, torch.full_like(losses, 0.5), is_right), ratios.keep),
        **side_metrics(batch, ratios, beta=config.beta),
    }
    return Loss(total=(ratios.weights * losses).sum(), metrics=metrics)


BCO = Algorithm(
    name="bco",
    paper="Jung et al. 2024, arXiv:2404.04656",
    batch="unpaired",
    config=BCOConfig,
    count=count,
    loss=loss,
    needs=frozenset({"ref_logprobs"}),
    statistics=statistics,
)
