"""Labels as a table: every method's posterior in its column, the chosen one named, standard errors of Bradley-Terry, decisions held fixed."""

import itertools
import math
import typing

import numpy as np
import pytest

from fairlead.core.annotations import RatedItem
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import read_rows
from fairlead.core.records import from_dict
from fairlead.preferences.aggregate import Method, Verdicts, aggregate_pairs
from fairlead.preferences.item_export import write_rated
from fairlead.preferences.item_pairs import gather, item_preferences
from fairlead.preferences.label_table import label_table
from fairlead.stats.rater_bradley_terry import comparisons_from_rows, rater_bradley_terry

METHODS = typing.get_args(Method)


def item(number, labels, *, swapped=(), decision=None, edits=()):
    """A pair with a vote a rater; `labels` a letter a rater: a, b, t for a tie, s for a skip."""
    words = {"a": "a", "b": "b", "t": "tie", "s": "skip"}
    ratings = [
        {"rater": f"r{i}", "verdict": words[label], "swapped": i in swapped, "edits": dict(edits) if i == 0 else {}}
        for i, label in enumerate(labels)
    ]
    return from_dict(RatedItem, {
        "prompt": [{"role": "user", "content": f"question {number}"}], "item": f"item-{number}", "ratings": ratings,
        "replies": [{"id": f"x{number}", "text": f"first {number}", "model": "m"}, {"id": f"y{number}", "text": f"second {number}", "model": "m"}],
        "meta": {"decision": {"verdict": decision}} if decision else {},
    })  # fmt: skip


ITEMS = [
    item(0, "aab", swapped=(0,)),
    item(1, "bbb", swapped=(1,)),
    item(2, "att", swapped=(2,)),
    item(3, "abs", decision="b"),
    item(4, "sss"),
]


def test_majority_by_hand():
    """2 of 3 for a: 2/3. All for b: 0. One for a, two ties: (1 - 2/3) * 1 + (2/3)/2 = 2/3. Decided for b: 0. Skips alone: no row."""
    table = label_table(ITEMS, method="majority")
    assert [row["item"] for row in table.rows()] == [f"item-{i}" for i in range(4)]
    assert [row["p_a_majority"] for row in table.rows()] == pytest.approx([2 / 3, 0, 2 / 3, 0], abs=1e-6)
    assert [row["label"] for row in table.rows()] == ["a", "b", "a", "b"] and {
        row["method"] for row in table.rows()
    } == {"majority"}
    first = next(table.rows())
    assert (first["a"], first["b"], first["votes_a"], first["votes_b"], first["votes_tie"], first["num_votes"]) == (
        "x0",
        "y0",
        2,
        1,
        0,
        3,
    )
    assert [row["decision"] for row in table.rows()] == ["", "", "", "b"]


def test_every_column_is_what_its_method_says():
    items = [each for each in ITEMS if "decision" not in each.meta]
    table, gathered = label_table(items, method="auto"), gather(items)
    assert table.chosen == "one_coin_side_bias" and {row["method"] for row in table.rows()} == {"one_coin_side_bias"}
    for method in METHODS:
        expected = aggregate_pairs(gathered.verdicts, method=method, completions=gathered.completions()).pairs
        assert [row[f"p_a_{method}"] for row in table.rows()] == pytest.approx(
            [expected[row["item"]].p_a for row in table.rows()], abs=1e-6
        )
    assert [row["p_a"] for row in table.rows()] == [row["p_a_one_coin_side_bias"] for row in table.rows()]


def test_the_standard_error_of_a_gap_is_that_of_the_covariance():
    """Var(s_i - s_j) = v_ii + v_jj - 2 v_ij, here from the whole covariance by a contrast vector.

    These four votes are explained as well with either rater turned round: Newton's steps alone end between the two, on a saddle with
    negative variances.
    """
    rows = [("i", "j", "r0", 1.0), ("j", "k", "r0", 1.0), ("i", "k", "r1", 0.0), ("i", "j", "r1", 1.0)]
    fit = rater_bradley_terry(comparisons_from_rows(rows))
    assert np.linalg.eigvalsh(fit.covariance).min() > 0
    for first, second in ((0, 1), (1, 2), (0, 2)):
        contrast = np.zeros(len(fit.covariance))
        contrast[first], contrast[second] = 1, -1
        gap, error = fit.gap(first, second)
        assert (
            error == pytest.approx(math.sqrt(contrast @ fit.covariance @ contrast))
            and gap == fit.scores[first] - fit.scores[second]
        )
        assert fit.p_better(first, second) == pytest.approx(0.5 * (1 + math.erf(gap / error / math.sqrt(2))))
    table = label_table(ITEMS, method="bradley_terry")
    assert all(
        row["score_gap_error"] > 0 and (row["score_gap"] > 0) == (row["p_a_bradley_terry"] > 0.5)
        for row in itertools.islice(table.rows(), 3)
    )


def test_a_method_that_does_not_run_is_empty_and_says_why():
    table = label_table([item(0, "ab"), item(1, "aa")], method="one_coin")
    assert "one_coin_side_bias is empty" in " ".join(table.notes) and all(
        row["p_a_one_coin_side_bias"] is None for row in table.rows()
    )


def test_what_cannot_be_is_told():
    with pytest.raises(ConfigError, match="one_coin"):
        label_table(ITEMS, method="onecoin")
    with pytest.raises(DataError, match="at least one vote"):
        label_table([item(0, "ss")], method="auto")


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_the_file_names_the_method(tmp_path, ending):
    file = tmp_path / f"labels{ending}"
    written = write_rated(file, ITEMS, to="labels", method="weighted")
    assert "weighted" in written.what
    rows = [row.values for row in read_rows(file)]
    assert (
        len(rows) == 4
        and {row["method"] for row in rows} == {"weighted"}
        and float(rows[0]["p_a_majority"]) == pytest.approx(2 / 3, abs=1e-6)
    )


def test_edits_and_rankings_have_no_sides():
    pair = item(0, "ab", swapped=(0,), edits={"x0": "first, better"})
    found = gather([pair]).verdicts
    assert list(zip((row[0] for row in found.rows()), found.sides(), strict=True)) == [
        ("item-0", True), ("item-0", False), ("item-0:edit-0:x0", None), ("item-0:edit-0:y0", None)]  # fmt: skip
    ranked = from_dict(RatedItem, {
        "prompt": [{"role": "user", "content": "q"}], "replies": [{"id": name, "text": name, "model": "m"} for name in "xyz"],
        "ratings": [{"rater": "r", "ranking": [["z"], ["x"], ["y"]]}],
    })  # fmt: skip
    whole = gather([ranked]).verdicts
    assert whole.num_votes == 3 and not whole.sided.any() and whole.sides() is None and not whole.has_sides


def test_exports_of_preferences_name_the_method_and_hold_edits(tmp_path):
    items = [item(0, "aab", edits={"x0": "first, better"}), item(1, "bbb")]
    written = write_rated(tmp_path / "pairs.jsonl", items, to="trl", method="auto")
    assert "Votes added up by one_coin (chosen for these votes: auto)" in written.notes
    made = item_preferences(items, method="bradley_terry")
    found, method = list(made.preferences), made.method
    assert method == "bradley_terry" and all(
        each.meta["score_gap_error"] > 0 and each.meta["score_gap"] > 0 for each in found if not each.is_tie
    )
    best = {(each.chosen, each.rejected) for each in found}
    assert {("first, better", "first 0"), ("first, better", "second 0"), ("first 0", "second 0")} <= best


def test_an_empty_list_of_verdicts_has_no_sides():
    assert not Verdicts.from_rows([], swapped=[]).has_sides
