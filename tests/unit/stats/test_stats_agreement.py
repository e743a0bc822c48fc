import math
import time

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss

from fairlead.core.errors import DataError
from fairlead.stats.agreement import (
    NO_SHARED_ITEMS,
    REFERENCE_ROWS,
    UNANIMOUS,
    UNEQUAL_VOTES,
    agreement_report,
    cohen_kappa,
    fleiss_kappa,
    gwet_ac1,
    kappa_from_percent,
    krippendorff_alpha,
    leave_one_out_outcomes,
    num_pairs,
    percent_agreement,
    rater_agreement,
    resample_weights,
)
from fairlead.stats.coincidence import ac1, alpha_fixed, alpha_ordinal, percent
from fairlead.stats.intervals import bootstrap_interval
from fairlead.stats.votes import counts, votes_from_rows
from naive import stats_naive as naive

LABELS = ("0", "1", "2")
LEVELS = ("nominal", "ordinal", "interval")


@st.composite
def vote_rows(draw, min_items=1):
    """Votes with holes: every rater votes on some of the items."""
    num_items, num_raters = draw(st.integers(min_items, 8)), draw(st.integers(2, 5))
    cells = [(i, r) for i in range(num_items) for r in range(num_raters)]
    kept = draw(st.lists(st.sampled_from(cells), min_size=1, unique=True))
    return [(f"i{i}", f"r{r}", draw(st.sampled_from(LABELS))) for i, r in kept]


def votes_of(rows):
    return votes_from_rows(rows, label_names=LABELS)


def numbers(rows):
    return [(item, rater, int(label)) for item, rater, label in rows]


def random_rows(rng, num_items, num_raters, *, quality=0.7):
    truth = rng.integers(0, 3, num_items)
    guess = rng.integers(0, 3, (num_items, num_raters))
    labels = np.where(rng.random((num_items, num_raters)) < quality, truth[:, None], guess)
    return [(f"i{i}", f"r{r}", str(labels[i, r])) for i in range(num_items) for r in range(num_raters)]


def same(found, expected):
    return found == pytest.approx(expected, abs=1e-9, nan_ok=True)


@given(vote_rows())
def test_every_statistic_equals_its_definition_with_missing_votes(rows):
    votes = votes_of(rows)
    assert same(percent_agreement(votes), naive.percent_agreement(rows))
    assert same(gwet_ac1(votes), naive.gwet_ac1(numbers(rows), 3))
    for level in LEVELS:
        expected = naive.krippendorff_alpha(numbers(rows), level=level, values=(0.0, 1.0, 2.0))
        assert same(krippendorff_alpha(votes, level=level), expected)


def test_alpha_equals_the_worked_example_of_krippendorff():
    """Krippendorff 2011, section C: 4 observers, 12 units; nominal .743, ordinal .815, interval .849."""
    observers = (
        ["1", "2", "3", "3", "2", "1", "4", "1", "2", ".", ".", "."],
        ["1", "2", "3", "3", "2", "2", "4", "1", "2", "5", ".", "3"],
        [".", "3", "3", "3", "2", "3", "4", "2", "2", "5", "1", "."],
        ["1", "2", "3", "3", "2", "4", "4", "1", "2", "5", "1", "."],
    )
    rows = [(str(u), str(o), v) for o, units in enumerate(observers) for u, v in enumerate(units) if v != "."]
    votes = votes_from_rows(rows)
    assert [round(krippendorff_alpha(votes, level=level), 3) for level in LEVELS] == [0.743, 0.815, 0.849]


DIAGNOSES = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 00501 30012 51000 02040 10203 "
    "00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"
)
"""Fleiss 1971, table 1: six psychiatrists and five diagnoses of 30 patients."""


