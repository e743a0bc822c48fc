"""The engine against plain transformers and against itself: greedy tokens, logprobs, batch invariance, seeds, errors."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

import tiny_models
from engine_requests import IN_KERNEL, KINDS, generate, some_requests
from fairlead.core.errors import EngineError
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.engine.local import LocalEngine
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.text import Branch, Tree, pack_trees
from naive import generate_naive

both_ways = pytest.mark.parametrize("use_kernel", [True, False], ids=["kernel", "modules"])


def trainer_logprobs(model, request, sample, *, temperature=1.0):
    tree = Tree(prompt_ids=np.array(request.token_ids), branches=(Branch(token_ids=sample.token_ids),))
    with torch.no_grad():
        return model.logprobs(pack_trees([tree]), temperature=temperature).logprobs.numpy()


@both_ways
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_what_transformers_generates(kind, use_kernel):
    model, plain = tiny_models.load(kind), tiny_models.load_plain(kind)
    requests = some_requests(num_samples=1)
    found = generate(model, requests, Sampling(max_new_tokens=16, temperature=0.0), use_kernel=use_kernel)
    for request in requests:
        prompt = torch.tensor([request.token_ids])
        options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        expected = plain.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        assert found[request.key, 0].token_ids.tolist() == expected[0, len(request.token_ids) :].tolist()
        assert found[request.key, 0].finish_reason == "length"


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_a_cache_is_reading_again(kind):
    """Stops included: `stops` is a token that occurs early in some of the texts."""
    model, plain = tiny_models.load(kind), tiny_models.load_plain(kind)
    requests = some_requests(num_samples=1)
    free = generate(model, requests, Sampling(max_new_tokens=10, temperature=0.0))
    stop = int(free["p0", 0].token_ids[3])
    found = generate(model, requests, Sampling(max_new_tokens=10, temperature=0.0, stop_token_ids=(stop,)))

    def next_logits(ids):
        with torch.no_grad():
            return plain(input_ids=torch.tensor([ids])).logits[0, -1].tolist()

    reasons = set()
    for request in requests:
        sample = found[request.key, 0]
        expected = generate_naive.greedy(next_logits, request.token_ids, max_new_tokens=10, stop_token_ids={stop})
        assert sample.token_ids.tolist() == expected
        assert sample.finish_reason == ("stop" if expected[-1] == stop else "length")
        reasons.add(sample.finish_reason)
    assert "stop" in reasons


@both_ways
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampling_logprobs_are_the_trainers(kind, temperature, use_kernel):
    model, requests = tiny_models.load(kind), some_requests()
    found = generate(
        model, requests, Sampling(max_new_tokens=20, temperature=temperature, seed=3), use_kernel=use_kernel
    )
    for request in requests:
        for i in range(2):
            sample = found[request.key, i]
            expected = trainer_logprobs(model, request, sample, temperature=temperature)
            np.testing.assert_allclose(sample.sampling_logprobs, expected, atol=1e-5, rtol=1e-5)


@both_ways
@pytest.mark.parametrize("kind", KINDS)
def test_samples_do_not_depend_on_their_batch(kind, use_kernel):
    """Every number of slots and every mix of requests gives the same tokens, and logprobs within 1e-5; the same bits in the kernel."""
    model, requests = tiny_models.load(kind), some_requests(num=6, longest=30)
    sampling = Sampling(max_new_tokens=18, seed=1, stop_token_ids=(2, 7, 8, 9))
    whole = generate(model, requests, sampling, use_kernel=use_kernel)
    assert len({len(s.token_ids) for s in whole.values()}) > 3, "slots leave at different steps"
    runs = [generate(model, requests, sampling, max_slots=n, use_kernel=use_kernel) for n in (1, 5, 11)]
    runs.append(
        {k: v for r in requests[::-1] for k, v in generate(model, [r], sampling, use_kernel=use_kernel).items()}
    )
    tolerance = 0 if use_kernel and kind in IN_KERNEL else 1e-5
    for run in runs:
        for name, sample in whole.items():
            assert run[name].token_ids.tolist() == sample.token_ids.tolist()
            np.testing.assert_allclose(run[name].sampling_logprobs, sample.sampling_logprobs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("gpt_oss", "deepseek_v3")])
def test_in_a_fixed_number_of_slots_modules_give_the_same_bits(kind):
    """The first request of several, beside others of the same number, prompt lengths and limits. Not with experts: each multiplies as
    many rows as chose it."""
    model, sampling = tiny_models.load(kind), Sampling(max_new_tokens=12, seed=1)
    first = GenerateRequest(key="first", token_ids=(1, 9, 30, 8, 11))
    found = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        others = [
            GenerateRequest(key=f"{seed}-{i}", token_ids=tuple(map(int, rng.integers(6, 96, 5)))) for i in range(6)
        ]
        found.append(generate(model, [first, *others], sampling, use_kernel=False)["first", 0])
    assert found[0].token_ids.tolist() == found[1].token_ids.tolist()
    assert found[0].sampling_logprobs.tobytes() == found[1].sampling_logprobs.tobytes()


def test_a_seed_names_its_samples():
    """Other seeds, keys and sample indices give other samples; more samples of a request leave the first ones alone."""
    model, (request, other, *_) = tiny_models.load("llama"), some_requests(num_samples=3)
    sampling = Sampling(max_new_tokens=12, seed=5)
    first = generate(model, [request], sampling)
    texts = [first[request.key, i].token_ids.tolist() for i in range(3)]
    assert len({tuple(t) for t in texts}) == 3
    fewer = GenerateRequest(key=request.key, token_ids=request.token_ids, num_samples=1)
    assert generate(model, [other, fewer], sampling)[request.key, 0].token_ids.tolist() == texts[0]
    again = generate(model, [request], Sampling(max_new_tokens=12, seed=6))
    assert again[request.key, 0].token_ids.tolist() != texts[0]
    renamed = GenerateRequest(key="other name", token_ids=request.token_ids)
    assert generate(model, [renamed], sampling)["other name", 0].token_ids.tolist() != texts[0]


def test_a_longer_limit_only_goes_on():
    model, requests = tiny_models.load("llama"), some_requests(num_samples=1)
    short = generate(model, requests, Sampling(max_new_tokens=5, seed=2))
    long = generate(model, requests, Sampling(max_new_tokens=15, seed=2))
    assert all(long[name].token_ids[:5].tolist() == s.token_ids.tolist() for name, s in short.items())


def test_sampled_frequencies_are_the_models_probabilities():
    """2,000 first tokens, chi-square against the exact distribution, rare tokens pooled."""
    model = tiny_models.load("gemma2")
    request = GenerateRequest(key="p", token_ids=(1, 9, 30), num_samples=2000)
    found = generate(model, [request], Sampling(max_new_tokens=1, seed=0), max_slots=2000)
    counts = np.bincount([s.token_ids[0] for s in found.values()], minlength=tiny_models.VOCABULARY)
    with torch.no_grad():
        logits = tiny_models.load_plain("gemma2")(input_ids=torch.tensor([request.token_ids])).logits[0, -1]
    expected = 2000 * logits.double().softmax(-1).numpy()
    is_common = expected >= 5
    groups = [
        (counts[is_common], expected[is_common]),
        (counts[~is_common].sum(keepdims=True), expected[~is_common].sum(keepdims=True)),
    ]
    observed, exact = (np.concatenate(x) for x in zip(*groups, strict=True))
    assert is_common.sum() > 20
    assert chisquare(observed, exact).pvalue > 0.01
    assert chisquare(observed, exact[::-1]).pvalue < 1e-6, "the test can fail"


@settings(max_examples=8)
@given(
    lengths=st.lists(st.integers(1, 34), min_size=1, max_size=6), num_samples=st.integers(1, 4), limit=st.integers(1, 30),
    max_slots=st.integers(1, 20), kind=st.sampled_from(["llama", "mistral", "gpt2"]), use_kernel=st.booleans(),
)  # fmt: skip
def test_the_cache_keeps_its_sequences(lengths, num_samples, limit, max_slots, kind, use_kernel):
    """Random prompts, limits up to the end of the context and stops: what the cache led to is what a fresh forward says."""
    model, rng = _model(kind), np.random.default_rng(sum(lengths) + limit)
    requests = [
        GenerateRequest(key=f"p{i}", token_ids=tuple(map(int, rng.integers(6, 96, n))), num_samples=num_samples)
        for i, n in enumerate(lengths)
    ]
    found = generate(
        model,
        requests,
        Sampling(max_new_tokens=limit, seed=1, stop_token_ids=(2, 7, 8)),
        max_slots=max_slots,
        use_kernel=use_kernel,
    )
    for request in requests:
        for i in range(num_samples):
            sample = found[request.key, i]
            assert (sample.finish_reason == "stop") == (sample.token_ids[-1] in (2, 7, 8))
            assert not set(sample.token_ids[:-1].tolist()) & {2, 7, 8}
            assert sample.finish_reason == "stop" or len(sample.token_ids) == limit
            np.testing.assert_allclose(
                sample.sampling_logprobs, trainer_logprobs(model, request, sample), atol=2e-5, rtol=1e-5
            )


_models = {}


def _model(kind):
    return _models.setdefault(kind, tiny_models.load(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_and_its_reply_may_fill_the_context(kind):
    model = tiny_models.load(kind)
    request = GenerateRequest(key="p", token_ids=(7,) * 60)
    (sample,) = generate(model, [request], Sampling(max_new_tokens=4)).values()
    np.testing.assert_allclose(sample.sampling_logprobs, trainer_logprobs(model, request, sample), atol=1e-5, rtol=1e-5)


def test_bad_requests_are_refused_before_anything_is_sampled():
    engine = LocalEngine(tiny_models.load("llama"))
    good = GenerateRequest(key="good", token_ids=(1,))
    for bad, says in (
        (GenerateRequest(key="bad", token_ids=()), "has no tokens"),
        (GenerateRequest(key="bad", token_ids=(7,) * 61), "leaves room for 3"),
    ):
        with pytest.raises(EngineError, match=says) as info:
            list(engine.generate([good, bad], Sampling(max_new_tokens=4)))
        assert "prompt bad" in str(info.value) and "\n" not in str(info.value)
    assert engine.health().num_tokens == 0
    assert list(engine.generate([], Sampling(max_new_tokens=4))) == []


def test_modules_that_compute_in_bf16_on_a_cpu_are_refused():
    model = tiny_models.load("llama")
    model.set_precision("bf16")
    with pytest.raises(EngineError, match=r"engine\.precision=bf16 needs the C\+\+ kernel on a CPU \(as asked\)"):
        LocalEngine(model, use_kernel=False)
    model.set_precision("fp32")
    assert len(generate(model, some_requests(), Sampling(max_new_tokens=2), use_kernel=False)) == 14


def stories():
    if "FAIRLEAD_DATA" not in os.environ:
        pytest.skip("FAIRLEAD_DATA is not set: tests on real data are skipped")
    return str(Path(os.environ["FAIRLEAD_DATA"]) / "models" / "stories260K")


@pytest.mark.data
@both_ways
def test_a_real_model_tells_its_story(use_kernel):
    model, tokenizer = load_policy(stories()), load_tokenizer(stories())
    request = GenerateRequest(key="p", token_ids=(tokenizer.bos_token_id,))
    (sample,) = generate(model, [request], Sampling(max_new_tokens=60, temperature=0.0), use_kernel=use_kernel).values()
    start = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball"
    assert tokenizer.decode(sample.token_ids).startswith(start)


@pytest.mark.data
@both_ways
def test_a_real_models_logprobs_do_not_depend_on_the_batch(use_kernel):
    model = load_policy(stories())
    requests, sampling = some_requests(num=4), Sampling(max_new_tokens=16)
    whole = generate(model, requests, sampling, use_kernel=use_kernel)
    for max_slots in (1, 3):
        for name, sample in generate(model, requests, sampling, max_slots=max_slots, use_kernel=use_kernel).items():
            assert sample.token_ids.tolist() == whole[name].token_ids.tolist()
            np.testing.assert_allclose(sample.sampling_logprobs, whole[name].sampling_logprobs, atol=1e-5, rtol=0)
