"""The moving average of weights: its closed form, what is measured and kept, and that a resumed run has the same."""

import contextlib

import pytest
import torch
from training_examples import make_learner, make_trees, weights

from fairlead.core.errors import Interrupted
from fairlead.core.services import Services
from fairlead.train.average import AVERAGE
from fairlead.train.checkpoints import load_weights
from fairlead.train.hooks import Session
from fairlead.train.loop import run_loop


def learner_of(decay, **options):
    learner = make_learner("sft", num_steps=6, **options)
    learner.ema_decay = decay
    learner.__post_init__()
    return learner


def session_of(learner, folder, **options):
    services = Services(work=folder / "work", **options)
    return Session(learner, services=services, title="test", metric="sft/loss", metrics_path=folder / "metrics.jsonl")


BATCHES = [make_trees("sft", seed=step) for step in range(6)]


def test_the_average_by_hand():
    """Decay 0.3: d_1 = min(0.3, 2/11) = 2/11, d_2 = min(0.3, 3/12) = 0.25, d_3 = min(0.3, 4/13) = 0.3.

    a_3 = 0.3 (0.25 (2/11 w_0 + 9/11 w_1) + 0.75 w_2) + 0.7 w_3
    """
    learner = learner_of(0.3, dtype=torch.float64)
    seen = [weights(learner)]
    for batch in BATCHES[:3]:
        learner.step(batch)
        seen.append(weights(learner))
    with learner.result():
        found = weights(learner)
    for a, w0, w1, w2, w3 in zip(found, *seen, strict=True):
        expected = 0.3 * (0.25 * (2 / 11 * w0 + 9 / 11 * w1) + 0.75 * w2) + 0.7 * w3
        torch.testing.assert_close(a, expected, atol=1e-12, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(weights(learner), seen[-1], strict=True)), (
        "training goes on with its own"
    )
    assert any(not torch.equal(a, b) for a, b in zip(found, seen[-1], strict=True))


def test_without_a_decay_the_result_is_the_weights():
    learner = make_learner("sft")
    learner.step(BATCHES[0])
    before = weights(learner)
    with learner.result():
        assert all(torch.equal(a, b) for a, b in zip(weights(learner), before, strict=True))
    assert not any(name.startswith(AVERAGE) for name in learner.state()[0])


def test_the_state_tells_weights_from_averages_while_averages_are_measured():
    """A run that is interrupted within a measurement saves there."""
    learner = learner_of(0.9)
    learner.step(BATCHES[0])
    plain = {name: tensor.clone() for name, tensor in learner.state()[0].items()}
    with learner.result():
        inside = {name: tensor.clone() for name, tensor in learner.state()[0].items()}
    assert plain.keys() == inside.keys() and any(name.startswith(AVERAGE) for name in plain)
    assert all(torch.equal(tensor, inside[name]) for name, tensor in plain.items())


def test_a_session_ends_with_the_averages_and_a_resumed_one_with_the_same(tmp_path):
    whole = learner_of(0.9)
    with session_of(whole, tmp_path / "a") as running:
        run_loop(whole, BATCHES, [running.after_step])
        last = weights(whole)
    ended = weights(whole)
    assert any(not torch.equal(a, b) for a, b in zip(ended, last, strict=True)), "the average is what is saved"
    first = learner_of(0.9)
    with (
        contextlib.suppress(Interrupted),
        session_of(first, tmp_path / "b", should_stop=lambda: first.step_number == 3) as running,
    ):
        run_loop(first, BATCHES, [running.after_step])
    second = learner_of(0.9)
    with session_of(second, tmp_path / "b") as running:
        assert running.resumed_from == 3
        run_loop(second, BATCHES, [running.after_step])
    assert all(torch.equal(a, b) for a, b in zip(ended, weights(second), strict=True))


def test_the_best_is_the_average_of_the_best_step(tmp_path):
    learner, averages = learner_of(0.9), []

    def measure(_learner, _metrics):
        with learner.result():
            averages.append(weights(learner))
        if learner.step_number == 2:
            running.mark_best()
        return False

    with session_of(learner, tmp_path) as running:
        run_loop(learner, BATCHES, [measure, running.after_step])
    running.restore_best()
    assert all(torch.equal(a, b) for a, b in zip(weights(learner), averages[1], strict=True))
    with pytest.raises(AssertionError):
        assert all(torch.equal(a, b) for a, b in zip(weights(learner), averages[-1], strict=True))


def test_the_weights_taken_out_of_a_checkpoint_are_the_averages(tmp_path):
    learner = learner_of(0.9)
    with session_of(learner, tmp_path) as running:
        run_loop(learner, BATCHES, [running.after_step])
        running.save()
    fresh = learner_of(0.9)
    load_weights(next((tmp_path / "work" / "checkpoints").glob("step-*")), fresh.models)
    assert all(torch.equal(a, b) for a, b in zip(weights(fresh), weights(learner), strict=True))
