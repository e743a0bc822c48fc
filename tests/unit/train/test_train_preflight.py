"""Every preflight check passes on sound trees and models and fails on the fault that it is for."""

import numpy as np
import pytest
import torch
from training_examples import NO_PROMPT, make_trees

import tiny_models
from fairlead.core.errors import TrainError
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.core.sections import LEARNING_RATE_GATES
from fairlead.core.services import Services
from fairlead.engine.local import LocalEngine
from fairlead.models.heads import new_reward_head
from fairlead.models.load import CausalModel
from fairlead.text import Branch, Encoded, Tree, pack_trees
from fairlead.train import preflight
from fairlead.train.forward import PolicyLogprobs, annotate
from fairlead.train.preflight import (
    check_appends,
    check_bos,
    check_budget,
    check_cuts,
    check_dropout,
    check_layout,
    check_masks,
    check_prompts,
    check_reference,
    check_sampling,
    check_scores,
    check_terminators,
    preflight_table,
    require_passed,
    sentence,
)
from fairlead.train.preflight_stage import Start, conclude, imitation_checks, refuse_rows


def row(*ids, kept=None):
    return Tree(
        prompt_ids=NO_PROMPT,
        branches=(Branch(token_ids=np.array(ids), kept=None if kept is None else np.array(kept, dtype=bool)),),
    )


def leaky(model, *, share=0.1):
    """Every token gets a share of all tokens of the row: what an attention without isolation does."""
    layer = model.backbone.get_submodule("layers.0.mlp")
    layer.register_forward_hook(lambda module, args, output: output + share * output.mean(1, keepdim=True))
    return model


def test_masks():
    assert check_masks(make_trees("sft")).is_passed
    check = check_masks([*make_trees("sft"), row(1, 7, 5, kept=[0, 0, 0])])
    assert not check.is_passed and check.found == 1


def test_terminators():
    assert check_terminators(make_trees("sft"), (2, 5)).is_passed
    assert check_terminators(make_trees("dpo"), (2, 5)).is_passed
    assert not check_terminators(make_trees("sft"), (2,)).is_passed
    untrained = [row(1, 7, 5, kept=[0, 1, 0])]
    assert not check_terminators(untrained, (5,)).is_passed, "it is there, but it is not learned"
    assert not check_terminators([row(1, 7, 8), row(1, 7, 8), row(1, 7, 5)], (5,)).is_passed
    assert check_terminators([row(1, 7, 8), row(1, 7, 8), row(1, 5)], (5,), max_length=3).is_passed, (
        "cut ones cannot end"
    )


def test_bos():
    assert check_bos(make_trees("sft"), 1).is_passed and check_bos(make_trees("dpo"), 1).is_passed
    assert not check_bos([row(7, 8)], 1).is_passed, "none"
    assert not check_bos([row(1, 1, 8)], 1).is_passed, "two"
    assert check_bos([row(7, 8)], None).is_passed, "the tokenizer has none"


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_layouts(kind):
    trees = make_trees("dpo")
    assert [c.is_passed for c in check_layout(tiny_models.load(kind), trees)] == [True, True]


def test_layouts_of_a_model_that_leaks():
    assert [c.is_passed for c in check_layout(leaky(tiny_models.load("llama")), make_trees("dpo"))] == [False, False]


def rounding(model, trees, *, times):
    """The model's numbers differ from layout to layout by so many times what bf16 does to them, as a GPU's products do."""
    plain = CausalModel.logprobs

    def logprobs(self, layout, **options):
        out = plain(self, layout, **options)
        if self.arithmetic.precision == "fp32":
            return out
        noise = torch.sin(torch.arange(len(out.logprobs)) * 7.0 + len(layout.token_ids))
        return out._replace(logprobs=out.logprobs + times * size * noise)

    model.set_precision("bf16")
    low = plain(model, pack_trees(trees)).logprobs
    model.set_precision("fp32")
    size = float((low - plain(model, pack_trees(trees)).logprobs).abs().max().detach())
    model.set_precision("bf16")
    return logprobs


