"""Trees on disk are the trees that were put there, of every kind; views change nothing that they do not name."""

import dataclasses
import math

import numpy as np
import pytest

from fairlead.core.arrow import map_columns, write_columns
from fairlead.text import Branch, Tree
from fairlead.text.columns import FORMAT, StoredTrees, TreeColumns, TreeView, to_columns

NONE = np.zeros(0, dtype=np.int64)


def ids(*numbers):
    return np.array(numbers, dtype=np.int64)


def demonstration(seed):
    kept = np.array([False, True, seed % 2 == 0, True])
    return Tree(prompt_ids=NONE, branches=(Branch(token_ids=ids(1, 2, 3, seed), kept=kept, weight=0.1 * seed),))


def ranking(seed):
    branches = tuple(Branch(token_ids=ids(*range(seed, seed + size))) for size in (1, 3, 2)[: 1 + seed % 3])
    return Tree(
        prompt_ids=ids(7, seed),
        branches=branches,
        ranks=tuple(range(len(branches))),
        numbers={"p_chosen": 1 / 3, "weight": 1.0},
    )


def rated(seed):
    branches = (Branch(token_ids=ids(4, seed)), Branch(token_ids=ids(5)))
    return Tree(prompt_ids=ids(9), branches=branches, ranks=(0, 0), targets=((0.1 * seed, math.nan), (2.0, -1.0)))


def assert_equal(a: Tree, b: Tree):
    """Field by field, types of arrays too."""
    assert a.prompt_ids.dtype == b.prompt_ids.dtype and a.prompt_ids.tolist() == b.prompt_ids.tolist()
    assert a.ranks == b.ranks and a.numbers == b.numbers and repr(a.targets) == repr(b.targets)
    for x, y in ((a.branches, b.branches), (a.mismatched, b.mismatched)):
        assert len(x) == len(y)
        for p, q in zip(x, y, strict=True):
            assert p.token_ids.dtype == q.token_ids.dtype and p.token_ids.tolist() == q.token_ids.tolist()
            assert (p.kept is None) == (q.kept is None) and p.weight == q.weight and p.arrays.keys() == q.arrays.keys()
            assert p.kept is None or (p.kept.dtype == q.kept.dtype == bool and p.kept.tolist() == q.kept.tolist())


def stored(trees, path=None):
    columns = to_columns(trees)
    if path is not None:
        write_columns(path, columns, version=FORMAT, facts={})
        columns, _ = map_columns(path, version=FORMAT)
    return TreeColumns(columns)


@pytest.mark.parametrize("make", [demonstration, ranking, rated])
@pytest.mark.parametrize("on_disk", [True, False])
def test_trees_come_back_as_they_were(tmp_path, make, on_disk):
    trees = [make(seed) for seed in range(7)]
    parts = [stored(part, tmp_path / f"{len(part)}" if on_disk else None) for part in (trees[:4], [], trees[4:])]
    found = StoredTrees(parts)
    assert len(found) == 7
    for a, b in zip(trees, found, strict=True):
        assert_equal(a, b)
    assert_equal(found[-1], trees[-1])
    assert [t.num_tokens for t in found[2:6:2]] == [t.num_tokens for t in trees[2:6:2]]
    assert found.sizes().tolist() == [t.num_tokens for t in trees]
    assert found.ranks().tolist() == [r for t in trees for r in t.ranks]
    with pytest.raises(IndexError):
        found[7]


def test_what_is_no_data_is_refused():
    tree = ranking(1)
    annotated = dataclasses.replace(
        tree, branches=(dataclasses.replace(tree.branches[0], arrays={"x": np.zeros(1, np.float32)}),)
    )
    for bad in (
        dataclasses.replace(tree, mismatched=tree.branches),
        annotated,
        dataclasses.replace(tree, numbers={"p_chosen": 1.0}),
    ):
        with pytest.raises(ValueError, match="same numbers"):
            to_columns([tree, bad])


def test_a_view_is_some_trees_in_its_own_order_with_a_change():
    trees = [ranking(seed) for seed in range(5)]
    view = TreeView(
        trees, order=np.array([3, 1]), change=lambda t, place: dataclasses.replace(t, numbers={"place": float(place)})
    )
    assert [t.prompt_ids[1] for t in view] == [3, 1] and [t.numbers for t in view] == [{"place": 0.0}, {"place": 1.0}]
    assert len(view) == 2 and view[-1].prompt_ids[1] == 1
    assert [t is u for t, u in zip(TreeView(trees), trees, strict=True)] == [True] * 5
