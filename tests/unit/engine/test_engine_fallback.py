"""The engine by transformers' generate: models whose sequences cannot share a row, against a loop without a cache and their trainer."""

import numpy as np
import pytest
import torch

import tiny_models
from engine_requests import some_requests
from fairlead.core.errors import EngineError
from fairlead.core.protocols import RolloutEngine, Sampling
from fairlead.engine.fallback import FallbackEngine, open_engine
from fairlead.engine.local import LocalEngine
from fairlead.text import Branch, Tree, pack_trees
from naive import generate_naive

KINDS = tuple(kind for kind in tiny_models.PADDED_KINDS if kind != "rwkv")


def generate(model, requests, sampling, **options):
    found = list(FallbackEngine(model, **options).generate(requests, sampling))
    assert len(found) == sum(r.num_samples for r in requests)
    return {(s.key, s.sample_index): s for s in found}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_a_loop_without_a_cache(kind):
    model, plain = tiny_models.load(kind), tiny_models.load_plain(kind)
    requests = some_requests(num=4, num_samples=1)

    def next_logits(ids):
        with torch.no_grad():
            return plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].tolist()

    free = generate(model, requests, Sampling(max_new_tokens=8, temperature=0.0))
    stop = int(free["p0", 0].token_ids[2])
    found = generate(model, requests, Sampling(max_new_tokens=8, temperature=0.0, stop_token_ids=(stop,)))
    for request in requests:
        expected = generate_naive.greedy(next_logits, request.token_ids, max_new_tokens=8, stop_token_ids={stop})
        assert found[request.key, 0].token_ids.tolist() == expected
        assert found[request.key, 0].finish_reason == ("stop" if expected[-1] == stop else "length")


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_are_the_trainers_and_samples_keep_to_their_names(kind):
    model, requests = tiny_models.load(kind), some_requests(num=4)
    sampling = Sampling(max_new_tokens=12, temperature=0.8, seed=2)
    found = generate(model, requests, sampling)
    for request in requests:
        for i in range(2):
            sample = found[request.key, i]
            tree = Tree(prompt_ids=np.array(request.token_ids), branches=(Branch(token_ids=sample.token_ids),))
            with torch.no_grad():
                expected = model.logprobs(pack_trees([tree]), temperature=0.8).logprobs.numpy()
            np.testing.assert_allclose(sample.sampling_logprobs, expected, atol=2e-5)
    again = generate(model, requests[::-1], sampling, max_slots=1)
    assert all(again[name].token_ids.tolist() == sample.token_ids.tolist() for name, sample in found.items())


def test_it_samples_what_the_local_engine_samples():
    """A Llama through both, with every option: the same uniforms, the same tokens."""
    model, requests = tiny_models.load("llama"), some_requests(num=5)
    spell = {"decode": lambda ids: "".join(chr(97 + i % 26) for i in ids.tolist())}
    model.causal_lm.set_attn_implementation("eager")
    sampling = Sampling(max_new_tokens=14, seed=3, temperature=0.9, top_k=30, top_p=0.95, min_p=0.01, repetition_penalty=1.2, stop=("ab", "q"),
                        stop_token_ids=(9,))  # fmt: skip
    found = generate(model, requests, sampling, **spell)
    model.causal_lm.set_attn_implementation("fairlead")
    for sample in LocalEngine(model, **spell).generate(requests, sampling):
        same = found[sample.key, sample.sample_index]
        assert same.token_ids.tolist() == sample.token_ids.tolist() and same.finish_reason == sample.finish_reason
        np.testing.assert_allclose(same.sampling_logprobs, sample.sampling_logprobs, atol=1e-5)


def test_a_model_that_generate_gets_wrong_is_refused():
    with pytest.raises(EngineError, match="other logprobs than its forward has"):
        generate(tiny_models.load("rwkv"), some_requests(), Sampling(max_new_tokens=8))


def test_settings_that_came_with_the_model_are_left_out():
    model, requests = tiny_models.load("mamba"), some_requests(num=2)
    sampling = Sampling(max_new_tokens=8, seed=1)
    expected = generate(model, requests, sampling)
    settings = model.module.generation_config
    settings.repetition_penalty, settings.no_repeat_ngram_size, settings.eos_token_id = 3.0, 1, list(range(6, 50))
    found = generate(model, requests, sampling)
    assert all(found[name].token_ids.tolist() == sample.token_ids.tolist() for name, sample in expected.items())
    assert model.module.generation_config is settings


def test_the_model_says_which_engine():
    for kind, expected in (("llama", LocalEngine), ("mamba", FallbackEngine)):
        engine = open_engine(tiny_models.load(kind))
        assert type(engine) is expected and isinstance(engine, RolloutEngine)
    assert "keeps state across a row" in engine.about
    with pytest.raises(EngineError, match="keeps state across a row"):
        LocalEngine(tiny_models.load("mamba"))


def test_pausing_updates_and_counts():
    engine = FallbackEngine(tiny_models.load("mamba"), max_slots=1)
    samples = engine.generate(some_requests(num=3, num_samples=1), Sampling(max_new_tokens=3))
    assert next(samples).policy_versions == ((0, 0, 3),)
    engine.update_weights(None, 2)
    assert next(samples).policy_versions == ((2, 0, 3),)
    assert (engine.health().num_waiting, engine.health().num_tokens) == (1, 6)
    engine.pause("keep")
    with pytest.raises(EngineError, match="resume"):
        next(samples)
    engine.resume()
    samples = engine.generate(some_requests(num=3, num_samples=1), Sampling(max_new_tokens=3))
    next(samples)
    engine.pause("abort")
    assert list(samples) == [] and engine.health().num_aborted == 2