def test_rounding_in_bf16_is_no_leak_and_a_leak_is_no_rounding(monkeypatch):
    """In fp32 a gap of 2e-4 nats is too much; here products of another shape give another last bit of 8."""
    trees = make_trees("dpo")
    sound, leaking = tiny_models.load("llama"), leaky(tiny_models.load("llama"), share=3.0)
    monkeypatch.setattr(CausalModel, "logprobs", rounding(sound, trees[:4], times=1.0))
    checks = check_layout(sound, trees)
    assert [c.is_passed for c in checks] == [True, True] and min(c.found for c in checks) > 2e-4
    assert sound.arithmetic.precision == "bf16", "it was only looked at in fp32"
    leaking.set_precision("bf16")
    assert [c.is_passed for c in check_layout(leaking, trees)] == [False, False]


def test_scores():
    trees = make_trees("dpo")
    assert check_scores(new_reward_head(tiny_models.load("llama"), seed=0), trees).is_passed
    assert not check_scores(new_reward_head(leaky(tiny_models.load("llama")), seed=0), trees).is_passed


def test_reference():
    model = tiny_models.load("llama")
    trees = annotate(make_trees("dpo"), "ref_logprobs", PolicyLogprobs(model), max_tokens=100)
    assert check_reference(model, trees).is_passed
    assert not check_reference(model, trees, temperature=0.9).is_passed
    with torch.no_grad():
        next(model.module.parameters()).mul_(1.01)
    assert not check_reference(model, trees).is_passed
    nan = annotate(
        make_trees("dpo"),
        "ref_logprobs",
        lambda batch: torch.full((len(batch.layout.kept_target),), torch.nan),
        max_tokens=100,
    )
    assert not check_reference(model, nan).is_passed, "NaN is never near"


@pytest.mark.parametrize(
    ("sampled_at", "is_sound"),
    [({"temperature": 0.8}, True), ({"temperature": 1.0}, False), ({"temperature": 0.8, "top_k": 5}, False)],
)
def test_sampling(sampled_at, is_sound):
    model, request = tiny_models.load("llama"), GenerateRequest(key="p", token_ids=(1, 9, 8), num_samples=4)
    samples = LocalEngine(model).generate([request], Sampling(max_new_tokens=8, **sampled_at))
    branches = tuple(Branch(token_ids=s.token_ids, arrays={"sampling_logprobs": s.sampling_logprobs}) for s in samples)
    checks = check_sampling(model, [Tree(prompt_ids=np.array([1, 9, 8]), branches=branches)], temperature=0.8)
    assert [c.is_passed for c in checks] == [is_sound, is_sound]


def test_dropout():
    model = tiny_models.load("gpt2")
    assert check_dropout(model, make_trees("sft")).is_passed
    model.module.train()
    torch.manual_seed(0)
    assert not check_dropout(model, make_trees("sft")).is_passed


def test_the_first_failed_check_stops_the_stage_in_one_line():
    checks = [check_masks(make_trees("sft")), check_bos([row(7, 8)], 1), check_masks([row(1, 7, kept=[0, 0])])]
    require_passed("sft", checks[:1])
    with pytest.raises(TrainError) as info:
        require_passed("sft", checks)
    assert "sft: preflight: exactly one BOS" in str(info.value) and "\n" not in str(info.value)
    assert [r[1] for r in preflight_table(checks).rows] == ["passed", "failed", "failed"]


