"""Direct preference optimisation: the policy as its own reward model. One shared form, one link function per variant.

    score = log-ratio of a completion = sum_t (logprobs - ref_logprobs), or what the options make of it
    loss  = sum_p w_p * v_p * (p * link(a, b) + (1 - p) * link(b, a)) + nll_coef * NLL of the better side

a and b are the scores of the chosen and the rejected side, p is the soft label P(chosen is better), v_p is WPO's weight (1 when off).
The links and their settings are in dpo_links.py. Options are orthogonal: each changes the scores, the weight, or adds a term.

Legend:
    N  completion tokens, flat
    B  sequences, two a pair
    P  pairs

Example:
    config = DPOConfig(beta=0.1)
    (DPO.loss(batch, config).total / DPO.count(batch, config)).backward()
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from fairlead.algos.dpo_links import (
    ApoConfig,
    DiscopopConfig,
    DPOConfig,
    ExoConfig,
    FlipConfig,
    IPOConfig,
    NcaConfig,
    PairOptions,
    SppoConfig,
    apo_down_link,
    apo_zero_link,
    discopop_link,
    exo_link,
    hinge_link,
    nca_link,
    robust_link,
    sigmoid_link,
    smoothed_link,
    sppo_link,
    squared_link,
)
from fairlead.algos.kl import MAX_EXPONENT, kl_k1
from fairlead.algos.masks import sum_and_count
from fairlead.algos.pairs import Pairs, Sides, pair_count, pair_metrics, read_pairs
from fairlead.algos.spec import Algorithm, GroupBatch, Loss

_SoftLink = Callable[[Pairs, Sides, Any], Tensor]


def count(batch: GroupBatch, config: Any) -> Float[Tensor, ""]:
    """Sum of the pair weights."""
    return pair_count(batch)


def loss(batch: GroupBatch, config: PairOptions, *, link: _SoftLink) -> Loss:
    """Sum of the link over pairs.

    Args:
        link: (pairs, scores of both sides, config) -> [P], the loss under the soft labels.
    Returns:
        Weighted sum over pairs, nats (nats^2 for squared links); divide by `count`.
    Equals: P * log 2 for the sigmoid link when the policy is the reference (tested).
    """
    assert batch.logprobs is not None and batch.ref_logprobs is not None, "DPO reads logprobs and ref_logprobs"
    pairs = read_pairs(batch)
    token_ratios = kl_k1(batch.logprobs, batch.ref_logprobs)
    sides = scores(token_ratios, pairs, config)
    losses = link(pairs, sides, config)
    rewards = config.beta * sides[0].detach(), config.beta * sides[1].detach()
    is_chosen_token = (batch.ranks == 0)[batch.sequence_index]
    metrics = {
        **pair_metrics(pairs, losses=losses, logprobs=batch.logprobs, rewards=rewards),
        "dpo/kl_k1": sum_and_count(pairs.silenced(token_ratios), pairs.keep_tokens & is_chosen_token),
    }
    if config.weighting != "off":
        weights = policy_weights(batch, pairs, config)
        metrics["dpo/policy_weight"] = sum_and_count(weights, pairs.keep)
        losses = weights * losses
    if config.nll_coef:
        nll = pairs.imitation(batch.logprobs, average=config.nll_average)
        metrics["dpo/nll"] = sum_and_count(nll, pairs.keep)
        losses = losses + config.nll_coef * nll
    return Loss(total=(pairs.weights * losses).sum(), metrics=metrics)


def scores(token_ratios: Float[Tensor, "N"], pairs: Pairs, config: PairOptions) -> Sides:
    """What the links compare: log-ratios of whole completions, length-corrected, or their value under an f-divergence."""
    if config.average:
        return pairs.means(token_ratios)
    if config.ld_alpha != 1:
        token_ratios = pairs.silenced(token_ratios) * length_weights(pairs, config.ld_alpha)
    chosen, rejected = pairs.sums(token_ratios)
    return _divergence_slope(chosen, config), _divergence_slope(rejected, config)


def length_weights(pairs: Pairs, ld_alpha: float) -> Float[Tensor, "N"]:
    """1 for tokens up to the length of the pair's shorter side, `ld_alpha` beyond.

    The order of a sequence's tokens in the batch is their order in the completion.
    Source: Liu et al. 2024, arXiv:2409.06411 (LD-DPO): the likelihood of the excess is raised to the power alpha.
    """
    index = pairs.sequence_index
    shorter = torch.minimum(pairs.lengths[pairs.chosen], pairs.lengths[pairs.rejected])
    shared = torch.zeros_like(pairs.lengths)
    shared[pairs.chosen], shared[pairs.rejected] = shorter, shorter
    weights = torch.ones(index.numel(), dtype=pairs.weights.dtype, device=index.device)
    return torch.where(_positions(index, pairs.lengths) < shared[index], weights, ld_alpha * weights)


def policy_weights(batch: GroupBatch, pairs: Pairs, config: PairOptions) -> Float[Tensor, "P"]:
    """WPO: min(1, v(chosen) * v(rejected)), v = exp(mean_t log pi_t), without gradient; aligned subtracts log sum_v pi(v)^2 from log pi_t.

    Source: Zhou et al. 2024, arXiv:2406.11827, eq. 2 (aligned: "sampled alignment"), limited to 1 as in the authors' code.
    Differs: TRL 1.16 does not limit it, and weights an added NLL too.
    """
    assert batch.logprobs is not None
    logprobs = batch.logprobs.detach()
    if config.weighting == "aligned":
        assert batch.collision_logprobs is not None, "weighting=aligned reads collision_logprobs"
        logprobs = logprobs - batch.collision_logprobs.detach()
    chosen, rejected = pairs.means(logprobs)
    return (chosen + rejected).clamp_max(0.0).exp()


def _divergence_slope(log_ratio: Float[Tensor, "P"], config: PairOptions) -> Float[Tensor, "P"]:
    """f'(u) at u = exp(log_ratio), up to a constant: log u, 1 - 1/u, log 2u / (1 + u), (1 - u^-alpha) / alpha.

    Source: Wang et al. 2023, arXiv:2309.16240, table 1 (f-DPO).
    Differs: 1/u and u^-alpha go on linearly in log u beyond exp(20), so that a forgotten completion has a finite loss and still a
    gradient. TRL's coefficient of the alpha divergence is 1 - alpha of the paper.
    """
    if config.divergence == "forward_kl":
        return -_limited_expm1(-log_ratio)
    if config.divergence == "js":
        return math.log(2) + logsigmoid(log_ratio)
    if config.divergence == "alpha":
        return -_limited_expm1(-config.divergence_alpha * log_ratio) / config.divergence_alpha
    return log_ratio


def _limited_expm1(x: Tensor) -> Tensor:
    """exp(x) - 1 up to x = 20, its tangent beyond."""
    return torch.expm1(x.clamp_max(MAX_EXPONENT)) + math.exp(MAX_EXPONENT) * torch.relu(x - MAX_EXPONENT)


def _positions(index: Int[Tensor, "N"], lengths: Int[Tensor, "B"]) -> Int[Tensor, "N"]:
    """Place of every token among those of its sequence, from 0; sequences need not be sorted."""
    order = torch.argsort(index, stable=True)
    starts = lengths.cumsum(0) - lengths
    positions = torch.empty_like(index)
    positions[order] = torch.arange(index.numel(), device=index.device) - starts[index[order]]
    return positions


def _expected(link: Callable[[Tensor, Tensor, Any], Tensor]) -> _SoftLink:
    """The mixture of a hard-label link over both orders of the pair."""

    def soft(pairs: Pairs, sides: Sides, config: Any) -> Tensor:
        return pairs.expected(lambda a, b: link(a, b, config), sides)

    return soft


def _exo(pairs: Pairs, sides: Sides, config: ExoConfig) -> Tensor:
    return exo_link(sides, pairs.labels, config)


def _optional_needs(config: PairOptions) -> frozenset[str]:
    return frozenset({"collision_logprobs"}) if config.weighting == "aligned" else frozenset()


def _variant(name: str, paper: str, config: type[PairOptions], link: _SoftLink) -> Algorithm:
    return Algorithm(
        name=name,
        paper=paper,
        batch="groups",
        config=config,
        count=count,
        loss=partial(loss, link=link),
        needs=frozenset({"ref_logprobs"}),
        optional_needs=_optional_needs,
    )


DPO = _variant("dpo", "Rafailov et al. 2023, arXiv:2305.18290", DPOConfig, _expected(sigmoid_link))
CDPO = _variant("cdpo", "Mitchell 2023, ericmitchell.ai/cdpo.pdf", FlipConfig, _expected(smoothed_link))
ROBUST = _variant("robust", "Chowdhury et al. 2024, arXiv:2403.00409", FlipConfig, _expected(robust_link))
IPO = _variant("ipo", "Azar et al. 2023, arXiv:2310.12036", IPOConfig, _expected(squared_link))
HINGE = _variant("hinge", "Zhao et al. 2023, arXiv:2305.10425", DPOConfig, _expected(hinge_link))
EXO = _variant("exo", "Ji et al. 2024, arXiv:2402.00856", ExoConfig, _exo)
NCA = _variant("nca", "Chen et al. 2024, arXiv:2402.05369", NcaConfig, _expected(nca_link))
SPPO = _variant("sppo", "Wu et al. 2024, arXiv:2405.00675", SppoConfig, _expected(sppo_link))
APO_ZERO = _variant("apo_zero", "D'Oosterlinck et al. 2024, arXiv:2408.06266", ApoConfig, _expected(apo_zero_link))
APO_DOWN = _variant("apo_down", "D'Oosterlinck et al. 2024, arXiv:2408.06266", ApoConfig, _expected(apo_down_link))
DISCOPOP = _variant("discopop", "Lu et al. 2024, arXiv:2406.08414", DiscopopConfig, _expected(discopop_link))