def test_published_examples():
    """Fleiss 1971: kappa .430. Cohen 1960, table 1: kappa .492. Gwet, abstractors: AC1 .8493305, kappa .7964094 (irrCAC)."""
    patients = [[int(count) for count in row] for row in DIAGNOSES.split()]
    seen = [np.repeat(range(5), row) for row in patients]
    rows = [(str(i), str(r), str(label)) for i, labels in enumerate(seen) for r, label in enumerate(labels)]
    assert fleiss_kappa(votes_from_rows(rows)) == pytest.approx(0.430, abs=5e-4)
    assert cohen_kappa(*two_columns([[88, 14, 18], [10, 40, 10], [2, 6, 12]])).value == pytest.approx(0.492, abs=5e-4)
    first, second = two_columns([[13, 0, 0], [0, 20, 7], [0, 4, 56]])
    rows = [(str(i), r, str(x)) for r, column in (("a", first), ("b", second)) for i, x in enumerate(column)]
    assert gwet_ac1(votes_from_rows(rows)) == pytest.approx(0.8493305)
    assert krippendorff_alpha(votes_from_rows(rows)) == pytest.approx(0.7972585)
    assert cohen_kappa(first, second).value == pytest.approx(0.7964094)


def two_columns(table):
    """Label numbers of two raters from their table of counts."""
    cells = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [i for i, _ in cells], [j for _, j in cells]


@pytest.mark.parametrize(
    ("a", "b"), [([0], [0, 1, 1]), ([0, -1], [0, 1]), ([0.5, 1], [0, 1]), ([0, math.nan], [0, 1]), (["x"], ["y"])]
)
def test_cohen_refuses_what_are_not_two_columns_of_label_numbers(a, b):
    with pytest.raises(DataError):
        cohen_kappa(a, b)


def test_repeats_of_a_rater_are_not_agreement_between_raters():
    votes = votes_from_rows([("q", "ann", "1"), ("q", "ann", "1"), ("q", "bob", "0")], may_repeat=True)
    for statistic in (percent_agreement, krippendorff_alpha, num_pairs, rater_agreement):
        with pytest.raises(DataError, match="votes 2 times on the same item"):
            statistic(votes)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_fleiss_equals_statsmodels(seed, num_raters):
    votes = votes_of(random_rows(np.random.default_rng(seed), 12, num_raters))
    assert fleiss_kappa(votes) == pytest.approx(statsmodels_fleiss(counts(votes), method="fleiss"))


def test_fleiss_refuses_unequal_numbers_of_votes():
    rows = [("a", "r1", "0"), ("a", "r2", "1"), ("b", "r1", "0"), ("b", "r2", "0"), ("b", "r3", "0")]
    with pytest.raises(DataError, match="Use krippendorff_alpha"):
        fleiss_kappa(votes_of(rows))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=60),
    st.sampled_from([None, "linear", "quadratic"]),
)
def test_cohen_equals_scikit_learn_and_the_variance_of_statsmodels(pairs, weights):
    a, b = np.array(pairs).T
    assume(len(np.unique(a)) > 1 and len(np.unique(b)) > 1)
    found = cohen_kappa(a, b, weights=weights)
    labels = np.arange(max(a.max(), b.max()) + 1)
    assert found.value == pytest.approx(cohen_kappa_score(a, b, weights=weights, labels=labels))
    table = np.zeros((4, 4))
    np.add.at(table, (a, b), 1)
    if weights is None and found.value < 1 - 1e-9:
        theirs = cohens_kappa(table)
        assert found.low == pytest.approx(max(-1, theirs.kappa_low), abs=1e-9)
        assert found.high == pytest.approx(min(1, theirs.kappa_upp), abs=1e-9)
    elif found.value < 1 - 1e-9:
        credit = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) ** (1 if weights == "linear" else 2)
        theirs = cohens_kappa(table, weights=credit)
        assert found.high == pytest.approx(min(1, theirs.kappa_upp), abs=1e-9)


def test_cohen_says_when_it_is_undefined_or_without_width():
    assert cohen_kappa([1, 1, 1], [1, 1, 1]).note == UNANIMOUS
    assert cohen_kappa([], []).note == NO_SHARED_ITEMS
    assert math.isnan(cohen_kappa([0, 1, 0], [1, 1, 1]).high)
    assert cohen_kappa([0, 1, 0], [0, 1, 0]).note == "no disagreement was seen, so the interval has no width"


