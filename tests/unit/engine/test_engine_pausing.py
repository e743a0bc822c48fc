"""Pausing, weight updates in flight, and one reader at a time."""

import threading

import pytest
import torch

import tiny_models
from engine_requests import some_requests
from fairlead.core.errors import EngineError
from fairlead.core.protocols import GenerateRequest, RolloutEngine, Sampling
from fairlead.engine.local import LocalEngine

WAIT_S = 20.0


def test_a_paused_engine_takes_nothing_and_goes_on_afterwards():
    engine = LocalEngine(tiny_models.load("llama"))
    assert isinstance(engine, RolloutEngine)
    engine.pause()
    assert engine.health().state == "paused"
    with pytest.raises(EngineError, match="resume"):
        list(engine.generate(some_requests(), Sampling(max_new_tokens=2)))
    engine.resume()
    assert engine.health().state == "ready"
    assert len(list(engine.generate(some_requests(), Sampling(max_new_tokens=2)))) == 14


def test_samples_name_the_policy_that_wrote_them():
    model, seen = tiny_models.load("llama"), []
    engine = LocalEngine(model, on_token=seen.append)
    request = some_requests(num=1, num_samples=1)
    (before,) = engine.generate(request, Sampling(max_new_tokens=3, temperature=0.0))
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(-1)
    engine.update_weights(None, 7)
    (after,) = engine.generate(request, Sampling(max_new_tokens=3, temperature=0.0))
    assert before.policy_versions == ((0, 0, 3),) and after.policy_versions == ((7, 0, 3),)
    assert before.token_ids.tolist() != after.token_ids.tolist(), "the engine samples from the trainer's own weights"
    assert engine.health().policy_version == 7 and engine.health().num_tokens == sum(seen) == 6


def staggered(num=6):
    """Requests that end one after the other."""
    return [GenerateRequest(key=f"p{i}", token_ids=(1, 9, 7 + i), max_new_tokens=4 + 3 * i) for i in range(num)]


@pytest.mark.parametrize("use_kernel", [True, False])
def test_samples_come_as_they_finish_and_new_weights_count_at_once(use_kernel):
    """An update between two samples: those in flight go on, their spans meet at the update, and later tokens have the new logprobs."""
    model = tiny_models.load("llama")
    engine = LocalEngine(model, use_kernel=use_kernel)
    samples = engine.generate(staggered(), Sampling(max_new_tokens=40, temperature=0.0))
    first = next(samples)
    assert first.key == "p0" and engine.health().num_active == 5
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(-1)
    engine.update_weights(None, 3)
    rest = list(samples)
    assert [s.key for s in rest] == [f"p{i}" for i in range(1, 6)]
    for sample in rest:
        assert sample.policy_versions == ((0, 0, 4), (3, 4, len(sample.token_ids)))
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(-1)
    whole = {s.key: s for s in engine.generate(staggered(), Sampling(max_new_tokens=40, temperature=0.0))}
    for sample in rest:
        same = sample.token_ids == whole[sample.key].token_ids
        assert same[:4].all() and not same.all()


def test_the_reader_may_not_read_on_while_it_has_paused():
    engine = LocalEngine(tiny_models.load("llama"))
    samples = engine.generate(staggered(), Sampling(max_new_tokens=40))
    next(samples)
    engine.pause()
    with pytest.raises(EngineError, match="paused"):
        next(samples)
    assert engine.health().num_active == 0, "the samples went with their reader"


def read_in_a_thread(engine, requests, sampling):
    """(thread, samples so far, an event that is set with the first)"""
    found, began = [], threading.Event()

    def read():
        for sample in engine.generate(requests, sampling):
            found.append(sample)
            began.set()

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert began.wait(WAIT_S)
    return thread, found


def long_requests():
    """One that ends at once, and many that do not fit the slots together."""
    return [GenerateRequest(key=f"p{i:03}", token_ids=(1, 9, 7), max_new_tokens=60) for i in range(120)]


def test_another_thread_may_freeze_the_engine():
    """Nothing is written while it is paused; afterwards the samples are those of an engine that was left alone."""
    model, sampling = tiny_models.load("llama"), Sampling(max_new_tokens=60, seed=1)
    expected = {
        s.key: s.token_ids.tolist() for s in LocalEngine(model, max_slots=4).generate(long_requests(), sampling)
    }
    engine = LocalEngine(model, max_slots=4)
    thread, found = read_in_a_thread(engine, long_requests(), sampling)
    for _ in range(5):
        engine.pause("keep")
        before = engine.health()
        threading.Event().wait(0.02)
        assert engine.health() == before and before.state == "paused"
        engine.resume()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert {s.key: s.token_ids.tolist() for s in found} == expected


def test_waiting_finishes_what_has_begun():
    engine = LocalEngine(tiny_models.load("llama"), max_slots=4)
    thread, found = read_in_a_thread(engine, long_requests(), Sampling(max_new_tokens=60))
    engine.pause("wait")
    health = engine.health()
    assert health.num_active == 0 and thread.is_alive() == bool(health.num_waiting)
    engine.resume()
    thread.join(WAIT_S)
    assert len(found) == 120


def test_aborting_drops_and_counts():
    engine = LocalEngine(tiny_models.load("llama"), max_slots=4)
    thread, found = read_in_a_thread(engine, long_requests(), Sampling(max_new_tokens=60))
    engine.pause("abort")
    thread.join(WAIT_S)
    health = engine.health()
    assert not thread.is_alive() and health.num_active == health.num_waiting == 0
    assert len(found) + health.num_aborted == 120
    engine.resume()
    assert len(list(engine.generate(staggered(), Sampling(max_new_tokens=40)))) == 6


def test_one_generate_at_a_time():
    engine = LocalEngine(tiny_models.load("llama"))
    samples = engine.generate(staggered(), Sampling(max_new_tokens=40))
    next(samples)
    with pytest.raises(EngineError, match="another generate"):
        next(engine.generate(staggered(), Sampling(max_new_tokens=4)))
    assert len(list(samples)) == 5
    with pytest.raises(EngineError, match="asked for twice"):
        list(engine.generate([*staggered(), *staggered()], Sampling(max_new_tokens=4)))
