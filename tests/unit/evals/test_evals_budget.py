"""The token budget of an evaluation: found by itself, and without influence on what is measured."""

import numpy as np
import pytest

import tiny_models
from fairlead.core.errors import ConfigError
from fairlead.evals.capability import scoring_budget, text_logprobs
from fairlead.evals.config import EvalsConfig
from fairlead.models.load import load_tokenizer
from fairlead.text import Branch, ChatText, Tree
from fairlead.train import memory

TEXTS = ["a bad cab", "bead", "a cab faced a bad head", "dad"]


def test_what_is_measured_does_not_depend_on_the_budget():
    model = tiny_models.load("llama")
    chat = ChatText(load_tokenizer(str(tiny_models.folder("llama"))), template=None, name="tiny")
    found = [text_logprobs(model, chat, TEXTS, config=EvalsConfig(max_tokens_per_microbatch=budget), heed=lambda: None)
             for budget in (16, "auto")]  # fmt: skip
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)
    assert found[0][1].tolist() == found[1][1].tolist()


def test_auto_takes_what_memory_has_room_for_and_names_its_key_when_there_is_none(monkeypatch):
    model = tiny_models.load("llama")
    trees = [Tree(prompt_ids=np.arange(6, 26), branches=(Branch(token_ids=np.arange(6, 16)),))]
    assert scoring_budget(model, trees, EvalsConfig(max_tokens_per_microbatch=40)) == 40
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert scoring_budget(model, trees, EvalsConfig()) == memory.MOST_TOKENS
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(
        ConfigError, match=r"evals\.max_tokens_per_microbatch=auto finds no room for the longest row: 30 tokens"
    ):
        scoring_budget(model, trees, EvalsConfig())