def test_kappa_of_balanced_pairs_is_twice_the_agreement_minus_one():
    """65% agreement with balanced sides: p_e = 1/2, so kappa = .30, as all statistics but for their small-sample terms say."""
    a = np.repeat([0, 0, 1, 1], [325, 175, 175, 325])
    b = np.repeat([0, 1, 0, 1], [325, 175, 175, 325])
    rows = [(str(i), rater, str(label[i])) for i in range(1000) for rater, label in (("a", a), ("b", b))]
    votes = votes_from_rows(rows)
    assert kappa_from_percent(0.65) == pytest.approx(0.30)
    assert cohen_kappa(a, b).value == pytest.approx(0.30)
    assert gwet_ac1(votes) == pytest.approx(0.30)
    assert krippendorff_alpha(votes) == pytest.approx(0.30, abs=1e-3)


def test_ac1_stays_high_where_one_label_dominates():
    """48 of 50 items AA, one AB, one BA: percent .96, alpha below 0, AC1 = (.96 - .0392) / (1 - .0392) = .958."""
    rows = [(str(i), r, "0") for i in range(48) for r in "ab"]
    rows += [("x", "a", "0"), ("x", "b", "1"), ("y", "a", "1"), ("y", "b", "0")]
    votes = votes_from_rows(rows)
    assert percent_agreement(votes) == pytest.approx(0.96)
    assert krippendorff_alpha(votes) < 0
    assert gwet_ac1(votes) == pytest.approx(0.9584, abs=1e-4)


@given(vote_rows(), st.permutations(range(3)))
def test_renaming_labels_changes_no_nominal_statistic(rows, order):
    renamed = [(item, rater, LABELS[order[int(label)]]) for item, rater, label in rows]
    for statistic in (percent_agreement, krippendorff_alpha, gwet_ac1):
        assert same(statistic(votes_of(renamed)), statistic(votes_of(rows)))


@given(vote_rows(), st.sampled_from(LEVELS))
def test_reversing_ranks_changes_no_ordered_statistic(rows, level):
    reversed_rows = [(item, rater, LABELS[2 - int(label)]) for item, rater, label in rows]
    found = krippendorff_alpha(votes_of(reversed_rows), level=level)
    assert same(found, krippendorff_alpha(votes_of(rows), level=level))


@given(vote_rows(), st.randoms(use_true_random=False))
def test_who_the_raters_are_and_the_order_of_votes_do_not_matter(rows, random):
    names = [f"r{r}" for r in range(5)]
    shuffled = random.sample(names, 5)
    renamed = [(item, shuffled[names.index(rater)], label) for item, rater, label in rows]
    random.shuffle(renamed)
    for statistic in (percent_agreement, krippendorff_alpha, gwet_ac1):
        assert same(statistic(votes_of(renamed)), statistic(votes_of(rows)))


@given(vote_rows())
def test_a_second_copy_of_the_items_leaves_the_value_but_for_the_small_sample_term_of_alpha(rows):
    """alpha = 1 - (n - 1) D / E with D linear and E quadratic in the items: (1 - alpha) / (n - 1) * n must not change."""
    votes, double = votes_of(rows), votes_of([*rows, *((f"{item}-copy", rater, label) for item, rater, label in rows)])
    assert same(percent_agreement(double), percent_agreement(votes))
    assert same(gwet_ac1(double), gwet_ac1(votes))
    n = sum(len(labels) for labels in naive.by_item(rows).values())
    assume(n > 1)
    scaled = (1 - krippendorff_alpha(votes)) * n / (n - 1)
    assert same((1 - krippendorff_alpha(double)) * 2 * n / (2 * n - 1), scaled)


@given(vote_rows())
def test_items_with_one_vote_are_inert(rows):
    votes, more = votes_of(rows), votes_of([*rows, ("alone", "r0", "2")])
    for statistic in (percent_agreement, krippendorff_alpha, gwet_ac1):
        assert same(statistic(more), statistic(votes))


