import numpy as np
import pytest

from fairlead.stats.shared_round import read_round
from fairlead.stats.votes import votes_from_rows


def _votes(accuracies, *, num_items=50, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, num_items)
    rows = []
    for name, accuracy in accuracies.items():
        for item in range(num_items):
            label = truth[item] if rng.random() < accuracy else 1 - truth[item]
            rows.append((f"pair-{item}", name, "AB"[label]))
    return votes_from_rows(rows)


def test_one_rater_who_reads_the_guideline_the_other_way_is_named():
    verdict = read_round(_votes({"ann": 0.92, "bob": 0.92, "cem": 0.15, "dan": 0.92, "eve": 0.92}), seed=0)
    assert (verdict.kind, verdict.deviating) == ("raters_deviate", ("cem",))
    assert verdict.agreement_of_rest.value > verdict.agreement.value
    assert "cem" in verdict.remedy
    standing = {s.rater: s for s in verdict.standings}
    assert standing["cem"].own < standing["cem"].expected
    assert standing["cem"].p_value < 0.001


def test_where_all_disagree_nobody_is_named():
    verdict = read_round(_votes(dict.fromkeys("abcde", 0.6)), seed=0)
    assert (verdict.kind, verdict.deviating) == ("vague_guideline", ())
    assert verdict.agreement.value < 0.65
    assert "amend the guideline" in verdict.remedy


def test_a_clear_guideline_passes():
    verdict = read_round(_votes(dict.fromkeys("abcde", 0.92), seed=1), seed=0)
    assert (verdict.kind, verdict.deviating, verdict.is_certain) == ("clear", (), True)
    assert verdict.agreement == verdict.agreement_of_rest


def test_two_readings_are_no_fault_of_single_raters():
    verdict = read_round(_votes({"a": 0.95, "b": 0.95, "c": 0.95, "d": 0.05, "e": 0.05}), seed=0)
    assert verdict.kind == "camps"
    assert set(verdict.deviating) == {"d", "e"}


def test_exchangeable_raters_are_named_at_most_once_in_twenty_rounds():
    """200 rounds of five equal raters at 75 %: the share of rounds in which anyone is called deviating is near 5 %."""
    named = sum(
        bool(read_round(_votes(dict.fromkeys("abcde", 0.75), seed=s), seed=0, num_resamples=50).deviating)
        for s in range(200)
    )
    assert named <= 20


def test_own_agreement_by_hand():
    """Items A A B and A B B: a agrees with 1/2 and 0, b with 1/2 and 1/2, c with 0 and 1/2; all expect 1/3."""
    rows = [("1", "a", "A"), ("1", "b", "A"), ("1", "c", "B"), ("2", "a", "A"), ("2", "b", "B"), ("2", "c", "B")]
    verdict = read_round(votes_from_rows(rows), seed=0)
    assert [s.own for s in verdict.standings] == pytest.approx([0.25, 0.5, 0.25])
    assert [s.expected for s in verdict.standings] == pytest.approx([1 / 3] * 3)


def test_a_round_without_shared_items_measures_nothing():
    verdict = read_round(votes_from_rows([("1", "a", "A"), ("2", "b", "A")]), seed=0)
    assert verdict.kind == "not_measured"
    assert "same pairs" in verdict.remedy
