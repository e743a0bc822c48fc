"""Every preflight check that a stage makes has a planted fault that it catches, and a line in the docs."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_examples import NO_PROMPT, make_trees

import tiny_models
from fairlead.core.sections import TrainSection, judge_learning_rate
from fairlead.core.services import Services
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.heads import new_reward_head
from fairlead.text import Branch, Encoded, Tree
from fairlead.train.forward import PolicyLogprobs, annotate
from fairlead.train.preflight_stage import (
    Start,
    comparison_checks,
    conclude,
    imitation_checks,
    reward_checks,
    rollout_checks,
)

DOCS = Path(__file__).parents[3] / "docs" / "stages" / "training.md"


def start(**changes):
    """A sound start of SFT on the tiny Llama."""
    fields = {"stage": "sft", "model": tiny_models.load("llama"), "rows": Encoded(trees=make_trees("sft"), num_looked=3), "bos_token_id": 1,
              "stop_token_ids": (5,), "max_length": 64, "max_tokens": 64}  # fmt: skip
    return Start(**{**fields, **changes})


def rows(*trees, **counts):
    return Encoded(trees=list(trees), **{"num_looked": 3, **counts})


def row(*ids, kept):
    return Tree(prompt_ids=NO_PROMPT, branches=(Branch(token_ids=np.array(ids), kept=np.array(kept, dtype=bool)),))


def imitating(**changes):
    return imitation_checks(start(**changes))


def changed(kind, change):
    """SFT of a model that `change` spoils."""
    model = tiny_models.load(kind)
    change(model)
    return imitating(model=model)


def leak(model):
    """Every token gets a share of all tokens of the row: what an attention without isolation does."""
    layer = model.backbone.get_submodule("layers.0.mlp")
    layer.register_forward_hook(lambda module, args, output: output + 0.1 * output.mean(1, keepdim=True))


def drop_out(model):
    model.module.train()
    torch.manual_seed(0)


def thaw(model):
    """A forward that switches a frozen weight on again, as helpers for recomputing do."""
    weight = model.module.get_submodule("model.norm").weight
    weight.requires_grad_(False)

    def switch_on(module, args):
        if torch.is_grad_enabled():
            weight.requires_grad_(True)

    model.backbone.register_forward_pre_hook(switch_on)


def untie(model):
    model.module.lm_head.weight = nn.Parameter(model.module.lm_head.weight.detach().clone())


def halve(model):
    model.module.get_submodule("model.norm").to(torch.bfloat16)


def unread_adapter():
    """The adapter is switched off, and its weights are trained all the same."""
    model = add_lora(tiny_models.load("llama"), LoraSettings(rank=2), seed=0)
    model.module.base_model.disable_adapter_layers()
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return imitating(model=model)


def compared(*, spoil=False):
    """DPO whose reference is the start, or another model."""
    model = tiny_models.load("llama")
    trees = annotate(make_trees("dpo"), "ref_logprobs", PolicyLogprobs(model), max_tokens=100)
    if spoil:
        with torch.no_grad():
            next(model.module.parameters()).mul_(1.01)
    return comparison_checks(start(stage="dpo", model=model, rows=Encoded(trees=trees, num_looked=3)), trees)


def scored(*, spoil=lambda model: None):
    model = new_reward_head(tiny_models.load("llama"), seed=0)
    spoil(model)
    return reward_checks(
        start(stage="rewards", model=model.base, rows=Encoded(trees=make_trees("dpo"), num_looked=3)), model
    )


def freeze_head(model):
    model.head.weight.requires_grad_(False)


def sampled(*, temperature=1.0):
    """PPO whose engine is the trainer's model, or one that samples at another temperature."""
    model, reward = tiny_models.load("llama"), new_reward_head(tiny_models.load("llama"), seed=0)
    trees = annotate(make_trees("ppo"), "ref_logprobs", PolicyLogprobs(model), max_tokens=100)
    trees = annotate(trees, "sampling_logprobs", PolicyLogprobs(model, temperature=temperature), max_tokens=100)
    return rollout_checks(
        start(stage="ppo", model=model, rows=Encoded(trees=trees)), reward, temperature=1.0, is_first=True
    )


