"""The C++ kernel: for which models it stands in, that it computes what their modules do, and what happens without a compiler."""

import re

import numpy as np
import pytest
import torch

import tiny_models
from engine_requests import IN_KERNEL, KINDS, generate, some_requests
from fairlead.core.errors import EngineError
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.engine import by_kernel, kernel
from fairlead.engine.local import LocalEngine
from fairlead.engine.sampler import draw
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.load import CausalModel
from fairlead.models.norms import use_norms


def library():
    found = kernel.load_kernel()
    if isinstance(found, str):
        pytest.skip(f"no kernel here: {found}")
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_takes_the_models_that_it_computes(kind):
    library()
    about = LocalEngine(tiny_models.load(kind)).about
    assert about.startswith("the C++ kernel" if kind in IN_KERNEL else "the model's own modules (the model ")


@pytest.mark.parametrize("kind", IN_KERNEL)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3},
    ],
    ids=["plain", "greedy", "all"],
)
def test_both_ways_give_the_same_samples(kind, options):
    """Prompts longer than a piece of prefill are in the test below; here windows, caps and norms of every kind."""
    library()
    model, requests = tiny_models.load(kind), some_requests(num=5, longest=40)
    sampling = Sampling(max_new_tokens=20, seed=4, stop_token_ids=(7,), **options)
    fast, slow = (generate(model, requests, sampling, use_kernel=use) for use in (True, False))
    for name, sample in slow.items():
        assert fast[name].token_ids.tolist() == sample.token_ids.tolist()
        np.testing.assert_allclose(fast[name].sampling_logprobs, sample.sampling_logprobs, atol=1e-5, rtol=1e-5)


def other_shape(**sizes):
    """A Llama with heads of a size of its own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=99, num_hidden_layers=2, max_position_embeddings=2048, attn_implementation="fairlead", **sizes
    )
    module = LlamaForCausalLM(config).eval()
    model = CausalModel(module=module, config=config, name="other")
    use_norms(module, model.arithmetic)
    return model


@pytest.mark.parametrize("head", [8, 12, 16, 48, 64, 80, 96, 112, 128, 256])
def test_heads_of_every_size(head):
    """Sizes with vectors of their own, and those without; 4 query heads share 2 key heads; prompts of more than one piece."""
    library()
    model = other_shape(
        hidden_size=64, intermediate_size=80, num_attention_heads=4, num_key_value_heads=2, head_dim=head
    )
    rng = np.random.default_rng(0)
    requests = [
        GenerateRequest(key=str(n), token_ids=tuple(map(int, rng.integers(3, 99, n)))) for n in (700, 511, 513, 1, 2)
    ]
    sampling = Sampling(max_new_tokens=6, seed=0)
    engine = LocalEngine(model)
    assert engine.about.startswith("the C++ kernel")
    fast = {s.key: s for s in engine.generate(requests, sampling)}
    for (key, _), sample in generate(model, requests, sampling, use_kernel=False).items():
        assert fast[key].token_ids.tolist() == sample.token_ids.tolist()
        np.testing.assert_allclose(fast[key].sampling_logprobs, sample.sampling_logprobs, atol=1e-5, rtol=0)


def test_threads_change_no_bit():
    library()
    model, requests = tiny_models.load("llama"), some_requests()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            samples = generate(model, requests, Sampling(max_new_tokens=12))
            found.append(b"".join(samples[name].sampling_logprobs.tobytes() for name in sorted(samples)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_is_sampled_with_and_followed(kind):
    """Its matrices are made large, so that the adapter changes every text; then changed again while the engine lives."""
    library()
    model = add_lora(tiny_models.load("llama"), LoraSettings(kind=kind, rank=4, alpha=8.0), seed=0)
    engine, requests, sampling = LocalEngine(model), some_requests(num=4, num_samples=1), Sampling(max_new_tokens=10)
    assert engine.about.startswith("the C++ kernel")
    texts = []
    for scale in (0.0, 0.3, -0.4):
        with torch.no_grad():
            for name, parameter in model.module.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * scale)
        fast = {s.key: s for s in engine.generate(requests, sampling)}
        for (key, _), sample in generate(model, requests, sampling, use_kernel=False).items():
            assert fast[key].token_ids.tolist() == sample.token_ids.tolist()
            np.testing.assert_allclose(fast[key].sampling_logprobs, sample.sampling_logprobs, atol=1e-5, rtol=0)
        texts.append([fast[r.key].token_ids.tolist() for r in requests])
    assert texts[0] != texts[1] != texts[2]


def test_weights_that_are_replaced_are_followed():
    """Not written in place: the parameter is another tensor afterwards."""
    library()
    model = tiny_models.load("llama")
    engine, requests, sampling = LocalEngine(model), some_requests(num=3), Sampling(max_new_tokens=8)
    list(engine.generate(requests, sampling))
    model.causal_lm.model.layers[1].mlp.down_proj.weight = torch.nn.Parameter(torch.randn(32, 48))
    fast = {(s.key, s.sample_index): s for s in engine.generate(requests, sampling)}
    for name, sample in generate(model, requests, sampling, use_kernel=False).items():
        assert fast[name].token_ids.tolist() == sample.token_ids.tolist()


@pytest.mark.parametrize("vocabulary", [1, 3, 64, 65, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_draw_is_the_samplers(vocabulary, temperature):
    """Tokens at uniforms that are no boundary, and their logprobs; a third of the tokens has no chance."""
    runner = by_kernel.KernelRunner(tiny_models.load("llama"), library())
    rng = np.random.default_rng(vocabulary)
    logits = torch.from_numpy(rng.normal(size=(200, vocabulary)) * 4).float()
    logits[:, 1::3] = -torch.inf
    uniforms = np.concatenate([[0.0, 1 - 2**-53], rng.random(198)])
    tokens, logprobs = runner.draw(logits, temperature, uniforms)
    expected, nats = draw(logits / temperature, torch.from_numpy(uniforms))
    assert tokens.tolist() == expected.tolist()
    np.testing.assert_allclose(logprobs, nats, atol=2e-6)
    tokens, logprobs = runner.draw(logits, 1.0, None)
    expected, nats = draw(logits, None)
    assert tokens.tolist() == expected.tolist()
    np.testing.assert_allclose(logprobs, nats, atol=2e-6)


def test_a_policy_that_is_not_finite_is_refused():
    model = tiny_models.load("llama")
    for use_kernel in (True, False):
        engine = LocalEngine(model, use_kernel=use_kernel)
        with torch.no_grad():
            model.causal_lm.lm_head.weight[5] = torch.nan
        with pytest.raises(EngineError, match="logits that are not finite"):
            list(engine.generate(some_requests(num=1), Sampling(max_new_tokens=2, seed=1)))
        with torch.no_grad():
            model.causal_lm.lm_head.weight[5] = 0.0


@pytest.mark.parametrize(
    ("compiler", "says"),
    [("/nowhere/c++", "cannot be built"), ("false", "cannot be built"), ("", "no C compiler")],
)
def test_without_a_compiler_the_engine_says_so_and_works(compiler, says, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("PATH", "/nowhere" if not compiler else "/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel.load_kernel.cache_clear()
    try:
        engine = LocalEngine(tiny_models.load("llama"))
        assert engine.about.startswith("the model's own modules")
        assert re.search(says, engine.about)
        assert len(list(engine.generate(some_requests(), Sampling(max_new_tokens=3)))) == 14
        assert not list(tmp_path.rglob("*.so"))
    finally:
        kernel.load_kernel.cache_clear()
