"""The flat row of trees against plain loops, and the plan of micro-batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.text import Branch, Tree, pack_trees, plan_microbatches, unshare
from fairlead.text.packing import fill_rate


@st.composite
def trees(draw):
    """1 to 4 trees; some without a prompt (their branches do not keep the first token)."""
    result = []
    for _ in range(draw(st.integers(1, 4))):
        prompt = draw(st.lists(st.integers(0, 99), max_size=4))
        branches = []
        for _ in range(draw(st.integers(1, 3))):
            ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=4))
            kept = draw(st.none() | st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
            if not prompt:
                kept = [False, *(kept or [True] * len(ids))[1:]]
            branches.append(Branch(token_ids=np.array(ids), kept=None if kept is None else np.array(kept, dtype=bool)))
        result.append(Tree(prompt_ids=np.array(prompt, dtype=np.int64), branches=tuple(branches)))
    return result


def naive_layout(trees):
    """The row as a list of (token, position, tree, branch), and the kept tokens as (source, target, sequence)."""
    row, kept, last, group = [], [], [], []
    for t, tree in enumerate(trees):
        for p, token in enumerate(tree.prompt_ids):
            row.append((token, p, t, 0))
        prompt_end = len(row) - 1
        for j, branch in enumerate(tree.branches):
            previous = prompt_end
            for p, token in enumerate(branch.token_ids):
                row.append((token, len(tree.prompt_ids) + p, t, j + 1))
                if branch.kept is None or branch.kept[p]:
                    kept.append((previous, token, len(last)))
                previous = len(row) - 1
            last.append(len(row) - 1)
            group.append(t)
    return row, kept, last, group


@given(trees())
def test_pack_trees_is_the_plain_loop(trees):
    layout = pack_trees(trees)
    row, kept, last, group = naive_layout(trees)
    columns = (layout.token_ids, layout.position_ids, layout.tree_index, layout.branch_index)
    assert [tuple(map(int, r)) for r in zip(*columns, strict=True)] == row
    columns = (layout.kept_source, layout.kept_target, layout.sequence_index)
    assert [tuple(map(int, r)) for r in zip(*columns, strict=True)] == kept
    assert layout.last_index.tolist() == last and layout.group_index.tolist() == group
    assert layout.num_trees == len(trees) and layout.num_sequences == len(last)
    assert len(row) == sum(t.num_tokens for t in trees)
    assert len(kept) == sum(b.num_kept for t in trees for b in t.branches)


@given(trees())
def test_unsharing_keeps_targets_in_order(trees):
    shared, plain = pack_trees(trees), pack_trees(unshare(trees))
    assert plain.kept_target.tolist() == shared.kept_target.tolist()
    assert plain.sequence_index.tolist() == shared.sequence_index.tolist()
    assert (plain.position_ids[plain.kept_source] == shared.position_ids[shared.kept_source]).all()
    assert all(len(t.branches) == 1 for t in unshare(trees))


def test_the_first_token_of_a_branch_is_predicted_at_the_end_of_the_prompt():
    """Rows: p0 p1 a0 a1 b0. a0 and b0 are both predicted at row 1."""
    layout = pack_trees(
        [
            Tree(
                prompt_ids=np.array([7, 8]),
                branches=(Branch(token_ids=np.array([1, 2])), Branch(token_ids=np.array([3]))),
            )
        ]
    )
    assert layout.position_ids.tolist() == [0, 1, 2, 3, 2]
    assert layout.kept_source.tolist() == [1, 2, 1]
    assert layout.kept_target.tolist() == [1, 2, 3]


def test_what_nothing_predicts_cannot_be_kept():
    nothing = np.zeros(0, dtype=np.int64)
    with pytest.raises(ValueError, match="no prompt to predict it from"):
        pack_trees([Tree(prompt_ids=nothing, branches=(Branch(token_ids=np.array([1, 2])),))])
    with pytest.raises(ValueError, match="no tokens"):
        pack_trees([Tree(prompt_ids=np.array([1]), branches=(Branch(token_ids=nothing),))])


def test_no_trees_make_an_empty_row():
    assert len(pack_trees([]).token_ids) == 0


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 40))
def test_microbatches_hold_every_tree_once_within_the_budget(sizes, max_tokens):
    plan = plan_microbatches(sizes, max_tokens=max_tokens)
    assert sorted(i for row in plan for i in row) == list(range(len(sizes)))
    for row in plan:
        assert row == sorted(row)
        assert sum(sizes[i] for i in row) <= max_tokens or len(row) == 1
    assert plan == plan_microbatches(list(sizes), max_tokens=max_tokens)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(30, 60))
def test_microbatches_are_nearly_as_few_as_can_be(sizes, max_tokens):
    """No plan is shorter than `least`: the total over the budget, or the trees above half of it, which cannot share a row. Decreasing
    first-fit rules need at most 3/2 of that bound, plus one row (Martello and Toth 1990, chapter 8)."""
    least = max(-(-sum(sizes) // max_tokens), sum(2 * s > max_tokens for s in sizes))
    assert len(plan_microbatches(sizes, max_tokens=max_tokens)) <= 1.5 * least + 1


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(10, 60))
def test_the_plan_is_that_of_the_plain_loop(sizes, max_tokens):
    """Each tree, largest first, goes where it leaves the least room; of equal rows to the oldest."""
    bins = []
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        rooms = [(max(0, max_tokens - sum(sizes[k] for k in row)), b) for b, row in enumerate(bins)]
        fitting = [(room, b) for room, b in rooms if room >= sizes[i]]
        if fitting:
            bins[min(fitting)[1]].append(i)
        else:
            bins.append([i])
    assert plan_microbatches(sizes, max_tokens=max_tokens) == sorted(sorted(row) for row in bins)


def test_fill_rate_by_hand():
    """Rows of 10 and 6 of 10 tokens fill 16 of 20; a tree of 30 fills its own row."""
    assert fill_rate([3, 6, 7], [[0, 2], [1]], max_tokens=10) == 0.8
    assert fill_rate([30], [[0]], max_tokens=10) == 1.0


def test_best_fit_decreasing_by_hand():
    """Budget 10: 7 opens a row, 6 a second, 4 fits best beside 6 (rest 0), 3 beside 7 (rest 0)."""
    assert plan_microbatches([3, 6, 7, 4], max_tokens=10) == [[0, 2], [1, 3]]