def rated(learning_rate):
    training = TrainSection(learning_rate=learning_rate)
    verdict = judge_learning_rate(training, stage="sft", kind="sft", num_parameters=10**9, reasons={})
    return conclude(start(rate=verdict), [], Services(work=None)).table.rows


LONG = make_trees("sft")[0]
LONG = dataclasses.replace(LONG, branches=(dataclasses.replace(LONG.branches[0], kept=None,
                           token_ids=np.resize(np.concatenate([[1], np.arange(7, 20)]), tiny_models.MAX_POSITIONS + 1)),))  # fmt: skip
FAULTS = {
    "masks are not empty": lambda: imitating(rows=rows(*make_trees("sft"), row(1, 7, 5, kept=[0, 0, 0]))),
    "prompts are not learned": lambda: imitating(rows=rows(row(1, 7, 5, kept=[0, 1, 1]))),
    "exactly one BOS": lambda: imitating(rows=rows(row(1, 1, 7, 5, kept=[0, 0, 1, 1]))),
    "the template appends": lambda: imitating(rows=rows(*make_trees("sft"), num_rewritten=1)),
    "terminators are trained": lambda: imitating(stop_token_ids=(2,)),
    "tokens have embeddings": lambda: imitating(rows=rows(row(1, 7, tiny_models.VOCABULARY, 5, kept=[0, 0, 1, 1]))),
    "rows fit the model": lambda: imitating(rows=rows(*make_trees("sft"), LONG), max_length=100),
    "most rows fit": lambda: imitating(rows=rows(*make_trees("sft"), num_dropped=8)),
    "few rows are cut": lambda: imitating(rows=rows(*make_trees("sft"), num_truncated=3)),
    "rows fit the token budget": lambda: imitating(max_tokens=16),
    "forward is repeatable": lambda: changed("gpt2", drop_out),
    "packed equals unpacked": lambda: changed("llama", leak),
    "shared prefix equals plain": lambda: scored(spoil=lambda model: leak(model.base)),
    "what trains gets gradients": lambda: changed("llama", thaw),
    "trained weights are fp32": lambda: changed("llama", halve),
    "tied weights are one": lambda: changed("qwen2", untie),
    "the adapter is attached": unread_adapter,
    "policy equals reference": lambda: compared(spoil=True),
    "reward is free of padding and batch mates": lambda: scored(spoil=lambda model: leak(model.base)),
    "the head gets a gradient": lambda: scored(spoil=freeze_head),
    "engine and trainer logprobs agree": lambda: sampled(temperature=0.8),
    "importance ratio is 1": lambda: sampled(temperature=0.8),
}  # fmt: skip
RATE = "the learning rate is usual"


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(name):
    found = {check.name: check for check in FAULTS[name]()}
    assert not found[name].is_passed
    assert found[name].remedy


def test_a_rate_outside_its_band_is_caught():
    assert [row[:2] for row in rated(3e-3)] == [(RATE, "warned")]
    assert [row[:2] for row in rated(2e-5)] == [(RATE, "passed")]


def test_every_check_of_every_kind_of_stage_has_a_fault_and_sound_starts_pass():
    lora = add_lora(tiny_models.load("llama"), LoraSettings(rank=2), seed=0)
    checks = [*imitating(), *imitating(model=lora), *compared(), *scored(), *sampled()]
    assert {check.name for check in checks} == FAULTS.keys()
    assert [check.name for check in checks if not check.is_passed] == []


def test_the_docs_list_the_same_checks():
    text = DOCS.read_text(encoding="utf-8").partition("## Preflight")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| ([^|]+?) \| [^|]+ \| [^|]+ \|$", text, flags=re.MULTILINE)[1:]
    assert {name for cell in cells for name in cell.split(", ")} == {*FAULTS, RATE}
