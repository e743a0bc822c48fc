"""Training on padded rows: every method learns, the checks before training mean something there, and the user is told once."""

import pytest
import torch
from training_examples import make_learner, make_trees

import tiny_models
from fairlead.core.services import Services
from fairlead.models.heads import new_reward_head
from fairlead.train.forward import Models
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop
from fairlead.train.preflight import check_dropout, check_layout, check_scores
from fairlead.train.preflight_model import check_model


@pytest.mark.parametrize("method", ["sft", "dpo", "reward", "kto"])
@pytest.mark.parametrize("kind", ["mamba", "jamba"])
def test_methods_learn(kind, method, tmp_path):
    learner, trees, losses, said = (
        make_learner(method, kind=kind, num_steps=5, learning_rate=1e-2),
        make_trees(method),
        [],
        [],
    )
    services = Services(work=tmp_path, say=said.append)
    session = Session(
        learner, services=services, title=method, metric=f"{method}/loss", metrics_path=tmp_path / "out.jsonl"
    )
    with session:
        run_loop(learner, [trees] * 5, hooks=[lambda _, metrics: losses.append(metrics[f"{method}/loss"]) or False])
    assert len(losses) == 5 and losses[-1] < losses[0]
    expected = f"{method}: {kind} keeps state across a row, so it is trained on padded rows: slower, same results"
    assert said == [expected]


def test_micro_batches_change_nothing():
    def gradients(max_tokens):
        learner = make_learner("dpo", kind="mamba", dtype=torch.float64, max_tokens=max_tokens, num_steps=1)
        run_loop(learner, [make_trees("dpo")], hooks=[])
        return [p.grad.clone() if p.grad is not None else p.detach().clone() for p in learner.parameters]

    for whole, small in zip(gradients(8192), gradients(30), strict=True):
        torch.testing.assert_close(whole, small, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("kind", tiny_models.PADDED_KINDS)
def test_checks_pass_on_sound_models(kind):
    model, trees = tiny_models.load(kind), make_trees("dpo")
    reward = new_reward_head(model, seed=0)
    checks = [
        check_dropout(model, trees),
        *check_layout(model, trees),
        check_scores(reward, trees),
        *check_model(model, trees),
    ]
    assert [check.name for check in checks if not check.is_passed] == []


def leaky(model):
    """Every token gets a share of all places of its row, padding too."""
    layer = model.backbone.get_submodule("layers.0")
    layer.register_forward_hook(lambda module, args, output: output + 0.1 * output.mean(1, keepdim=True))
    return model


def test_checks_fail_where_padding_is_seen():
    model, trees = leaky(tiny_models.load("mamba")), make_trees("dpo")
    assert [check.is_passed for check in check_layout(model, trees)] == [False, False]
    assert not check_scores(new_reward_head(model, seed=0), trees).is_passed


def test_models_that_share_rows_have_nothing_to_tell():
    assert Models(policy=tiny_models.load("llama")).notes() == []
    mamba = tiny_models.load("mamba")
    assert len(Models(policy=mamba, value=new_reward_head(mamba, seed=0)).notes()) == 1
