"""Scalar heads: where they read, that neighbours and padding do not matter, how they start, and that they come back."""

import numpy as np
import pytest
import torch

import tiny_models
from fairlead.core.errors import ModelError
from fairlead.models.heads import (
    CONFIG_FILE,
    HEAD_FILE,
    load_head,
    new_reward_head,
    new_value_head,
    save_head,
)
from fairlead.text import Branch, Tree, pack_trees


def trees():
    rng = np.random.default_rng(0)

    def ids(n):
        return rng.integers(6, tiny_models.VOCABULARY, n)

    shapes = [(3, (1, 9, 4)), (12, (2,)), (1, (1, 20))]
    return [Tree(prompt_ids=ids(p), branches=tuple(Branch(token_ids=ids(n)) for n in bs)) for p, bs in shapes]


def expected_scores(kind, model, trees, *, at):
    """By plain transformers, one text at a time: the head on the hidden state at `at(prompt length, completion length)`."""
    plain = getattr(tiny_models.load_plain(kind), "transformer" if kind == "gpt2" else "model")
    rows = []
    for tree in trees:
        for branch in tree.branches:
            ids = torch.from_numpy(np.concatenate([tree.prompt_ids, branch.token_ids]))[None]
            with torch.no_grad():
                hidden = plain(input_ids=ids).last_hidden_state[0]
            rows.append(hidden[at(len(tree.prompt_ids), len(branch.token_ids))] @ model.head.weight[0])
    return rows


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_a_score_is_read_at_the_last_token(kind):
    model = new_reward_head(tiny_models.load(kind), seed=1)
    found = model.scores(pack_trees(trees()))
    expected = expected_scores(kind, model, trees(), at=lambda prompt, completion: prompt + completion - 1)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-5)


def test_a_score_is_read_at_the_last_token_also_where_that_stands_many_times():
    """transformers pools the rightmost token that is no padding: with padding = end of turn that is the one before the ends."""
    end = 5
    branches = tuple(
        Branch(token_ids=np.array([*ids, end, end][-4:])) for ids in ([7, end, 8], [9, 10, 11], [end, end, end])
    )
    tree = Tree(prompt_ids=np.array([1, 20, end]), branches=branches)
    model = new_reward_head(tiny_models.load("llama"), seed=1)
    expected = expected_scores("llama", model, [tree], at=lambda prompt, completion: prompt + completion - 1)
    torch.testing.assert_close(model.scores(pack_trees([tree])), torch.stack(expected), atol=1e-4, rtol=1e-5)


def test_a_value_is_read_before_its_token():
    model = new_reward_head(tiny_models.load("llama"), seed=1)
    found = model.values(pack_trees(trees()))
    expected = expected_scores(
        "llama", model, trees(), at=lambda prompt, completion: slice(prompt - 1, prompt + completion - 1)
    )
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-5)


def test_scores_do_not_depend_on_neighbours():
    model = new_reward_head(tiny_models.load("llama", dtype=torch.float64), seed=1)
    with torch.no_grad():
        together = model.scores(pack_trees(trees()))
        alone = torch.cat([model.scores(pack_trees([t])) for t in trees()])
        reversed_ = model.scores(pack_trees(trees()[::-1]))
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together, torch.cat([reversed_[3:], reversed_[2:3], reversed_[:2]]), atol=1e-6, rtol=0)


def test_heads_start_as_published():
    """Rewards: N(0, 1/sqrt(hidden + 1)), arXiv:2403.17031. Values: zero."""
    base = tiny_models.load("llama")
    weights = torch.cat([new_reward_head(base, seed=seed).head.weight[0] for seed in range(200)])
    assert weights.std().item() == pytest.approx((base.hidden_size + 1) ** -0.5, rel=0.05)
    assert abs(weights.mean().item()) < 0.01
    assert torch.equal(new_reward_head(base, seed=3).head.weight, new_reward_head(base, seed=3).head.weight)
    assert (new_value_head(base).values(pack_trees(trees())) == 0).all()
    assert new_value_head(base).head.bias is None


def test_low_precision_bases_take_a_head_in_fp32():
    model = new_reward_head(tiny_models.load("llama", dtype=torch.bfloat16), seed=1)
    assert model.scores(pack_trees(trees())).dtype == torch.float32


def test_normalised_scores_are_in_standard_deviations():
    model = new_value_head(tiny_models.load("llama"))
    model.mean, model.std = 2.0, 4.0
    assert model.normalised(torch.tensor([2.0, 6.0])).tolist() == [0.0, 1.0]


def test_a_saved_head_comes_back_equal(tmp_path):
    base = tiny_models.load("llama")
    model = new_reward_head(base, seed=5)
    model.mean, model.std, model.facts = 0.25, 1.5, {"length_slope": 0.1}
    save_head(model, tmp_path)
    again = load_head(base, tmp_path)
    assert torch.equal(again.head.weight, model.head.weight)
    assert (again.mean, again.std, again.facts) == (0.25, 1.5, {"length_slope": 0.1})


@pytest.mark.parametrize("damage", ["missing", "head", "config", "shape", "key"])
def test_damaged_heads_are_one_line_errors(damage, tmp_path):
    base = tiny_models.load("llama")
    save_head(new_reward_head(base, seed=5), tmp_path)
    if damage == "missing":
        (tmp_path / HEAD_FILE).unlink()
    elif damage == "head":
        (tmp_path / HEAD_FILE).write_bytes(b"\xff" * 30)
    elif damage == "config":
        (tmp_path / CONFIG_FILE).write_text("{")
    elif damage == "key":
        (tmp_path / CONFIG_FILE).write_text('{"mean": 0}')
    else:
        other = new_reward_head(base, seed=5)
        other.head = torch.nn.Linear(3, 1, bias=False)
        save_head(other, tmp_path)
    with pytest.raises(ModelError) as info:
        load_head(base, tmp_path)
    assert "\n" not in str(info.value) and str(tmp_path) in str(info.value)
