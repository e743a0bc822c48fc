"""Pairs back to the rankings they came from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.core.records import Message, Preference
from fairlead.formats.base import Pairing
from fairlead.formats.ranking import Candidate, ranked_preferences
from fairlead.text.rankings import encode_rankings, group_rankings


def _prompt(text="q"):
    return (Message(role="user", content=text),)


def _pair(chosen, rejected, *, prompt="q", **fields):
    return Preference(prompt=_prompt(prompt), chosen=chosen, rejected=rejected, **fields)


class _Letters:
    """One token a letter; stands in for ChatText."""

    def encode_prompts(self, conversations):
        return [np.array([1] + [ord(c) for c in messages[-1].content]) for messages in conversations]

    def encode_completions(self, texts):
        return [np.array([ord(c) for c in text]) for text in texts]

    def merges(self, rows):
        return [False for _ in rows]

    def appends(self, prompt, reply):
        return True


def _orders(rankings):
    return [dict(zip(found.completions, found.ranks, strict=True)) for found in rankings]


@given(
    scores=st.lists(st.integers(0, 3), min_size=3, max_size=6).filter(lambda s: len(set(s)) > 1),
    pairs=st.sampled_from(["all", "best_vs_each"]),
)
def test_a_ranking_comes_back_from_the_pairs_of_a_format(scores, pairs: Pairing):
    """But for completions that no pair names: those as good as the best, when only the best is compared."""
    candidates = [Candidate(text=f"t{i}", score=s, meta={"score": s}) for i, s in enumerate(scores)]
    rows = ranked_preferences(_prompt(), candidates, pairs=pairs)
    rows = [row for row in rows if isinstance(row, Preference)]
    (found,) = _orders(group_rankings(rows)) or [{}]
    for a in found:
        for b in found:
            (x, y), (p, q) = (scores[int(a[1:])], scores[int(b[1:])]), (found[a], found[b])
            assert len(found) == 2 or (x > y) == (p < q)
    assert len(found) == (len(scores) if pairs == "all" else len({r.chosen for r in rows} | {r.rejected for r in rows}))


def test_a_chain_of_pairs_is_a_ranking():
    (found,) = _orders(group_rankings([_pair("a", "b"), _pair("b", "c"), _pair("c", "d", is_tie=True, p_chosen=0.5)]))
    assert found == {"a": 0, "b": 1, "c": 2, "d": 2}


@pytest.mark.parametrize(
    "rows",
    [
        [_pair("a", "b"), _pair("b", "c"), _pair("c", "a")],
        [_pair("a", "b"), _pair("a", "c")],
        [_pair("a", "b"), _pair("b", "c"), _pair("a", "c", is_tie=True, p_chosen=0.5)],
    ],
    ids=["circle", "b and c never met", "a tie over two wins"],
)
def test_pairs_without_one_order_stay_pairs(rows):
    found = group_rankings(rows)
    assert [ranking.completions for ranking in found] == [(row.chosen, row.rejected) for row in rows]
    assert all(ranking.is_unordered for ranking in found)
    assert [ranking.is_tie for ranking in found] == [row.is_tie for row in rows]


def test_ranks_that_contradict_a_pair_are_not_believed():
    rows = [
        _pair("a", "b", meta={"chosen_rank": 2, "rejected_rank": 1}),
        _pair("a", "c", meta={"chosen_rank": 2, "rejected_rank": 3}),
    ]
    assert [len(ranking.completions) for ranking in group_rankings(rows)] == [2, 2]


def test_two_rankings_of_one_prompt_are_not_mixed():
    """Ranks of different raters: 1 of the first says nothing about 1 of the second."""
    one = [
        _pair("a", "b", meta={"chosen_rank": 1, "rejected_rank": 2}),
        _pair("a", "c", meta={"chosen_rank": 1, "rejected_rank": 3}),
    ]
    two = [
        _pair("x", "y", meta={"chosen_rank": 1, "rejected_rank": 2}),
        _pair("x", "z", meta={"chosen_rank": 1, "rejected_rank": 3}),
    ]
    found = group_rankings([one[0], two[0], one[1], two[1]])
    assert _orders(found) == [{"a": 0, "b": 1, "c": 2}, {"x": 0, "y": 1, "z": 2}]
    assert [ranking.rows for ranking in found] == [(0, 2), (1, 3)]


def test_prompts_keep_apart_and_pairs_keep_their_labels():
    found = group_rankings([_pair("a", "b", p_chosen=0.75, weight=3.0), _pair("a", "b", prompt="other")])
    assert [(ranking.p_chosen, ranking.weight) for ranking in found] == [(0.75, 3.0), (1.0, 1.0)]


def test_trees_count_everything_that_is_not_used():
    """Of a, bb, cccccc the last does not fit in 4 tokens: the rest stays ranked; a lone completion is no ranking."""
    rows = [
        _pair("a", "bb", p_chosen=0.8, margin=0.5), _pair("bb", "cccccc"),
        _pair("a", "cccccc", prompt="p"),
    ]  # fmt: skip
    encoded, counts = encode_rankings(_Letters(), rows, max_length=4)
    (tree,) = encoded.trees
    assert [len(branch.token_ids) for branch in tree.branches] == [1, 2] and tree.ranks == (0, 1)
    assert (encoded.num_truncated, encoded.num_dropped, encoded.kept_rows) == (1, 1, [0])
    assert (counts.num_rankings, counts.num_pairs, counts.num_soft, counts.num_margins) == (1, 0, 1, 1)
    with pytest.raises(DataError, match="do not fit"):
        encode_rankings(_Letters(), rows[2:], max_length=4)
