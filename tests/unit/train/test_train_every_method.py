"""Every registered method through the real models: many micro-batches give the loss and the gradient of one."""

from dataclasses import replace

import pytest
import torch
from training_examples import make_trees

import tiny_models
from fairlead.algos import ALGORITHMS, get_algorithm
from fairlead.models.heads import new_reward_head, new_value_head
from fairlead.train.batches import make_microbatches
from fairlead.train.forward import Models
from fairlead.train.loop import Learner
from fairlead.train.optim import OptimizerSettings

NAMES = [algo.name for algo in ALGORITHMS]
SCORED = ("reward", "ranking", "regression")


def trees_of(name):
    if name == "regression":
        return [replace(t, targets=((0.5 + i,), (-0.2 * i,))) for i, t in enumerate(make_trees("dpo"))]
    return make_trees(name)


def learner_of(name, max_tokens):
    algo, policy = get_algorithm(name), tiny_models.load("llama")
    models = Models(policy=policy)
    if name in SCORED:
        models = Models(reward=new_reward_head(policy, seed=0))
    elif name == "ppo":
        models = Models(policy=policy, value=new_value_head(tiny_models.load("llama")))
    return Learner(models=models, algo=algo, algo_config=algo.config(), num_steps=10, max_tokens=max_tokens,
                   optim=OptimizerSettings(learning_rate=1e-3, max_grad_norm=1e9))  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_do_not_depend_on_the_token_budget(name):
    """In fp32, before AdamW divides small gradients by themselves; a method without a gradient here would test nothing."""
    found = []
    for max_tokens in (8192, 40, 1):
        learner = learner_of(name, max_tokens)
        sums = learner._accumulate(make_microbatches(trees_of(name), max_tokens=max_tokens))
        found.append((sums["loss"][0], {n: p.grad for n, p in learner.trainable.items() if p.grad is not None}))
    largest = max(float(g.abs().max()) for g in found[0][1].values())
    assert largest > 1e-5
    for loss, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5, abs=1e-6)
        assert grads.keys() == found[0][1].keys()
        for parameter, grad in grads.items():
            torch.testing.assert_close(grad, found[0][1][parameter], atol=2e-6 * max(1.0, largest), rtol=1e-4)
