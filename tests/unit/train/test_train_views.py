"""Several outputs of one reward model as several views of its trees."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_examples import make_trees

import tiny_models
from fairlead.algos import RANKING, REGRESSION, REWARD
from fairlead.algos.ranking import RankingConfig
from fairlead.algos.regression import RegressionConfig
from fairlead.algos.reward import RewardConfig
from fairlead.models.heads import even_readout, new_reward_head
from fairlead.train.batches import make_microbatches
from fairlead.train.forward import Models, run_forward, sizes_batch
from fairlead.train.views import NUM_HEADS, head_weight

NAN = math.nan


def outputs(model, trees):
    """[B, K] outputs of the branches."""
    (batch,) = make_microbatches(trees, max_tokens=8192)
    with torch.no_grad():
        return model.outputs(batch.layout).double()


def evaluate(model, trees, algo, config, *, max_tokens=8192):
    """Loss over the count of the whole, and the gradient of the head [K, H]."""
    batches = make_microbatches(trees, max_tokens=max_tokens)
    model.head.weight.grad = None
    total = sum(float(algo.count(sizes_batch(batch, algo), config)) for batch in batches)
    value = 0.0
    for batch in batches:
        loss = algo.loss(run_forward(Models(reward=model), batch, algo, config), config).total / total
        loss.backward()
        value += float(loss.detach())
    return value, model.head.weight.grad.clone(), total


def new_model(num_outputs):
    model = new_reward_head(tiny_models.load("llama"), seed=0, num_outputs=num_outputs)
    model.readout = even_readout([str(i) for i in range(num_outputs)])
    return model


def rated(targets):
    """Trees of two branches with these ratings."""
    trees = make_trees("reward", num=len(targets))
    return [replace(tree, targets=rows, numbers={"weight": 1.0}) for tree, rows in zip(trees, targets, strict=True)]


TARGETS = [((1.0, 0.5), (0.0, NAN)), ((NAN, -1.0), (2.0, 1.0)), ((0.3, NAN), (0.1, NAN))]


def test_regression_is_over_what_was_rated():
    """Five ratings of the first output and three of the second: the mean of eight squares."""
    model, trees = new_model(2), rated(TARGETS)
    value, _, count = evaluate(model, trees, REGRESSION, RegressionConfig())
    targets = torch.tensor([rows for pair in TARGETS for rows in pair], dtype=torch.float64)
    errors = (outputs(model, trees) - targets)[~targets.isnan()]
    assert count == len(errors) == 8
    assert value == pytest.approx(float((errors**2).mean()), rel=1e-5)


def test_criteria_are_bradley_terry_on_the_pairs_that_they_order():
    """The first output knows the first and third pair (up, up), the second only the second (down)."""
    model, trees = new_model(2), rated(TARGETS)
    value, _, count = evaluate(model, trees, RANKING, RankingConfig(model="all_pairs", center_coef=0.0))
    scores = outputs(model, trees)
    margins = torch.stack([scores[0, 0] - scores[1, 0], scores[4, 0] - scores[5, 0], scores[3, 1] - scores[2, 1]])
    assert count == 3
    assert value == pytest.approx(float(-torch.nn.functional.logsigmoid(margins).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("algo", "config"), [(REGRESSION, RegressionConfig()), (RANKING, RankingConfig(model="all_pairs"))]
)
def test_an_output_that_nobody_rated_gets_no_gradient(algo, config):
    trees = rated([((1.0, NAN), (0.0, NAN)), ((0.5, NAN), (2.0, NAN))])
    _, gradient, _ = evaluate(new_model(2), trees, algo, config)
    assert gradient[0].abs().max() > 0 and (gradient[1] == 0).all()


def test_missing_criteria_change_nothing_across_microbatches():
    model, trees = new_model(2), rated(TARGETS)
    whole = evaluate(model, trees, REGRESSION, RegressionConfig())
    parts = evaluate(model, trees, REGRESSION, RegressionConfig(), max_tokens=1)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    torch.testing.assert_close(parts[1], whole[1], atol=1e-6, rtol=1e-4)


def test_every_head_has_the_loss_of_its_own_weights():
    """The mean over heads, each as a reward model of one output that is trained on its weights."""
    model = new_model(3)
    weights = np.random.default_rng(0).exponential(size=(7, 3))
    trees = [
        replace(tree, numbers={**tree.numbers, NUM_HEADS: 3.0} | {head_weight(i): float(w) for i, w in enumerate(row)})
        for tree, row in zip(make_trees("reward"), weights, strict=True)
    ]
    value, gradient, count = evaluate(model, trees, REWARD, RewardConfig())
    assert count == pytest.approx(1.5 * weights.sum())
    expected = 0.0
    for head in range(3):
        one = new_model(3)
        one.head = torch.nn.Linear(32, 1, bias=False)
        one.head.weight.data.copy_(model.head.weight.data[head : head + 1])
        own = [
            replace(t, numbers={**t.numbers, "weight": 1.5 * w, NUM_HEADS: 1.0})
            for t, w in zip(trees, weights[:, head], strict=True)
        ]
        single, single_gradient, single_count = evaluate(one, own, REWARD, RewardConfig())
        expected += single * single_count / count
        torch.testing.assert_close(gradient[head], single_gradient[0] * single_count / count, atol=1e-6, rtol=1e-4)
    assert value == pytest.approx(expected, rel=1e-5)
