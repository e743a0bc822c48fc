"""Weak raters are found, able ones are left alone, and few votes flag nobody."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preferences_example import draw_judgments

from fairlead.preferences.aggregate import Verdicts, aggregate_pairs
from fairlead.preferences.raters import falling_trend, others_agree, rater_table, read_raters
from fairlead.stats.agreement import rater_agreement
from fairlead.stats.votes import votes_from_rows

ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["i1", "i2", "i3", "i4"]), st.sampled_from(["r1", "r2", "r3", "r4"])),
    st.sampled_from("abc"),
    min_size=1,
)


def read(accuracies, **options):
    judgments, _ = draw_judgments(accuracies, **options)
    verdicts = Verdicts.from_judgments(judgments)
    outcome = aggregate_pairs(verdicts, method="one_coin_side_bias")
    return {r.name: r for r in read_raters(verdicts.votes(), orders=verdicts.order, outcomes=outcome.raters)}


@given(ROWS)
def test_single_hits_add_up_to_rater_agreement(table):
    votes = votes_from_rows([(*key, label) for key, label in table.items()], label_names="abc")
    hits, _ = others_agree(votes)
    for number, name in enumerate(votes.rater_names):
        own = hits[votes.raters == number]
        expected = rater_agreement(votes)[name]
        assert np.isfinite(own).sum() == expected.n
        if expected.n:
            assert np.nanmean(own) == pytest.approx(expected.value)


def test_others_agree_by_hand():
    """Item 1: a a b. Without each vote the others say {a, b}, {a, b} (ties) and {a, a}: only the third is counted, and misses."""
    votes = votes_from_rows([("1", "x", "a"), ("1", "y", "a"), ("1", "z", "b")], label_names="ab")
    hits, label = others_agree(votes)
    assert np.array_equal(hits, [np.nan, np.nan, 0.0], equal_nan=True)
    assert label.tolist() == [-1, -1, 0]


def test_the_clicker_and_the_drifter_are_flagged_and_able_raters_rarely():
    """Six panels of ten; by design one panel in twenty gives a false alarm of a kind, so two of six may."""
    panels = [
        read([0.5, 0.95] + [0.8] * 8, num_tasks=600, votes_per_task=5, seed=s, accuracy_late={1: 0.4}) for s in range(6)
    ]
    assert sum("near chance" in found["r00"].flags for found in panels) >= 5
    assert sum("drifts" in found["r01"].flags for found in panels) >= 5
    assert sum(any(r.flags for name, r in found.items() if name not in ("r00", "r01")) for found in panels) <= 2
    assert all(next(iter(found)) == "r00" for found in panels)  # worst first
    assert all(found["r01"].early > found["r01"].late for found in panels)


def test_the_sides_that_raters_favour_are_named():
    panels = [read([0.75] * 12, num_tasks=600, votes_per_task=5, seed=s, side_bias={3: 1.2, 7: -1.2}) for s in range(3)]
    for found in panels:
        assert "favours left" in found["r03"].flags
        assert "favours right" in found["r07"].flags
        assert found["r03"].side_bias > 0.5
        assert found["r07"].side_bias < -0.5
    others = [r for found in panels for name, r in found.items() if name not in ("r03", "r07")]
    assert sum(flag.startswith("favours") for r in others for flag in r.flags) <= 1


def test_few_votes_flag_nobody():
    found = read([0.5] * 10, num_tasks=20, votes_per_task=5, seed=0)
    assert not any(r.flags for r in found.values())


def test_a_trend_is_a_fall_not_a_rise():
    """30 hits then 30 misses: z = -sqrt(3 n^2 / 4 / (n^2 - 1)) sqrt(n) = -6.71, p = 1e-11; the other way round p = 1."""
    hits = np.array([1.0] * 30 + [0.0] * 30)
    assert falling_trend(hits) == pytest.approx(9.7e-12, rel=0.2)
    assert falling_trend(hits[::-1]) == pytest.approx(1.0)
    assert falling_trend(np.ones(60)) == falling_trend(hits[:10]) == 1.0


def test_false_alarms_of_the_trend_are_rare():
    rng = np.random.default_rng(0)
    p = [falling_trend((rng.random(100) < 0.75).astype(float)) for _ in range(1000)]
    assert 25 <= sum(x < 0.05 for x in p) <= 80


def test_undefined_values_are_null_in_data_and_table():
    votes = votes_from_rows([("1", "x", "c"), ("2", "y", "d")])
    readings = read_raters(votes, orders=None, outcomes={})
    assert readings[0].to_data()["agreement"] == {"value": None, "low": None, "high": None, "n": 0}
    assert rater_table(readings).rows[0][2:10] == (None,) * 8
