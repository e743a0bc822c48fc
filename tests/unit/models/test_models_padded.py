"""Models whose sequences cannot share a row: the same numbers as plain rows, one at a time, and everything after the forward unchanged."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tiny_models
from fairlead.models.adapters import LoraSettings, add_lora, merged
from fairlead.models.checkpoint import save_policy
from fairlead.models.load import foreseen_padding, load_policy, load_tokenizer
from fairlead.models.padded import plan_rows, why_padded
from fairlead.text import Branch, Layout, Tree, pack_trees, unshare

KINDS = tiny_models.PADDED_KINDS


def tree(rng, *, prompt, branches):
    parts = tuple(
        Branch(token_ids=rng.integers(6, 96, n), kept=rng.random(n) < 0.75 if n > 1 else None) for n in branches
    )
    return Tree(prompt_ids=rng.integers(6, 96, prompt), branches=parts)


def some_trees():
    """Lengths from 3 to 45 tokens, so that there are several batches, out of order."""
    rng = np.random.default_rng(1)
    return [tree(rng, prompt=p, branches=b) for p, b in [(4, (9, 3, 11)), (1, (2,)), (12, (33, 7)), (3, (1, 1))]]


def logprobs_one_by_one(module, trees):
    """[K] by plain transformers, a row of its own for every completion."""
    picked = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.from_numpy(np.concatenate([tree.prompt_ids, branch.token_ids]))
            hidden = getattr(module, module.base_model_prefix)(input_ids=ids[None], use_cache=False).last_hidden_state
            logps = module.get_output_embeddings()(hidden)[0].log_softmax(-1)
            kept = range(len(branch.token_ids)) if branch.kept is None else np.flatnonzero(branch.kept)
            picked += [logps[len(tree.prompt_ids) + t - 1, branch.token_ids[t]] for t in kept]
    return torch.stack(picked)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_rows_one_by_one(kind):
    trees = some_trees()
    model, plain = tiny_models.load(kind, dtype=torch.float64), tiny_models.load_plain(kind, dtype=torch.float64)
    plain.config.rescale_every = 0  # RWKV divides its weights in place, see load.py
    found, expected = model.logprobs(pack_trees(trees)).logprobs, logprobs_one_by_one(plain, trees)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    weights = torch.from_numpy(np.random.default_rng(2).normal(size=len(found)))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    peers = dict(plain.named_parameters())
    for name, parameter in model.module.named_parameters():
        assert parameter.grad is not None, name
        expected_grad = peers[name].grad
        tolerance = 2e-5 + 2e-6 * float(expected_grad.abs().max())  # norms are fp32 in any dtype
        torch.testing.assert_close(
            parameter.grad, expected_grad, atol=tolerance, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_siblings_and_trees_never_see_each_other(kind):
    trees = some_trees()
    model, layout = tiny_models.load(kind), pack_trees(trees)
    with torch.no_grad():
        before = model.hidden(layout)
        for number, branch in ((0, 2), (2, 1), (3, 1), (2, 0)):
            in_tree = layout.tree_index == number
            changed = layout.token_ids.copy()
            changed[in_tree & (layout.branch_index == branch)] = 7
            after = model.hidden(with_ids(layout, changed))
            rows = in_tree & ((layout.branch_index == branch) if branch else np.ones(1, dtype=bool))
            torch.testing.assert_close(after[~rows], before[~rows], atol=1e-6, rtol=1e-6)
            assert (after[rows] - before[rows]).abs().max() > 1e-3


def with_ids(layout, token_ids):
    return Layout(**{**{name: getattr(layout, name) for name in Layout.__slots__}, "token_ids": token_ids})


def test_a_flat_row_would_be_wrong():
    """What the padded rows are for: a Mamba run over the flat row lets siblings see each other, whatever the positions."""
    model, layout = tiny_models.load("mamba"), pack_trees(some_trees())
    with torch.no_grad():
        flat = model.backbone(input_ids=torch.from_numpy(layout.token_ids)[None], use_cache=False).last_hidden_state[0]
        gap = (flat - model.hidden(layout)).abs().amax(1)
    assert gap[layout.tree_index == 2].max() > 0.1
    assert gap[(layout.tree_index == 0) & (layout.branch_index < 2)].max() < 1e-5, (
        "the first completion has nothing before it"
    )


def test_a_plan_holds_every_completion_once_with_its_prompt():
    layout = pack_trees([*some_trees(), Tree(prompt_ids=np.arange(6, 11), branches=())])
    plan = plan_rows(layout)
    places = np.concatenate([ids.reshape(-1) for ids in plan.token_ids])
    assert np.array_equal(places[plan.home], layout.token_ids)
    assert len(np.unique(plan.home)) == len(plan.home)
    expected = [np.concatenate([t.prompt_ids, b.token_ids]) for t in some_trees() for b in t.branches] + [
        np.arange(6, 11)
    ]
    found = sorted(tuple(row[: len(row) - (row[::-1] != 0).argmax()]) for ids in plan.token_ids for row in ids)
    assert found == sorted(tuple(path) for path in expected)
    assert len(plan.token_ids) > 1, "lengths of 3 and 45 do not share a batch"


def test_unshared_rows_have_the_same_logprobs():
    trees, model = some_trees(), tiny_models.load("jamba", dtype=torch.float64)
    with torch.no_grad():
        shared, plain = (model.logprobs(pack_trees(t)).logprobs for t in (trees, unshare(trees)))
    torch.testing.assert_close(shared, plain, atol=1e-6, rtol=1e-6)


def test_what_keeps_sequences_apart_is_told_from_facts_of_the_model():
    assert {kind: tiny_models.load(kind).why_padded for kind in tiny_models.KINDS} == dict.fromkeys(tiny_models.KINDS)
    assert {kind: tiny_models.load(kind).why_padded for kind in KINDS} == {
        **dict.fromkeys(("mamba", "mamba2", "rwkv", "jamba", "lfm2"), "keeps state across a row"),
        "bloom": "has an attention of its own",
        "doge": "makes a mask of its own",
        "phimoe": "does not tell its layers their windows",
        "nemotron": "calls its attention without a plan",
    }
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 8,
    }
    module = LlamaForCausalLM(LlamaConfig(**sizes))
    assert why_padded(type(module), module.config) is None
    module.config.layer_types = ["chunked_attention"]
    assert why_padded(type(module), module.config) == "has layers of chunked_attention"


def test_an_adapter_keeps_the_padded_rows():
    layout = pack_trees(some_trees())
    model = tiny_models.load("jamba")
    with torch.no_grad():
        before = model.logprobs(layout).logprobs
        wrapped = add_lora(model, LoraSettings(rank=2, target_modules=".*(q_proj|in_proj)"), seed=0)
        torch.testing.assert_close(wrapped.logprobs(layout).logprobs, before, atol=1e-5, rtol=0)
        torch.testing.assert_close(merged(wrapped).logprobs(layout).logprobs, before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_the_same_again(kind, tmp_path):
    """Also after a forward: RWKV's guard of fp16 would have divided weights by then."""
    layout, model = pack_trees(some_trees()), tiny_models.load(kind)
    with torch.no_grad():
        before = model.logprobs(layout).logprobs
        save_policy(model, load_tokenizer(str(tiny_models.folder(kind))), tmp_path)
        assert torch.equal(load_policy(str(tmp_path)).logprobs(layout).logprobs, before)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mamba", "jamba", "lfm2"])
def test_padding_is_foreseen_from_the_config_as_the_loaded_model_says(kind):
    assert foreseen_padding(str(tiny_models.folder(kind))) == tiny_models.load(kind).why_padded


def test_nothing_is_foreseen_of_a_folder_without_a_model(tmp_path):
    assert foreseen_padding(str(tmp_path)) is None