def test_large_data_are_looked_at_in_a_spread_sample(monkeypatch):
    monkeypatch.setattr(preflight, "_MOST_TREES", 5)
    asked = []

    class Rows(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    rows = Rows([row(1, 7, 5)] * 101)
    checks = [check_masks(rows), check_terminators(rows, (5,)), check_bos(rows, 1)]
    assert asked == [0, 25, 50, 75, 100] * 3
    assert all(c.is_passed and c.limit.endswith("(in 5 of 101 rows, evenly spread)") for c in checks)
    rows[50] = row(7, 7, 9, kept=[0, 0, 0])
    assert [c.found for c in (check_masks(rows), check_bos(rows, 1))] == [1, 1]
    assert check_terminators(rows, (5,)).found == 0.8
    assert preflight.spread(rows[:5]) == (rows[:5], "")


def asked(*ids, prompt=(1,)):
    """A pair-like row: a prompt of its own, one reply."""
    return Tree(prompt_ids=np.array(prompt), branches=(Branch(token_ids=np.array(ids)),))


def test_prompts_that_are_learned():
    assert check_prompts(make_trees("sft"), 1).is_passed and check_prompts(make_trees("dpo"), 1).is_passed
    whole = [row(1, 7, 5, kept=[0, 1, 1])] * 3
    check = check_prompts([*whole, *[row(1, 8, 7, 5, kept=[0, 0, 1, 1])] * 2], 1)
    assert not check.is_passed and check.found == 0.6
    assert check_prompts([*whole, *[row(1, 8, 7, 5, kept=[0, 0, 1, 1])] * 3], 1).is_passed, (
        "half of them may be odd ones"
    )
    assert check_prompts(whole, 1, promptless=1.0).is_passed, "they ask nothing"
    assert not check_prompts([asked(7, 5)] * 3, 1).is_passed, "a BOS is no prompt"
    assert check_prompts([asked(7, 5, prompt=(1, 9))] * 3, 1).is_passed


def test_templates_that_do_not_append():
    assert check_appends(Encoded(num_looked=64)).is_passed
    check = check_appends(Encoded(num_looked=64, num_rewritten=1))
    assert check.result == "failed" and "64 rows" in check.limit


def test_cuts_and_the_token_budget_warn():
    trees = make_trees("sft")
    assert check_cuts(Encoded(trees=trees * 10, num_truncated=7)).result == "passed"
    assert check_cuts(Encoded(trees=trees * 10, num_truncated=8)).result == "warned"
    longest = max(t.num_tokens for t in trees)
    assert check_budget(trees, longest).result == "passed"
    check = check_budget(trees, longest - 1)
    assert check.result == "warned" and check.found == 1 and f"the longest has {longest}" in check.limit
    require_passed("sft", [check])
    assert [r[1] for r in preflight_table([check]).rows] == ["warned"] and preflight_table([check]).columns[
        -1
    ] == "what to do"
    assert "is worth a look" in sentence("sft", check)


def start_of(trees, **changes):
    fields = {"stage": "sft", "model": tiny_models.load("llama"), "rows": Encoded(trees=trees, num_looked=3), "bos_token_id": 1,
              "stop_token_ids": (5,), "max_length": 64, "max_tokens": 64}  # fmt: skip
    return Start(**{**fields, **changes})


@pytest.mark.parametrize("heldout", [False, True])
def test_rows_that_fail_are_refused_without_a_forward(heldout):
    """A token that has no embedding would end a forward in a traceback; also among what is only measured on."""
    bad = [row(1, 7, tiny_models.VOCABULARY, 5, kept=[0, 0, 1, 1])]
    start = start_of(make_trees("sft"), heldout=bad) if heldout else start_of([*make_trees("sft"), *bad])
    told = []
    with pytest.raises(TrainError, match="sft: preflight: tokens have embeddings=96 failed"):
        refuse_rows(start, Services(work=None, on_preflight=told.append))
    assert [r[0] for r in told[0].rows if r[1] == "failed"] == ["tokens have embeddings"]
    assert [c.name for c in imitation_checks(start) if c.result == "failed"] == ["tokens have embeddings"]
    told.clear()
    refuse_rows(start_of(make_trees("sft")), Services(work=None, on_preflight=told.append))
    assert told == [], "sound rows are told with all checks, once"


def test_warnings_are_said_once_and_the_rate_is_left_to_its_verdict():
    said, rate = [], LEARNING_RATE_GATES["sft"].judge(4.0, n=1, note="4 times")
    start = start_of(make_trees("sft"), max_tokens=16, rate=rate)
    found = conclude(start, imitation_checks(start), Services(work=None, say=said.append))
    assert len(said) == 1 and "rows fit the token budget" in said[0]
    assert [r[0] for r in found.table.rows if r[1] == "warned"] == [
        "rows fit the token budget",
        "the learning rate is usual",
    ]
    assert found.verdicts == (rate,)
    usual = conclude(
        start_of(make_trees("sft"), rate=LEARNING_RATE_GATES["sft"].judge(1.0, n=1)), [], Services(work=None)
    )
    assert usual.verdicts == ()
