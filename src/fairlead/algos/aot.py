"""Alignment by optimal transport: the whole distribution of good rewards is pushed above another one, quantile by quantile.

    aot           u_i = log-likelihood margin of pair i under the policy, v_i = the same under the reference
    aot_unpaired  u   = log-ratios of the good completions of the batch, v = those of the bad ones
    loss = mean over quantiles q of  -log sigma(beta (u(q) - v(q)))        u(q), v(q): sorted over the global batch

Sorting couples units that lie in different micro-batches. So `statistics` sorts the whole batch once and tells each unit its share
of the loss and the slope of the loss in its own value; a micro-batch sums share + slope * (value - value then). The sum is the loss,
and its gradient is the gradient of the sorted loss, exactly, however the batch is cut.

Legend:
    N  completion tokens, flat
    B  sequences
    P  pairs

Example:
    known = replace(batch, statistics=AOT.statistics(batch, config))
    (AOT.loss(known, config).total / AOT.count(known, config)).backward()
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masks import sum_and_count
from fairlead.algos.pairs import pair_count, pair_weights
from fairlead.algos.spec import Algorithm, GroupBatch, Loss, Statistics, UnpairedBatch, pair_rows, sum_by_sequence
from fairlead.algos.transport import transport
from fairlead.algos.unpaired import read_ratios, require_positive, side_metrics, unpaired_count


@dataclass(frozen=True, slots=True, kw_only=True)
class AOTConfig:
    """Settings of both variants."""

    beta: float = 0.1
    """Slope of the logistic loss, per nat of distance between equal quantiles."""

    def __post_init__(self) -> None:
        require_positive("beta", self.beta, remedy="Use 0.01 to 0.5")


def margins(batch: GroupBatch) -> tuple[Float[Tensor, "P"], Float[Tensor, "P"], Float[Tensor, "P"]]:
    """Log-likelihood of chosen minus rejected under the policy (with gradient) and the reference, nats, and the pair weights."""
    assert batch.logprobs is not None and batch.ref_logprobs is not None, "AOT reads logprobs and ref_logprobs"
    weights = pair_weights(batch, batch.logprobs)
    keep = (weights > 0)[batch.group_index][batch.sequence_index]
    chosen, rejected = pair_rows(batch)
    found: list[Tensor] = []
    for logprobs in (batch.logprobs, batch.ref_logprobs):
        silenced = torch.where(keep, logprobs, torch.zeros_like(logprobs))
        sums = sum_by_sequence(silenced, batch.sequence_index, batch.group_index.numel())
        found.append(sums[chosen] - sums[rejected])
    return found[0], found[1], weights


def paired_statistics(batch: GroupBatch, config: AOTConfig) -> dict[str, Tensor]:
    """Share of the loss, slope and value of every pair [P], and the mass that violates dominance."""
    u, v, weights = margins(batch)
    plan = transport(u, weights, v, weights, beta=config.beta)
    total = weights.double().cpu().sum()
    return _to(u, {"share": total * plan.loss_u, "slope": total * plan.slope_u, "violation": plan.violation}) | {
        "at": u.detach()
    }


def paired_loss(batch: GroupBatch, config: AOTConfig) -> Loss:
    """Sum over pairs of share + slope * (margin - margin then): sum_p w_p times the sorted loss.

    Returns:
        Sum over pairs, nats; divide by `count`.
    Source: Melnyk et al. 2024, arXiv:2406.05882, section 3 (paired), logistic loss.
    Equals: DPO's gradient for a batch of one pair (tested).
    """
    u, _, weights = margins(batch)
    return _loss(batch, u, weights, config)


def unpaired_statistics(batch: UnpairedBatch, config: AOTConfig) -> dict[str, Tensor]:
    """Share of the loss, slope and value of every sequence [B], and the mass that violates dominance.

    Good and bad may differ in number: quantiles are joined then, not ranks. The loss of a cell is shared by its two ends.
    """
    ratios = read_ratios(batch)
    good, bad = ratios.is_good, ~ratios.is_good
    plan = transport(
        ratios.sequences[good], ratios.weights[good], ratios.sequences[bad], ratios.weights[bad], beta=config.beta
    )
    total = ratios.weights.double().cpu().sum()
    share, slope = (torch.zeros(good.numel(), dtype=torch.float64) for _ in range(2))
    share[good.cpu()], share[bad.cpu()] = total / 2 * plan.loss_u, total / 2 * plan.loss_v
    slope[good.cpu()], slope[bad.cpu()] = total * plan.slope_u, total * plan.slope_v
    told = {"share": share, "slope": slope, "violation": plan.violation}
    return _to(ratios.sequences, told) | {"at": ratios.sequences.detach()}


def unpaired_loss(batch: UnpairedBatch, config: AOTConfig) -> Loss:
    """Sum over sequences of share + slope * (log-ratio - log-ratio then): the sum of weights times the sorted loss.

    Returns:
        Sum over sequences, nats; divide by `count`. 0 without gradient when the global batch has one side only.
    Source: arXiv:2406.05882, section 3 (unpaired), logistic loss.
    """
    ratios = read_ratios(batch)
    return _loss(batch, ratios.sequences, ratios.weights, config)


def _loss(batch: GroupBatch | UnpairedBatch, values: Tensor, weights: Tensor, config: AOTConfig) -> Loss:
    known = batch.statistics
    total = (known["share"] + known["slope"] * (values - known["at"])).sum()
    metrics = {
        "aot/loss": (known["share"].sum(), weights.sum()),
        "aot/violation": sum_and_count(known["violation"].expand(weights.shape), weights > 0),
        **side_metrics(batch, read_ratios(batch), beta=config.beta),
    }
    return Loss(total=total, metrics=metrics)


def _to(like: Tensor, found: Statistics) -> dict[str, Tensor]:
    return {name: x.to(like) for name, x in found.items()}


def _paired_count(batch: GroupBatch, config: AOTConfig) -> Float[Tensor, ""]:
    return pair_count(batch)


def _unpaired_count(batch: UnpairedBatch, config: AOTConfig) -> Float[Tensor, ""]:
    return unpaired_count(batch)


_PAPER = "Melnyk et al. 2024, arXiv:2406.05882"
AOT = Algorithm(
    name="aot",
    paper=_PAPER,
    batch="groups",
    config=AOTConfig,
    count=_paired_count,
    loss=paired_loss,
    needs=frozenset({"ref_logprobs"}),
    statistics=paired_statistics,
)
AOT_UNPAIRED = Algorithm(
    name="aot_unpaired",
    paper=_PAPER,
    batch="unpaired",
    config=AOTConfig,
    count=_unpaired_count,
    loss=unpaired_loss,
    needs=frozenset({"ref_logprobs"}),
    statistics=unpaired_statistics,
)
