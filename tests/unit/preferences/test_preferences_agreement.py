"""Gates, the two scales of agreement, and counts by scope."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.io import dump_json
from fairlead.preferences import stage
from fairlead.preferences.agreement import AGREEMENT, ALPHA, judge_interval, read_agreement, read_ceiling
from fairlead.preferences.counts import judge_count, rl_count_gate
from fairlead.stats.intervals import Interval, undefined
from fairlead.stats.votes import votes_from_rows


def votes(*items):
    """One string of labels an item, one character a rater."""
    return votes_from_rows([(str(i), str(r), label) for i, item in enumerate(items) for r, label in enumerate(item)])


@pytest.mark.parametrize(
    ("gate", "value", "low", "high", "outcome"),
    [
        (AGREEMENT, 0.70, 0.66, 0.74, "PASS"), (AGREEMENT, 0.64, 0.58, 0.70, "WARN"), (AGREEMENT, 0.55, 0.50, 0.61, "WARN"),
        (AGREEMENT, 0.55, 0.50, 0.59, "STOP"), (ALPHA, 0.65, 0.55, 0.75, "PASS"), (ALPHA, 0.50, 0.45, 0.55, "WARN"),
        (ALPHA, 0.35, 0.25, 0.45, "WARN"), (ALPHA, 0.30, 0.25, 0.39, "STOP"),
    ],
)  # fmt: skip
def test_gates_stop_only_when_the_whole_interval_is_below(gate, value, low, high, outcome):
    assert judge_interval(gate, Interval(value, low, high, 100)).outcome == outcome


def test_what_is_undefined_was_not_measured():
    result = judge_interval(ALPHA, undefined("undefined: unanimous", n=5))
    assert (result.outcome, result.n, result.value) == ("STOP", 0, 0.0)
    assert "Not measured: unanimous" in result.line()


def test_agreement_and_what_it_implies_by_hand():
    """Items aa, bb, ab, ba: half agree, so kappa by the percentage is 0; alpha = 1 - (7/16 n...) by Krippendorff.

    Coincidences: o_ab = 2 of 8, expected 2 * 4 * 4 / 7 of 8, so alpha = 1 - (4 / 8) / (32 / 56) = 0.125.
    """
    reading = read_agreement(votes("aa", "bb", "ab", "ba"), seed=0, num_resamples=200)
    figures = {f.name: f.value for f in reading.figures()}
    assert figures["percent agreement"] == 0.5
    assert figures["kappa that the percentage implies"] == 0.0
    assert figures["Krippendorff's alpha"] == pytest.approx(0.125)
    assert reading.num_rater_pairs == 4
    assert "Statistic: Krippendorff's alpha, nominal, labels a, b" in reading.verdicts()[1].note
    assert any("65 % agreement is kappa 0.30" in note and "0.6 needs 80 %" in note for note in reading.notes())


def test_where_the_gates_differ_the_severer_one_says_why():
    """67 % of 300 balanced pairs agree: kappa 0.34, so the first passes and the second does not. Chance disagreement is one half (but
    for the small-sample term), so alpha 0.4 and 0.6 lie at 1 - 0.6 / 2 = 70 % and 80 %."""
    items = ["aa"] * 100 + ["bb"] * 101 + ["ab"] * 50 + ["ba"] * 49
    percent, alpha = read_agreement(votes(*items), seed=0, num_resamples=200).verdicts()
    assert (percent.outcome, alpha.outcome) == ("PASS", "WARN")
    assert (
        "Its limits 0.4 and 0.6 lie at 70.0 % and 80.0 % agreement here, those of preferences.agreement at 60 % and 65 %"
        in alpha.note
    )
    assert "preferences.agreement says PASS of the same votes" in alpha.line() and "Its limits" not in percent.note


@pytest.mark.parametrize("items", [["aa"] * 45 + ["bb"] * 45 + ["ab"] * 5, ["aa", "aa"]])
def test_gates_that_say_the_same_or_measured_nothing_need_no_reason(items):
    assert not any("says" in v.note for v in read_agreement(votes(*items), seed=0, num_resamples=200).verdicts())


def test_unanimous_votes_give_no_made_up_alpha():
    reading = read_agreement(votes("aa", "aa", "aa"), seed=0, num_resamples=200)
    assert "Krippendorff's alpha" not in {f.name for f in reading.figures()}
    assert reading.verdicts()[1].outcome == "STOP"
    assert any("unanimous" in note for note in reading.notes())
    dump_json([f.value for f in reading.figures()])


def test_three_labels_imply_no_kappa_and_no_ceiling():
    reading = read_agreement(votes("aa", "bt", "tt"), seed=0, num_resamples=200)
    assert "kappa that the percentage implies" not in {f.name for f in reading.figures()}
    assert read_ceiling(votes("aa", "bt", "tt"), percent=reading.percent) is None


@given(st.floats(0.5, 1), st.floats(0, 0.2))
def test_flip_rate_and_ceiling_invert_agreement(p, width):
    """f^2 + (1 - f)^2 = p, and the ceiling is 1 - f; a wider interval of agreement gives a wider one of both."""
    ceiling = read_ceiling(votes("ab", "aa"), percent=Interval(p, max(0.5, p - width), min(1.0, p + width), 50))
    f = ceiling.flip_rate
    assert f.value**2 + (1 - f.value) ** 2 == pytest.approx(p)
    assert ceiling.vote.value == pytest.approx(1 - f.value)
    assert f.low <= f.value <= f.high
    assert ceiling.vote.low <= ceiling.vote.value <= ceiling.vote.high


def test_published_rows_stand_beside_ours():
    table = read_agreement(votes("aa", "bb", "ab"), seed=0, num_resamples=200).table()
    assert ("InstructGPT, training labelers", "labeler with labeler", 0.726) in {row[:3] for row in table.rows}
    assert table.rows[0][:2] == ("these votes", "percent agreement")


@pytest.mark.parametrize(
    ("scope", "num", "outcome", "words"),
    [
        ("toy", 499, "WARN", "500"), ("toy", 500, "PASS", ""), ("narrow", 999, "WARN", "5,000 are advised"),
        ("narrow", 1_000, "PASS", "5,000 are advised"), ("narrow", 5_000, "PASS", ""), ("general", 4_999, "WARN", "20,000 are advised"),
        ("general", 20_000, "PASS", ""), ("toy", 0, "WARN", ""),
    ],
)  # fmt: skip
def test_counts_by_scope(scope, num, outcome, words):
    result = judge_count(num, scope=scope)
    assert result.outcome == outcome
    assert words in result.line()
    assert bool(result.note) == ("advised" in words)


@pytest.mark.parametrize(
    ("scope", "num", "outcome"),
    [("toy", 1_999, "WARN"), ("narrow", 1_999, "STOP"), ("general", 1_999, "STOP"), ("narrow", 2_000, "PASS")],
)
def test_rl_against_a_learned_reward_needs_two_thousand(scope, num, outcome):
    assert rl_count_gate(scope).judge(num, n=num).outcome == outcome


def test_every_gate_says_what_the_guides_say_and_why_ours_differs():
    assert {g.name for g in stage.GATES} == {
        "preferences.agreement",
        "preferences.alpha",
        "preferences.count",
        "preferences.rl_count",
    }
    for gate in stage.GATES:
        assert gate.guide
        assert gate.reason
        assert all(limit is None or math.isfinite(limit) for limit in (gate.stop, gate.warn))
