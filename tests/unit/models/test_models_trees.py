"""A packed row of trees against plain transformers on padded, unshared rows: values, gradients, isolation, for every attention family."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from fairlead.models.attention import Scoring, TreeAttention, attend_by_formula, attend_masked, fused
from fairlead.text import Branch, Layout, Tree, pack_trees, unshare
from naive import attention_naive

KINDS = tiny_models.KINDS


def random_tree(rng, *, prompt, branches):
    """A tree with the given lengths; about one token in four is not read by a loss."""

    def ids(length):
        return rng.integers(6, tiny_models.VOCABULARY, length)

    parts = tuple(Branch(token_ids=ids(n), kept=rng.random(n) < 0.75 if n > 1 else None) for n in branches)
    return Tree(prompt_ids=ids(prompt), branches=parts)


def some_trees():
    """Lengths from 3 to 33 tokens, so that there are several buckets, out of order."""
    rng = np.random.default_rng(1)
    shapes = [(4, (9, 3, 11)), (1, (2,)), (12, (14, 7)), (3, (1, 1)), (5, (6, 2))]
    return [random_tree(rng, prompt=p, branches=b) for p, b in shapes]


def padded_logprobs(module, trees):
    """[K] logprobs by plain transformers: one row a completion, each with its own prompt, padded on the right, where no token looks."""
    texts = [np.concatenate([t.prompt_ids, b.token_ids]) for t in trees for b in t.branches]
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.from_numpy(text)
    logps = module(input_ids=ids, use_cache=False).logits.log_softmax(-1)
    picked, row = [], 0
    for tree in trees:
        for branch in tree.branches:
            for t, token in enumerate(branch.token_ids):
                if branch.kept is None or branch.kept[t]:
                    picked.append(logps[row, len(tree.prompt_ids) + t - 1, token])
            row += 1
    return torch.stack(picked)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_padded_rows(kind):
    trees = some_trees()
    model, plain = tiny_models.load(kind, dtype=torch.float64), tiny_models.load_plain(kind, dtype=torch.float64)
    found, expected = model.logprobs(pack_trees(trees)).logprobs, padded_logprobs(plain, trees)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)  # norms and rotations are fp32 in any dtype
    weights = torch.from_numpy(np.random.default_rng(2).normal(size=len(found)))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    peers = dict(plain.named_parameters())
    for name, parameter in model.module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(
            parameter.grad,
            peers[name].grad,
            atol=1e-4 if kind == "gemma3" else 2e-5,
            rtol=1e-5,
            msg=lambda m, name=name: f"{name}: {m}",
        )


@pytest.mark.parametrize("kind", KINDS)
def test_fp32_is_as_close_as_fp32_is(kind):
    trees = some_trees()
    found = tiny_models.load(kind).logprobs(pack_trees(trees)).logprobs
    torch.testing.assert_close(found, padded_logprobs(tiny_models.load_plain(kind), trees), atol=5e-5, rtol=0)


WINDOWS = {
    "mistral": [5, 5],
    "phi3": [6, 6],
    "gemma2": [4, None],
    "gemma3": [4, None],
    "gpt_oss": [4, None],
    "exaone4": [4, None],
    "qwen3": [None, None],
}


class Observed(TreeAttention):
    """Keeps what each layer asked for; the window of layer `blind` is ignored."""

    def __init__(self, layout, *, blind=None):
        super().__init__(layout)
        self.blind, self.seen = blind, {}

    def attend(self, module, query, key, value, scoring):
        self.seen[module.layer_idx] = scoring
        scoring = replace(scoring, window=None) if module.layer_idx == self.blind else scoring
        return super().attend(module, query, key, value, scoring)


@pytest.mark.parametrize("kind", WINDOWS)
def test_each_layer_has_its_own_window_and_it_matters(kind):
    """The comparison above would not notice a window that both sides ignore: without any one of them the numbers differ."""
    model, layout = tiny_models.load(kind), pack_trees(some_trees())

    def run(plan):
        with torch.no_grad():
            return model.run(*(torch.from_numpy(x)[None] for x in (layout.token_ids, layout.position_ids)), plan)

    plan = Observed(layout)
    expected = run(plan)
    assert [plan.seen[number].window for number in range(2)] == WINDOWS[kind]
    assert {plan.seen[number].sinks is None for number in range(2)} == {kind != "gpt_oss"}
    assert {plan.seen[number].softcap for number in range(2)} == ({2.0} if kind == "gemma2" else {None})
    for number in range(2):
        gap = (run(Observed(layout, blind=number)) - expected).abs().max()
        assert gap > 0.01 if WINDOWS[kind][number] else gap == 0


def test_the_final_softcap_is_read():
    assert tiny_models.load("gemma2").output_head().softcap == 3.0
    assert tiny_models.load("gemma3").output_head().softcap is None


@pytest.mark.parametrize("kind", KINDS)
def test_siblings_and_trees_never_see_each_other(kind):
    """Other tokens in one branch change that branch only, bit for bit; other tokens in a prompt change its tree only."""
    trees = some_trees()
    model, layout = tiny_models.load(kind), pack_trees(trees)
    with torch.no_grad():
        before = model.hidden(layout)
        for tree, branch in ((0, 2), (2, 1), (3, 1), (2, 0)):
            rows = (layout.tree_index == tree) & ((layout.branch_index == branch) if branch else np.ones(1, dtype=bool))
            changed = layout.token_ids.copy()
            changed[(layout.tree_index == tree) & (layout.branch_index == branch)] = 7
            after = model.hidden(_with_ids(layout, changed))
            assert torch.equal(after[~rows], before[~rows])
            assert not torch.equal(after[rows], before[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_does_not_see_later_ones(kind):
    layout = pack_trees(some_trees()[:1])
    model = tiny_models.load(kind)
    changed = layout.token_ids.copy()
    changed[8] = 7
    with torch.no_grad():
        before, after = model.hidden(layout), model.hidden(_with_ids(layout, changed))
    # A mixture of experts multiplies other numbers of rows when a later token goes to another expert: its rounding may differ.
    tolerance = 1e-5 if kind == "gpt_oss" else 0.0
    assert float((before[:8] - after[:8]).abs().max()) <= tolerance
    assert float((before[8:] - after[8:]).abs().max()) > 100 * tolerance


def _with_ids(layout, token_ids):
    fields = {name: getattr(layout, name) for name in Layout.__slots__}
    return Layout(**{**fields, "token_ids": token_ids})


@pytest.mark.parametrize("kind", KINDS)
def test_no_forward_makes_a_cache(kind):
    """With a cache, transformers skips its own isolation of packed rows and keeps every key; we pass use_cache=False each time."""
    model = tiny_models.load(kind)
    assert model.config.use_cache, "the test would prove nothing"
    seen = []
    model.backbone.register_forward_hook(
        lambda module, args, kwargs, output: seen.append((kwargs.get("use_cache"), output.past_key_values)),
        with_kwargs=True,
    )
    model.logprobs(pack_trees(some_trees()))
    assert seen == [(False, None)]


def test_a_forward_without_a_plan_is_refused():
    model = tiny_models.load("llama")
    with pytest.raises(RuntimeError, match="without a plan"):
        model.causal_lm(input_ids=torch.tensor([[1, 6]]))


@given(seed=st.integers(0, 10**6), window=st.none() | st.integers(1, 5), softcap=st.none() | st.just(0.7), by_blocks=st.booleans())  # fmt: skip
def test_tree_attention_is_the_plain_loop(seed, window, softcap, by_blocks):
    """Grouped keys: 4 query heads, 2 key heads. By products, as on a CPU, and by blocks, as on other devices."""
    rng = np.random.default_rng(seed)
    trees = [
        random_tree(rng, prompt=int(rng.integers(1, 4)), branches=tuple(rng.integers(1, 7, rng.integers(1, 4))))
        for _ in range(3)
    ]
    layout = pack_trees(trees)
    q, k, v = (torch.from_numpy(rng.normal(size=(1, heads, len(layout.token_ids), 4))) for heads in (4, 2, 2))
    plan = TreeAttention(layout, by_blocks=by_blocks)
    found = plan.attend(None, q, k, v, Scoring(scale=0.5, window=window, softcap=softcap))

    def rows_of(query):
        return attention_naive.visible(
            layout.tree_index, layout.branch_index, layout.position_ids, query, window=window
        )

    for head in range(4):
        rows = (x[0, h].tolist() for x, h in ((q, head), (k, head // 2), (v, head // 2)))
        expected = attention_naive.attend(*rows, rows_of, scale=0.5, softcap=softcap)
        np.testing.assert_allclose(found[0, :, head].numpy(), expected, atol=1e-12)


def test_the_plain_formula_is_the_fused_kernel():
    rng = np.random.default_rng(0)
    q, k, v = (torch.from_numpy(rng.normal(size=(3, heads, length, 8))) for heads, length in ((4, 2), (2, 6), (2, 6)))
    mask = torch.from_numpy(rng.random((3, 1, 2, 6)) < 0.5) | torch.eye(6, dtype=torch.bool)[:2]
    scoring = Scoring(scale=0.3)
    torch.testing.assert_close(attend_by_formula(q, k, v, mask, scoring), attend_masked(q, k, v, mask, scoring))


@pytest.mark.parametrize("is_masked", [True, False])
def test_keys_that_are_repeated_for_a_gpu_are_grouped_keys(is_masked):
    rng = np.random.default_rng(0)
    q, k, v = (torch.from_numpy(rng.normal(size=(2, heads, 6, 8))).requires_grad_() for heads in (6, 2, 2))
    mask = torch.ones(6, 6, dtype=torch.bool).tril(1)[None, None] if is_masked else None
    results = []
    for repeats in (False, True):
        out = fused(q, k, v, mask=mask, scale=0.3, repeats=repeats)
        results.append([out, *torch.autograd.grad((out**2).sum(), (q, k, v))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_unshared_rows_have_the_same_logprobs():
    trees = some_trees()
    model = tiny_models.load("llama", dtype=torch.float64)
    with torch.no_grad():
        shared, plain = (model.logprobs(pack_trees(t)).logprobs for t in (trees, unshare(trees)))
    torch.testing.assert_close(shared, plain, atol=1e-6, rtol=0)