def test_all_resamples_at_once_equal_one_by_one():
    """The multinomial weights of each resample, spelled out as repeated items, give the naive value of that resample."""
    rows = random_rows(np.random.default_rng(0), 15, 3)
    rows = [row for i, row in enumerate(rows) if i % 7]
    table = counts(votes_of(rows))
    table = table[table.sum(1) >= 2]
    distinct, times = np.unique(table, axis=0, return_counts=True)
    (weights,) = resample_weights(times, seed=1, num_resamples=20)
    assert (weights.sum(1) == len(table)).all()
    nominal, interval = 1 - np.eye(3), np.subtract.outer(np.arange(3.0), np.arange(3.0)) ** 2
    found = {
        "nominal": alpha_fixed(nominal)(distinct.astype(float), weights),
        "ordinal": alpha_ordinal(distinct.astype(float), weights),
        "interval": alpha_fixed(interval)(distinct.astype(float), weights),
    }
    shares, ac1s = percent(distinct.astype(float), weights), ac1(distinct.astype(float), weights)
    for b, weight in enumerate(weights.astype(int)):
        drawn = np.repeat(distinct, weight, axis=0)
        again = [(i, f"r{r}", label) for i, row in enumerate(drawn) for r, label in enumerate(np.repeat(range(3), row))]
        for level, values in found.items():
            assert same(values[b], naive.krippendorff_alpha(again, level=level, values=(0.0, 1.0, 2.0)))
        assert same(shares[b], naive.percent_agreement(again))
        assert same(ac1s[b], naive.gwet_ac1(again, 3))


@pytest.mark.parametrize(("num_items", "method"), [(60, "bca"), (150, "percentile")])
def test_the_report_agrees_with_resampling_items_one_by_one(num_items, method):
    rows = random_rows(np.random.default_rng(2), num_items, 3)
    table, votes = counts(votes_of(rows)), votes_of(rows)
    nominal = alpha_fixed(1 - np.eye(3))

    def alpha_of(items):
        return float(nominal(table[items].astype(float), np.ones((1, len(items))))[0])

    slow = bootstrap_interval(alpha_of, num_items, seed=3, num_resamples=4000, method=method)
    fast = agreement_report(votes, seed=4, num_resamples=4000)["krippendorff_alpha"]
    assert fast.value == pytest.approx(slow.value)
    assert fast.value == pytest.approx(krippendorff_alpha(votes))
    assert (fast.low, fast.high) == (pytest.approx(slow.low, abs=0.012), pytest.approx(slow.high, abs=0.012))


def test_the_report_has_every_statistic_and_is_repeatable():
    rows = random_rows(np.random.default_rng(5), 120, 2)
    report = agreement_report(votes_of(rows), seed=0)
    assert set(report) == {"percent_agreement", "krippendorff_alpha", "gwet_ac1", "fleiss_kappa", "cohen_kappa"}
    assert all(i.low < i.value < i.high and i.n == 120 and not i.note for i in report.values())
    assert report == agreement_report(votes_of(rows), seed=0) != agreement_report(votes_of(rows), seed=1)
    assert report["fleiss_kappa"].value == pytest.approx(fleiss_kappa(votes_of(rows)))
    assert num_pairs(votes_of(rows)) == 120


def test_cohen_in_the_report_reads_the_items_that_both_raters_rated():
    rows = [("a", "x", "0"), ("a", "y", "0"), ("b", "y", "1"), ("b", "x", "1"), ("c", "x", "2")]
    rows += [("d", "x", "1"), ("d", "y", "0")]
    found = agreement_report(votes_of(rows), seed=0)["cohen_kappa"]
    assert found == cohen_kappa([0, 1, 1], [0, 1, 0])


def test_unanimous_votes_are_undefined_and_say_so():
    report = agreement_report(votes_of([(str(i), r, "1") for i in range(5) for r in "ab"]), seed=0)
    assert report["krippendorff_alpha"].note == report["fleiss_kappa"].note == report["cohen_kappa"].note == UNANIMOUS
    assert math.isnan(report["krippendorff_alpha"].value)
    assert report["percent_agreement"].value == 1.0


