"""Activation checkpointing: the same loss and gradients bit for bit, from fewer kept activations, with dropout off as before."""

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, OpenAIGPTConfig, OPTConfig

import tiny_models
from fairlead.core.errors import ConfigError
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.load import CausalModel, load_policy
from fairlead.models.recompute import recompute_activations
from fairlead.text import Branch, Tree, pack_trees


def some_layout():
    rng = np.random.default_rng(0)
    trees = []
    for prompt, branches in ((9, (12, 7)), (4, (20,)), (6, (5, 5, 5))):
        parts = tuple(Branch(token_ids=rng.integers(6, 96, n)) for n in branches)
        trees.append(Tree(prompt_ids=rng.integers(6, 96, prompt), branches=parts))
    return pack_trees(trees)


def train_once(model: CausalModel):
    """Logprobs, gradients, and the bytes that the forward keeps besides the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.module.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        found = model.logprobs(some_layout()).logprobs
    found.sum().backward()
    return (
        found.detach(),
        {n: p.grad for n, p in model.module.named_parameters() if p.grad is not None},
        sum(kept.values()),
    )


def assert_same_with_less(plain, model, *, share):
    expected, grads, kept = train_once(plain)
    found, found_grads, found_kept = train_once(model)
    assert torch.equal(found, expected)
    assert grads.keys() == found_grads.keys() and grads
    assert all(torch.equal(found_grads[name], grad) for name, grad in grads.items())
    assert found_kept < share * kept, (found_kept, kept)


@pytest.mark.parametrize("kind", [*tiny_models.KINDS, "mamba", "jamba", "rwkv"])
def test_bit_for_bit_from_fewer_activations(kind):
    model = tiny_models.load(kind)
    assert recompute_activations(model) == model.config.num_hidden_layers
    assert_same_with_less(tiny_models.load(kind), model, share=0.75)


def with_adapter():
    model = add_lora(tiny_models.load("llama"), LoraSettings(rank=4), seed=0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    return model


def test_with_an_adapter():
    """Its embeddings are frozen: the reentrant kind would find no input with a gradient, and the first layer would learn nothing."""
    model = with_adapter()
    recompute_activations(model)
    assert_same_with_less(with_adapter(), model, share=0.75)


def test_dropout_stays_off(tmp_path):
    """OPT's layers apply dropout themselves where they are in training, which is the flag that checkpointing needs."""
    config = OPTConfig(vocab_size=96, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
                       max_position_embeddings=64, dropout=0.5, attention_dropout=0.5, pad_token_id=0, bos_token_id=1, eos_token_id=2)  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_policy(str(tmp_path))
    recompute_activations(model)
    assert_same_with_less(load_policy(str(tmp_path)), model, share=0.75)
    assert load_policy(str(tmp_path)).config.dropout == 0.5, "the saved config is the user's"


def test_without_gradient_nothing_is_recorded():
    model = tiny_models.load("llama")
    recompute_activations(model)
    with torch.no_grad():
        assert not model.logprobs(some_layout()).logprobs.requires_grad


def test_an_architecture_without_such_layers_is_refused(tmp_path):
    config = OpenAIGPTConfig(vocab_size=96, n_embd=32, n_layer=1, n_head=4, n_positions=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"training\.activation_checkpointing=True has no layers to work on in openai-gpt"
    ):
        recompute_activations(load_policy(str(tmp_path)))
