"""Direct preference optimisation: the policy as its own reward model. One shared form, one link function per variant.

    h = log-ratio of the chosen minus that of the rejected completion, log-ratio = sum_t (logprobs - ref_logprobs)
    loss = sum_p w_p * link(h_p, p_p)

A link is the expected loss under the soft label p = P(chosen is better): p * l(h) + (1 - p) * l(-h).

Legend:
    N  completion tokens, flat
    B  sequences, two a pair
    P  pairs

Example:
    config = DPOConfig(beta=0.1)
    (DPO.loss(batch, config).total / DPO.count(batch, config)).backward()
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.kl import kl_k1
from fairlead.algos.masks import sequence_lengths, sum_and_count
from fairlead.algos.pairs import pair_accuracy, pair_count, pair_labels, pair_weights
from fairlead.algos.spec import Algorithm, GroupBatch, Loss, pair_rows, sum_by_sequence
from fairlead.core.errors import ConfigError, explain


@dataclass(frozen=True, slots=True, kw_only=True)
class DPOConfig:
    """Settings of plain DPO."""

    beta: float = 0.1
    """KL coefficient of the problem that DPO solves, reward units per nat; larger stays closer to the reference."""

    def __post_init__(self) -> None:
        _check_beta(self.beta)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipConfig:
    """Settings of cDPO and robust DPO, which both know how often labels are wrong."""

    beta: float = 0.1
    """As in DPO, reward units per nat."""
    flip_rate: float = 0.1
    """Share of labels that are wrong, in [0, 0.5); from agreement A of two raters: (1 - sqrt(2 A - 1)) / 2."""

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        if not 0.0 <= self.flip_rate < 0.5:
            raise ConfigError(
                explain(
                    "flip_rate",
                    self.flip_rate,
                    "is out of range",
                    expected="[0, 0.5)",
                    remedy="Estimate it from the votes",
                )
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class IPOConfig:
    """Settings of IPO."""

    beta: float = 0.1
    """tau of the paper: the margin aimed at is 1 / (2 * beta), nats (per token with `ipo_average`)."""
    ipo_average: bool = True
    """True: log-ratios averaged over tokens, as TRL does after asking the authors; False: summed, as OpenRLHF does."""

    def __post_init__(self) -> None:
        _check_beta(self.beta)


def sigmoid_link(h: Float[Tensor, "P"], labels: Float[Tensor, "P"], config: DPOConfig) -> Float[Tensor, "P"]:
    """-p log sigma(beta h) - (1 - p) log sigma(-beta h). Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7."""
    return _cross_entropy(config.beta * h, labels)


def smoothed_link(h: Float[Tensor, "P"], labels: Float[Tensor, "P"], config: FlipConfig) -> Float[Tensor, "P"]:
    """The sigmoid link of p (1 - e) + (1 - p) e. Source: Mitchell 2023, "A note on DPO with noisy preferences", cDPO."""
    return _cross_entropy(config.beta * h, labels + config.flip_rate * (1 - 2 * labels))


def robust_link(h: Float[Tensor, "P"], labels: Float[Tensor, "P"], config: FlipConfig) -> Float[Tensor, "P"]:
    """The sigmoid link of (p - e) / (1 - 2e), whose mean over flips at rate e is the loss of the clean labels.

    Source: Chowdhury et al. 2024, arXiv:2403.00409. The label may leave [0, 1], so single losses may be negative.
    """
    return _cross_entropy(config.beta * h, (labels - config.flip_rate) / (1 - 2 * config.flip_rate))


def squared_link(h: Float[Tensor, "P"], labels: Float[Tensor, "P"], config: IPOConfig) -> Float[Tensor, "P"]:
    """p (h - 1/2b)^2 + (1 - p) (h + 1/2b)^2. Source: Azar et al. 2023, arXiv:2310.12036, eq. 17 (IPO)."""
    goal = 1 / (2 * config.beta)
    return labels * (h - goal) ** 2 + (1 - labels) * (h + goal) ** 2


def count(batch: GroupBatch, config: Any) -> Float[Tensor, ""]:
    """Sum of the pair weights."""
    return pair_count(batch)


def loss(batch: GroupBatch, config: Any, *, link: Callable[[Tensor, Tensor, Any], Tensor]) -> Loss:
    """Sum of the link over pairs.

    Args:
        link: (h [P], p [P], config) -> [P].
    Returns:
        Weighted sum over pairs, nats (nats^2 for IPO); divide by `count`.
    Equals: P * log 2 for the sigmoid link when the policy is the reference (tested).
    """
    assert batch.logprobs is not None and batch.ref_logprobs is not None, "DPO reads logprobs and ref_logprobs"
    labels, weights = pair_labels(batch, batch.logprobs), pair_weights(batch, batch.logprobs)
    keep_sequence = (weights > 0)[batch.group_index]
    keep = keep_sequence[batch.sequence_index]
    zeros = torch.zeros_like(batch.logprobs)
    token_ratios = torch.where(keep, kl_k1(batch.logprobs, batch.ref_logprobs), zeros)
    token_logprobs = torch.where(keep, batch.logprobs, zeros).detach()

    num_sequences = batch.group_index.numel()
    log_ratios = sum_by_sequence(token_ratios, batch.sequence_index, num_sequences)
    logprobs = sum_by_sequence(token_logprobs, batch.sequence_index, num_sequences)
    if isinstance(config, IPOConfig) and config.ipo_average:
        log_ratios = log_ratios / sequence_lengths(batch.sequence_index, num_sequences).clamp_min(1)
    chosen, rejected = pair_rows(batch)
    h = log_ratios[chosen] - log_ratios[rejected]
    losses, keep_pair = link(h, labels, config), weights > 0
    is_chosen_token = (batch.ranks == 0)[batch.sequence_index]
    metrics = {
        "dpo/loss": sum_and_count(losses, keep_pair),
        "dpo/chosen_logprobs": sum_and_count(logprobs[chosen], keep_pair),
        "dpo/rejected_logprobs": sum_and_count(logprobs[rejected], keep_pair),
        "dpo/chosen_reward": sum_and_count(config.beta * log_ratios[chosen], keep_pair),
        "dpo/rejected_reward": sum_and_count(config.beta * log_ratios[rejected], keep_pair),
        "dpo/margin": sum_and_count(config.beta * h, keep_pair),
        "dpo/accuracy": pair_accuracy(h, labels, keep_pair),
        "dpo/kl_k1": sum_and_count(token_ratios, keep & is_chosen_token),
    }
    return Loss(total=(weights * losses).sum(), metrics=metrics)


def _cross_entropy(logits: Float[Tensor, "P"], labels: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    return -labels * logsigmoid(logits) - (1 - labels) * logsigmoid(-logits)


def _check_beta(beta: float) -> None:
    if not beta > 0:
        raise ConfigError(explain("beta", beta, "gives no gradient", expected="> 0", remedy="Use 0.01 to 0.5"))


def _variant(name: str, paper: str, config: type[Any], link: Callable[[Any, Any, Any], Tensor]) -> Algorithm:
    return Algorithm(
        name=name,
        paper=paper,
        batch="groups",
        config=config,
        count=count,
        loss=partial(loss, link=link),
        needs=frozenset({"ref_logprobs"}),
    )


DPO = _variant("dpo", "Rafailov et al. 2023, arXiv:2305.18290", DPOConfig, sigmoid_link)
CDPO = _variant("cdpo", "Mitchell 2023, ericmitchell.ai/cdpo.pdf", FlipConfig, smoothed_link)
ROBUST = _variant("robust", "Chowdhury et al. 2024, arXiv:2403.00409", FlipConfig, robust_link)
IPO = _variant("ipo", "Azar et al. 2023, arXiv:2310.12036", IPOConfig, squared_link)
