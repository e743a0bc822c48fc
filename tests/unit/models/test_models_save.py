"""Saved policies load in plain transformers; checkpoints survive a kill at any moment; heads come back as they were."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny_models
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.checkpoint import save_policy, weights_name
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.text import Branch, Tree, pack_trees


def plain_logits(folder):
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return module(input_ids=torch.tensor([[1, 9, 8, 7, 30]])).logits


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_a_saved_policy_is_a_plain_model_folder(kind, tmp_path):
    model, tokenizer = tiny_models.load(kind), load_tokenizer(str(tiny_models.folder(kind)))
    save_policy(model, tokenizer, tmp_path)
    assert torch.equal(plain_logits(tmp_path), plain_logits(tiny_models.folder(kind)))
    config = json.loads((tmp_path / "config.json").read_text())
    assert "fairlead" not in json.dumps(config)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert (
        again.chat_template == tokenizer.chat_template
        and again("once upon")["input_ids"] == tokenizer("once upon")["input_ids"]
    )
    assert load_policy(str(tmp_path)).hidden_size == model.hidden_size
    model.hidden(
        pack_trees([Tree(prompt_ids=np.array([1, 7]), branches=(Branch(token_ids=np.array([8])),))])
    )  # it can be used on


def test_a_saved_adapter_is_merged_in(tmp_path):
    model = add_lora(tiny_models.load("llama"), LoraSettings(rank=2, alpha=4.0), seed=0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.02)
    layout = pack_trees([Tree(prompt_ids=np.array([1, 9, 8]), branches=(Branch(token_ids=np.array([7, 30])),))])
    with torch.no_grad():
        before = model.logprobs(layout).logprobs
        save_policy(model, tiny_models.make_tokenizer(), tmp_path)
        after = load_policy(str(tmp_path)).logprobs(layout).logprobs
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    expected = plain_logits(tmp_path).log_softmax(-1)[0, [2, 3], [7, 30]]
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


def test_the_name_of_weights_is_that_of_their_bytes(tmp_path):
    model, tokenizer = tiny_models.load("llama"), tiny_models.make_tokenizer()
    for name in ("a", "b"):
        save_policy(model, tokenizer, tmp_path / name)
    (tmp_path / "b" / "README.md").write_text("another place, another note", encoding="utf-8")
    assert weights_name(tmp_path / "a") == weights_name(tmp_path / "b")
    with torch.no_grad():
        model.module.get_submodule("model.norm").weight[0] += 1e-3
    save_policy(model, tokenizer, tmp_path / "c")
    assert weights_name(tmp_path / "c") != weights_name(tmp_path / "a")
