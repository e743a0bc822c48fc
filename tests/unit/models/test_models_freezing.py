"""Frozen weights: chosen by whole names, no gradient is computed for them, and what cannot be meant is refused."""

import numpy as np
import pytest

import tiny_models
from fairlead.core.errors import ConfigError
from fairlead.core.sections import LoraSection, TrainSection
from fairlead.models.freezing import freeze, freeze_embeddings
from fairlead.models.heads import new_reward_head
from fairlead.text import Branch, Tree, pack_trees
from fairlead.train.preflight_model import check_precision, check_trainable

IDS = np.random.default_rng(0).integers(6, tiny_models.VOCABULARY, (3, 5))
TREE = Tree(prompt_ids=IDS[0], branches=(Branch(token_ids=IDS[1]), Branch(token_ids=IDS[2])))


def frozen_names(model):
    return {n for n, p in model.module.named_parameters() if not p.requires_grad}


def gradients(model):
    model.logprobs(pack_trees([TREE])).logprobs.sum().backward()
    return {n for n, p in model.module.named_parameters() if p.grad is not None}


def test_what_is_named_is_frozen_and_the_rest_trains():
    model = tiny_models.load("llama")
    everything = {n for n, _ in model.module.named_parameters()}
    number = freeze(model, [r"model\.layers\.0\..*", r"model\.norm\.weight"])
    expected = {n for n in everything if n.startswith("model.layers.0.")} | {"model.norm.weight"}
    assert frozen_names(model) == expected and len(expected) > 5
    assert number == sum(p.numel() for n, p in model.module.named_parameters() if n in expected)
    assert gradients(model) == everything - expected
    assert check_trainable(model, [TREE]).is_passed and check_precision(model).is_passed


def test_a_name_is_matched_whole():
    model = tiny_models.load("llama")
    freeze(model, [r"model\.layers\.[01]\.mlp\.up_proj\.weight"])
    assert len(frozen_names(model)) == 2
    with pytest.raises(ConfigError, match="matches no parameter"):
        freeze(model, [r"layers\.0"])
    freeze(model, [r"model\.norm\.weight|model\.layers\.0"])
    assert len(frozen_names(model)) == 3, "the beginning of a name is not the name"


@pytest.mark.parametrize("pattern", [r"model\.embed_token\.weight", r"model\.layer\.0\.mlp\.up_proj\.weight", "nosuch"])
def test_a_pattern_that_matches_nothing_is_refused_with_names(pattern):
    with pytest.raises(ConfigError, match=r"training\.freeze=.* matches no parameter") as info:
        freeze(tiny_models.load("llama"), [r"model\.norm\.weight", pattern])
    assert "model.embed_tokens.weight" in str(info.value)
    assert ("did you mean" in str(info.value)) == (pattern != "nosuch")


def test_freezing_everything_is_refused():
    with pytest.raises(ConfigError, match="freezes everything"):
        freeze(tiny_models.load("llama"), [".*"])


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_frozen_embeddings_have_no_gradient_and_a_tied_head_is_frozen_with_them(kind):
    model = tiny_models.load(kind)
    table, head = model.causal_lm.get_input_embeddings().weight, model.causal_lm.get_output_embeddings().weight
    assert freeze_embeddings(model) == table.numel()
    found = gradients(model)
    assert table.grad is None and found
    assert (head.grad is None) == (head is table), "a head of its own goes on training"
    assert check_trainable(model, [TREE]).is_passed


def test_a_tied_head_is_found_under_its_own_name():
    model = tiny_models.load("qwen2")
    freeze(model, [r"lm_head\.weight"])
    assert not model.causal_lm.get_input_embeddings().weight.requires_grad


def test_frozen_embeddings_of_a_reward_model_do_not_train():
    base = tiny_models.load("llama")
    model = new_reward_head(base, seed=0)
    assert freeze_embeddings(base) == tiny_models.VOCABULARY * base.hidden_size
    model.scores(pack_trees([TREE])).sum().backward()
    assert base.causal_lm.get_input_embeddings().weight.grad is None
    assert all(p.grad is not None for n, p in base.backbone.named_parameters() if "embed" not in n)


def test_recipes_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match=r"freeze=a\( is no regular expression"):
        TrainSection(freeze=("a(",))
    with pytest.raises(ValueError, match="is not read with lora"):
        TrainSection(freeze=("a",), lora=LoraSection())
