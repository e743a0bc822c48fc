"""Every check of the model passes on a sound one and fails on the fault that it is for."""

import dataclasses

import pytest
import torch
from torch import nn
from training_examples import make_trees

import tiny_models
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.heads import new_reward_head
from fairlead.train.preflight_model import (
    check_adapter,
    check_head,
    check_model,
    check_positions,
    check_precision,
    check_tied,
    check_trainable,
    check_truncation,
    check_vocabulary,
)

TREES = make_trees("sft")


def lora(kind="llama"):
    return add_lora(tiny_models.load(kind), LoraSettings(rank=2), seed=0)


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_sound_models_pass(kind):
    model = tiny_models.load(kind)
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    assert [c.name for c in check_model(model, TREES) if not c.is_passed] == []
    for name, parameter in model.module.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, before[name]), name


def test_an_adapter_passes_and_is_left_as_it_was():
    model = lora()
    before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    checks = check_model(model, TREES)
    assert [c.name for c in checks if not c.is_passed] == [] and checks[-1].name == "the adapter is attached"
    assert all(torch.equal(p, before[n]) for n, p in model.module.named_parameters())


def test_an_adapter_that_nothing_reads_fails():
    model = lora()
    model.module.base_model.disable_adapter_layers()
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(
            "lora_" in name
        )  # switching off also froze them: the fault is to train them all the same
    assert not check_adapter(model, TREES).is_passed
    assert not check_trainable(model, TREES).is_passed


def test_a_trained_part_outside_the_graph_fails():
    model = tiny_models.load("llama")
    model.module.extra = nn.Linear(2, 2)
    check = check_trainable(model, TREES)
    assert not check.is_passed and check.found == 2 and "extra.weight" in check.limit


def test_nothing_to_train_fails():
    model = tiny_models.load("llama")
    model.module.requires_grad_(False)
    model.module.get_submodule("model.norm").weight.requires_grad_(True)
    assert check_trainable(model, TREES).is_passed
    model.module.requires_grad_(False)
    model.module.lm_head.weight.requires_grad_(True)
    assert check_trainable(model, TREES).is_passed


def test_mixed_or_low_precision_fails():
    assert check_precision(tiny_models.load("llama")).is_passed
    model = tiny_models.load("llama")
    model.module.get_submodule("model.norm").to(torch.bfloat16)
    assert not check_precision(model).is_passed
    assert not check_precision(tiny_models.load("llama", dtype=torch.bfloat16)).is_passed


def test_tied_weights_that_came_apart_fail():
    model = tiny_models.load("qwen2")
    assert check_tied(model).is_passed
    model.module.lm_head.weight = nn.Parameter(model.module.lm_head.weight.detach().clone())
    assert not check_tied(model).is_passed


def test_a_token_without_an_embedding_fails():
    tree = TREES[0]
    branch = dataclasses.replace(tree.branches[0], token_ids=tree.branches[0].token_ids * 0 + tiny_models.VOCABULARY)
    model = tiny_models.load("llama")
    assert check_vocabulary(model, TREES).is_passed
    assert not check_vocabulary(model, [*TREES, dataclasses.replace(tree, branches=(branch,))]).is_passed


def test_most_rows_dropped_fails():
    assert check_truncation(5, 5).is_passed
    assert not check_truncation(6, 5).is_passed


def test_rows_beyond_the_positions_fail():
    tree, model = TREES[0], tiny_models.load("llama")
    ids = tree.branches[0].token_ids.repeat(9)[: tiny_models.MAX_POSITIONS + 1]
    assert len(ids) == tiny_models.MAX_POSITIONS + 1 and model.max_positions == tiny_models.MAX_POSITIONS

    def of(tokens):
        return dataclasses.replace(tree, branches=(dataclasses.replace(tree.branches[0], token_ids=tokens, kept=None),))

    assert check_positions(model, [*TREES, of(ids[:-1])]).is_passed
    assert check_positions(model, [*TREES, of(ids)]).found == len(ids)
    assert not check_positions(model, [*TREES, of(ids)]).is_passed
    wide = dataclasses.replace(of(ids[:40]), branches=of(ids[:40]).branches * 3)
    assert check_positions(model, [wide]).is_passed, "siblings begin at the same position"


def test_a_head_without_a_gradient_fails():
    model = new_reward_head(tiny_models.load("llama"), seed=0)
    assert check_head(model, make_trees("dpo")).is_passed
    assert all(p.grad is None for p in model.parameters())
    model.head.weight.requires_grad_(False)
    assert not check_head(model, make_trees("dpo")).is_passed
    model.base.module.requires_grad_(False)
    assert not check_head(model, make_trees("dpo")).is_passed
