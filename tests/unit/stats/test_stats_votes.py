import numpy as np
import pytest

from fairlead.core.errors import DataError
from fairlead.stats.votes import (
    UNKNOWN,
    counts,
    label_values,
    linked_groups,
    number_labels,
    rank_labels,
    votes_from_rows,
    votes_per_rater,
)

ROWS = [("q1", "ann", "A"), ("q1", "bob", "B"), ("q2", "ann", "A"), ("q2", "bob", "A"), ("q3", "cyd", "B")]


def test_rows_are_numbered_in_order_of_appearance():
    votes = votes_from_rows(ROWS)
    assert votes.item_names == ("q1", "q2", "q3")
    assert votes.rater_names == ("ann", "bob", "cyd")
    assert votes.label_names == ("A", "B")
    assert counts(votes).tolist() == [[1, 1], [2, 0], [0, 1]]
    assert votes_per_rater(votes).tolist() == [2, 2, 1]


def test_labels_that_are_numbers_are_ranked_as_numbers():
    assert rank_labels(["10", "-3", "2", "2"]) == ("-3", "2", "10")
    assert rank_labels(["B", "tie", "A"]) == ("A", "B", "tie")


def test_declared_labels_keep_their_order_and_unused_ones_their_column():
    votes = votes_from_rows(ROWS, label_names=("B", "tie", "A"))
    assert counts(votes)[0].tolist() == [1, 0, 1]


def test_a_second_vote_of_a_rater_on_an_item_is_refused_by_name():
    with pytest.raises(DataError, match=r"votes\.q2=bob votes 2 times"):
        votes_from_rows([*ROWS, ("q2", "bob", "B")])


def test_an_unknown_label_suggests_the_nearest():
    with pytest.raises(DataError, match=r"votes\.label=Tie is not a label \(did you mean tie\?\)"):
        votes_from_rows([("q1", "ann", "Tie")], label_names=("A", "B", "tie"))


def test_swapped_must_fit_the_rows():
    assert votes_from_rows(ROWS, swapped=[True, False] * 2 + [True]).swapped.sum() == 3
    with pytest.raises(DataError, match="swapped=4 does not fit"):
        votes_from_rows(ROWS, swapped=[True] * 4)


def test_no_votes_make_an_empty_table():
    votes = votes_from_rows([])
    assert counts(votes).shape == (0, 0)
    assert votes.num_items == votes.num_raters == votes.num_labels == 0


def test_known_labels_become_numbers_and_items_without_votes_are_left_out():
    votes = votes_from_rows(ROWS)
    assert number_labels(votes, {"q2": "B", "elsewhere": "A"}).tolist() == [UNKNOWN, 1, UNKNOWN]
    with pytest.raises(DataError, match=r"gold\.q2=C is not a label"):
        number_labels(votes, {"q2": "C"})


def test_label_values_need_numbers():
    votes = votes_from_rows([("q", "a", "-1.5"), ("q", "b", "3")])
    assert label_values(votes).tolist() == [-1.5, 3.0]
    with pytest.raises(DataError, match="label=A is not a number"):
        label_values(votes_from_rows(ROWS))


def test_raters_without_a_chain_of_shared_items_are_separate_groups():
    assert linked_groups(votes_from_rows(ROWS)).tolist() == [0, 0, 1]
    chain = [(f"q{i}", rater, "A") for i in range(6) for rater in (f"r{i}", f"r{i + 1}")]
    assert len(np.unique(linked_groups(votes_from_rows(chain[::-1])))) == 1
