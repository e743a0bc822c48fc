"""LoRA: the reference inside, what trains, and that merging changes nothing."""

import numpy as np
import pytest
import torch

import tiny_models
from fairlead.core.errors import ConfigError
from fairlead.models.adapters import LoraSettings, add_lora, has_adapter, merged, reference_mode
from fairlead.text import Branch, Tree, pack_trees

pytestmark = pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
STACKED = "deepseek_v3"
"""Experts and a router that are raw parameters, which all-linear reaches."""


@pytest.fixture
def layout():
    rng = np.random.default_rng(0)
    ids = rng.integers(6, tiny_models.VOCABULARY, (3, 5))
    return pack_trees([Tree(prompt_ids=ids[0], branches=(Branch(token_ids=ids[1]), Branch(token_ids=ids[2])))])


def logprobs(model, layout):
    with torch.no_grad():
        return model.logprobs(layout).logprobs


def moved(kind):
    """A model whose adapter is no longer zero."""
    model = add_lora(tiny_models.load(kind), LoraSettings(rank=4, alpha=8.0), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=generator)
    return model


@pytest.mark.parametrize("target", ["nosuch", "q_proj", "*bad("])
def test_layers_that_are_not_there_are_refused_with_the_names_of_those_that_are(kind, target):
    """A name is matched whole: `q_proj` alone is no layer, `.*q_proj` is."""
    with pytest.raises(ConfigError, match="matches no linear layer") as info:
        add_lora(tiny_models.load(kind), LoraSettings(target_modules=target), seed=0)
    name = {"gpt2": "c_attn"}.get(kind, "q_proj")
    assert name in str(info.value)
    assert has_adapter(add_lora(tiny_models.load(kind), LoraSettings(rank=2, target_modules=f".*{name}"), seed=0))


def test_an_adapter_wider_than_the_model_is_refused_before_its_weights_are_made(kind):
    with pytest.raises(ConfigError, match=r"training\.lora\.rank=100000000 is wider than the model"):
        add_lora(tiny_models.load(kind), LoraSettings(rank=100_000_000), seed=0)


def test_a_new_adapter_is_the_base_model(kind, layout):
    model = add_lora(tiny_models.load(kind), LoraSettings(rank=4, alpha=8.0), seed=0)
    assert has_adapter(model) and not has_adapter(tiny_models.load(kind))
    assert torch.equal(logprobs(model, layout), logprobs(tiny_models.load(kind), layout))


def test_an_adapter_starts_as_a_function_of_the_seed(kind):
    """And the global generator, which the adapter's maker draws from, is left as it was."""
    state = torch.random.get_rng_state()

    def start(seed):
        torch.rand(seed + 3)
        module = add_lora(tiny_models.load(kind), LoraSettings(rank=4, alpha=8.0), seed=seed).module
        return torch.cat([p.detach().flatten() for n, p in module.named_parameters() if "lora_A" in n])

    assert torch.equal(start(1), start(1)) and not torch.equal(start(1), start(2))
    torch.random.set_rng_state(state)
    add_lora(tiny_models.load(kind), LoraSettings(rank=4, alpha=8.0), seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_with_the_adapter_off_it_is_the_base_model_bit_for_bit(kind, layout):
    model, base = moved(kind), logprobs(tiny_models.load(kind), layout)
    with reference_mode(model) as reference:
        assert torch.equal(logprobs(reference, layout), base)
    assert not torch.allclose(logprobs(model, layout), base, atol=1e-3)


def test_only_the_adapter_trains(kind, layout):
    model = moved(kind)
    model.logprobs(layout).logprobs.sum().backward()
    for name, parameter in model.module.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        assert (parameter.grad is not None) == ("lora_" in name)


def test_merging_keeps_the_numbers(kind, layout):
    model = moved(kind)
    before = logprobs(model, layout)
    plain = merged(model)
    assert not has_adapter(plain) and merged(plain) is plain
    torch.testing.assert_close(logprobs(plain, layout), before, atol=1e-5, rtol=0)


def test_a_plain_model_has_no_reference_inside(kind):
    with pytest.raises(ValueError, match="load a second model"), reference_mode(tiny_models.load(kind)):
        pass


@pytest.mark.parametrize("adapter", ["rslora", "dora"])
def test_other_kinds_start_as_the_base_train_and_merge(kind, adapter, layout):
    """The reference inside is the base bit for bit; DoRA's start is the base to rounding, for it divides by a length and multiplies again."""
    base = logprobs(tiny_models.load(kind), layout)
    model = add_lora(tiny_models.load(kind), LoraSettings(kind=adapter, rank=4, alpha=8.0), seed=0)
    torch.testing.assert_close(logprobs(model, layout), base, atol=1e-5, rtol=0)
    trained = {n: p for n, p in model.module.named_parameters() if p.requires_grad}
    assert any("magnitude" in n for n in trained) == (adapter == "dora")
    optimizer = torch.optim.Adam(trained.values(), lr=0.01)
    for _ in range(3):
        model.logprobs(layout).logprobs.mean().neg().backward()
        assert all("lora_" in n and p.grad is not None for n, p in trained.items())
        optimizer.step()
        optimizer.zero_grad()
    moved_to = logprobs(model, layout)
    assert moved_to.mean() > base.mean() + 0.1, "it learned"
    with reference_mode(model) as reference:
        assert torch.equal(logprobs(reference, layout), base)
    torch.testing.assert_close(logprobs(merged(model), layout), moved_to, atol=2e-5, rtol=0)


def test_rslora_is_lora_scaled_by_the_root_of_the_rank(kind):
    """Rank 4, alpha 8: 8 / 4 = 2 against 8 / sqrt(4) = 4."""
    for adapter, expected in (("lora", 2.0), ("rslora", 4.0), ("dora", 2.0)):
        module = add_lora(tiny_models.load(kind), LoraSettings(kind=adapter, rank=4, alpha=8.0), seed=0).module
        assert {m.scaling["default"] for m in module.modules() if hasattr(m, "lora_A")} == {expected}


def test_dora_beside_stacked_experts_is_refused_and_fits_the_attention_alone(kind):
    del kind
    with pytest.raises(ConfigError, match=r"training\.lora\.kind=dora has no form for experts") as info:
        add_lora(tiny_models.load(STACKED), LoraSettings(kind="dora", rank=2), seed=0)
    assert "lora or rslora" in str(info.value) and "\n" not in str(info.value)
    for settings in (LoraSettings(rank=2), LoraSettings(kind="dora", rank=2, target_modules=".*self_attn.o_proj")):
        assert has_adapter(add_lora(tiny_models.load(STACKED), settings, seed=0))
