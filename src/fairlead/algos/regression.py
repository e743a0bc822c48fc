"""Reward modelling from ratings: scores that equal the ratings, in the mean square.

With several attributes every (completion, attribute) that was rated is a sequence of its own here; what was not rated is not in the
batch (see train/views.py).

Legend:
    B  sequences (rated outputs)
    P  groups

Example:
    (REGRESSION.loss(batch, RegressionConfig()).total / REGRESSION.count(batch, RegressionConfig())).backward()
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masks import sum_and_count
from fairlead.algos.pairs import pair_weights
from fairlead.algos.ranking import with_score_std
from fairlead.algos.spec import Algorithm, GroupBatch, Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionConfig:
    """Squared error has no settings."""


def count(batch: GroupBatch, config: RegressionConfig) -> Float[Tensor, ""]:
    """Sum of the weights of the ratings; a rating has the weight of its group."""
    if batch.weights is not None:
        return batch.weights[batch.group_index].sum()
    return torch.tensor(float(batch.group_index.numel()), device=batch.group_index.device)


def loss(batch: GroupBatch, config: RegressionConfig) -> Loss:
    """Squared error of the scores.

    loss = sum_b w_group(b) * (score_b - target_b)^2

    Returns:
        Sum over ratings, target units^2; divide by `count`. Computed in float32 or better.
    Source: Wang et al. 2024, HelpSteer2, arXiv:2406.08673; Wang et al. 2024, ArmoRM, arXiv:2406.12845, stage 1.
    """
    assert batch.scores is not None and batch.targets is not None, "regression reads scores and targets"
    scores = batch.scores.to(torch.promote_types(batch.scores.dtype, torch.float32))
    weights = pair_weights(batch, scores)[batch.group_index]
    keep = weights > 0
    scores = torch.where(keep, scores, torch.zeros_like(scores))
    squares = torch.where(keep, (scores - batch.targets.to(scores.dtype)) ** 2, torch.zeros_like(scores))
    metrics = {
        "reward/squared_error": sum_and_count(squares, keep),
        "reward/score_mean": sum_and_count(scores, keep),
        "reward/score_squared": sum_and_count(scores * scores, keep),
    }
    return Loss(total=(weights * squares).sum(), metrics=metrics)


REGRESSION = Algorithm(
    name="regression",
    paper="Wang et al. 2024, arXiv:2406.08673; Wang et al. 2024, arXiv:2406.12845",
    batch="groups",
    config=RegressionConfig,
    count=count,
    loss=loss,
    needs=frozenset({"scores"}),
    derived=with_score_std,
)