def test_a_single_disagreement_leaves_some_resamples_undefined_and_counts_them():
    rows = [(str(i), r, "1") for i in range(5) for r in "ab"] + [("x", "a", "1"), ("x", "b", "0")]
    found = agreement_report(votes_of(rows), seed=0)["krippendorff_alpha"]
    lost = int(found.note.split()[2])
    assert 0.25 < lost / 2000 < 0.42, "(5/6)^6 = .335 of the resamples miss the item"


def test_one_item_has_a_value_and_no_interval():
    report = agreement_report(votes_of([("a", "x", "0"), ("a", "y", "1"), ("a", "z", "1")]), seed=0)
    assert report["percent_agreement"].value == pytest.approx(1 / 3)
    assert all(math.isnan(i.low) and math.isnan(i.high) and i.n == 1 and i.note for i in report.values())


def test_perfect_agreement_has_no_width_and_says_so():
    report = agreement_report(votes_of([("a", "x", "0"), ("a", "y", "0"), ("b", "x", "1"), ("b", "y", "1")]), seed=0)
    assert all((i.value, i.low, i.high) == (1, 1, 1) and "no width" in i.note for i in report.values())


def test_without_shared_items_nothing_is_measured():
    report = agreement_report(votes_of([("a", "x", "0"), ("b", "y", "0")]), seed=0)
    assert {i.note for i in report.values()} == {NO_SHARED_ITEMS}
    assert math.isnan(percent_agreement(votes_of([("a", "x", "0")])))


def test_unequal_numbers_of_votes_leave_fleiss_out():
    rows = random_rows(np.random.default_rng(6), 20, 3)[1:]
    assert agreement_report(votes_of(rows), seed=0)["fleiss_kappa"].note == UNEQUAL_VOTES


@given(vote_rows())
def test_rater_agreement_equals_a_loop_over_the_other_raters(rows):
    found = rater_agreement(votes_of(rows))
    expected = naive.rater_agreement(rows)
    assert {name: i.n for name, i in found.items()} == {name: n for name, (_, n) in expected.items()}
    for name, (agreed, n) in expected.items():
        assert same(found[name].value, agreed / n if n else math.nan)


def test_the_interval_covers_the_true_alpha():
    """Two raters who agree on 70% of balanced pairs have alpha .40; of 100 studies of 150 items about 95 must cover it."""
    rng, covered = np.random.default_rng(7), 0
    for _ in range(100):
        a = rng.integers(0, 2, 150)
        b = np.where(rng.random(150) < 0.7, a, 1 - a)
        rows = [(str(i), r, str(x[i])) for i in range(150) for r, x in (("a", a), ("b", b))]
        found = agreement_report(votes_of(rows), seed=0, num_resamples=400)["krippendorff_alpha"]
        covered += found.low <= 0.4 <= found.high
    assert 88 <= covered <= 99


def test_eight_thousand_items_with_many_raters_take_seconds():
    rng = np.random.default_rng(8)
    table = rng.multinomial(30, [0.5, 0.2, 0.2, 0.1], size=8000)
    rows = [
        (f"i{i}", f"r{r}", str(label))
        for i, row in enumerate(table)
        for r, label in enumerate(np.repeat(range(4), row))
    ]
    votes, start = votes_from_rows(rows), time.process_time()
    agreement_report(votes, seed=0)
    assert time.process_time() - start < 10


def test_reference_rows_are_shares_with_sources():
    assert len(REFERENCE_ROWS) >= 14
    assert all(0 < row.value < 1 and row.source and row.measure for row in REFERENCE_ROWS)
    ties = {row.measure: row.value for row in REFERENCE_ROWS if row.data == "MT-bench"}
    assert ties["human with human, without ties"] - ties["human with human, ties included"] == pytest.approx(0.18)


def test_outcomes_in_order_are_what_rater_agreement_counts():
    rows = [("1", "a", "A"), ("1", "b", "A"), ("1", "c", "B"), ("2", "a", "B"), ("2", "b", "A"), ("3", "c", "A")]
    found = leave_one_out_outcomes(votes_from_rows(rows))
    assert found == {"a": [("2", False)], "b": [("2", False)], "c": [("1", False)]}
    counted = {name: (sum(ok for _, ok in pairs), len(pairs)) for name, pairs in found.items()}
    assert counted == naive.rater_agreement(rows)
