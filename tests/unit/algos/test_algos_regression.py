"""Regression on ratings."""

import pytest
import torch

from fairlead.algos import REGRESSION
from fairlead.algos.random_batches import random_batch
from fairlead.algos.regression import RegressionConfig
from fairlead.algos.spec import GroupBatch


def _ratings(scores, targets, group_index, **optional):
    return GroupBatch(
        sequence_index=torch.arange(len(scores)),
        group_index=torch.tensor(group_index),
        ranks=torch.zeros(len(scores), dtype=torch.long),
        num_groups=max(group_index) + 1,
        scores=torch.tensor(scores),
        targets=torch.tensor(targets),
        **optional,
    )


def test_squared_error_by_hand():
    """Errors 1, -2, 0.5 in groups of weight 1, 1, 3: (1 + 4 + 3 * 0.25) / 5 = 1.15."""
    batch = _ratings([1.0, 0.0, 0.5], [0.0, 2.0, 0.0], [0, 0, 1], weights=torch.tensor([1.0, 3.0]))
    config = RegressionConfig()
    assert float(REGRESSION.loss(batch, config).total / REGRESSION.count(batch, config)) == pytest.approx(1.15)


def test_the_best_constant_is_the_mean():
    """The gradient of a constant score is 0 at the mean of the targets."""
    score = torch.full((4,), 2.5, requires_grad=True)
    batch = _ratings([0.0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 0, 1, 1])
    batch = GroupBatch(**{name: getattr(batch, name) for name in batch.__dataclass_fields__} | {"scores": score})
    REGRESSION.loss(batch, RegressionConfig()).total.backward()
    assert float(score.grad.sum()) == pytest.approx(0.0)


def test_the_mean_error_is_logged_without_weights():
    batch = random_batch("groups", seed=1)
    total, count = REGRESSION.loss(batch, RegressionConfig()).metrics["reward/squared_error"]
    assert float(total / count) == pytest.approx(float(((batch.scores - batch.targets) ** 2).mean()))
