"""From a recipe's training section to a learner."""

import pytest
from training_examples import make_trees

import tiny_models
from fairlead.algos import get_algorithm
from fairlead.core.sections import TrainSection
from fairlead.models.heads import new_reward_head
from fairlead.train.forward import Models
from fairlead.train.loop import run_loop
from fairlead.train.setup import make_learner


def train(method, *, is_checkpointed):
    """Losses of three steps, and the layers that are computed again."""
    model = tiny_models.load("llama")
    models = Models(reward=new_reward_head(model, seed=0)) if method == "reward" else Models(policy=model)
    training = TrainSection(activation_checkpointing=is_checkpointed, learning_rate=1e-3)
    algo, losses = get_algorithm(method), []
    learner = make_learner(models, algo, algo.config(), training, num_steps=3, largest=64, say=lambda text: None)
    run_loop(learner, [make_trees(method)] * 3, hooks=[lambda _, metrics: losses.append(metrics["loss"]) or False])
    return losses, [layer.gradient_checkpointing for layer in model.backbone.get_submodule("layers")]


@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_activation_checkpointing_is_an_option_that_changes_no_loss(method):
    plain, without = train(method, is_checkpointed=False)
    losses, with_it = train(method, is_checkpointed=True)
    assert losses == plain and len(set(losses)) == 3
    assert (without, with_it) == ([False, False], [True, True])
