import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.errors import DataError
from fairlead.stats.aggregation import accuracy_with_ties, dawid_skene, majority, one_coin, weighted
from fairlead.stats.votes import UNKNOWN, votes_from_rows
from naive import stats_naive as naive

LABELS = ("0", "1", "2")


def simulate(rng, *, num_items, accuracies, votes_per_item, num_labels=2, biases=None):
    """Rows, truth and swaps of raters who are right with their accuracy; biases are log-odds towards the left side."""
    truth = rng.integers(0, num_labels, num_items)
    rows, swaps = [], []
    for item in range(num_items):
        for rater in rng.choice(len(accuracies), votes_per_item, replace=False):
            is_swapped = bool(rng.random() < 0.5)
            if biases is None:
                wrong = int((truth[item] + rng.integers(1, num_labels)) % num_labels)
                label = int(truth[item]) if rng.random() < accuracies[rater] else wrong
            else:
                ability = math.log(accuracies[rater] / (1 - accuracies[rater]))
                is_left_better = (truth[item] == 0) != is_swapped
                odds = (ability if is_left_better else -ability) + biases[rater]
                votes_left = rng.random() < 1 / (1 + math.exp(-odds))
                label = int(votes_left == is_swapped)
            rows.append((f"i{item}", f"r{rater}", str(label)))
            swaps.append(is_swapped)
    votes = votes_from_rows(rows, label_names=LABELS[:num_labels], swapped=swaps)
    return votes, truth[[int(name[1:]) for name in votes.item_names]]


def by_rater(votes, values):
    """Sort values of raters r0, r1, ... by their number."""
    return np.array([values[votes.rater_names.index(f"r{r}")] for r in range(votes.num_raters)])


@st.composite
def vote_rows(draw):
    num_items, num_raters = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    cells = [(i, r) for i in range(num_items) for r in range(num_raters)]
    kept = draw(st.lists(st.sampled_from(cells), min_size=1, unique=True))
    return [(f"i{i}", f"r{r}", draw(st.sampled_from(LABELS))) for i, r in kept]


def naive_posterior(votes, posterior):
    return {name: list(posterior[i]) for i, name in enumerate(votes.item_names)}


def test_majority_shares_ties_and_credit():
    """q1 is 2:1 for A; q2 is tied, so each of its votes earns half: ann (1 + 1/2)/2, bob (1 + 1/2)/2, cyd 0."""
    rows = [("q1", "ann", "A"), ("q1", "bob", "A"), ("q1", "cyd", "B"), ("q2", "ann", "A"), ("q2", "bob", "B")]
    found = majority(votes_from_rows(rows))
    assert found.posterior.tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)], [0.5, 0.5]]
    assert found.is_tied.tolist() == [False, True]
    assert found.labels.tolist() == [0, 0]
    assert found.rater_accuracy.tolist() == [0.75, 0.75, 0.0]


def test_accuracy_on_ties_is_the_expected_value_whatever_the_label_order():
    """One item right, one tied two ways (1/2), one tied three ways (1/3), one without known truth."""
    rows = [("a", "x", "1"), ("b", "x", "0"), ("b", "y", "1"), ("c", "x", "0"), ("c", "y", "1"), ("c", "z", "2")]
    votes = votes_from_rows([*rows, ("d", "x", "0")])
    found = accuracy_with_ties(majority(votes), np.array([1, 0, 2, UNKNOWN]))
    assert found == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert math.isnan(accuracy_with_ties(majority(votes), np.full(4, UNKNOWN)))


@given(vote_rows())
def test_one_coin_is_a_fixed_point_of_the_loop_over_votes(rows):
    votes = votes_from_rows(rows, label_names=LABELS)
    found = one_coin(votes, max_iterations=3000)
    numbers = [(item, rater, int(label)) for item, rater, label in rows]
    again, accuracy = naive.one_coin_step(numbers, naive_posterior(votes, found.posterior), 3)
    for i, name in enumerate(votes.item_names):
        assert found.posterior[i] == pytest.approx(again[name], abs=1e-5)
    for r, name in enumerate(votes.rater_names):
        assert found.rater_accuracy[r] == pytest.approx(accuracy[name], abs=1e-5)


@given(vote_rows(), st.integers(1, 3))
def test_dawid_skene_rounds_equal_the_loop_over_votes(rows, num_rounds):
    votes = votes_from_rows(rows, label_names=LABELS)
    numbers = [(item, rater, int(label)) for item, rater, label in rows]
    expected = naive_posterior(votes, majority(votes).posterior)
    for _ in range(num_rounds):
        expected, _ = naive.dawid_skene_step(numbers, expected, 3, smoothing=0.5)
    found = dawid_skene(votes, smoothing=0.5, max_iterations=num_rounds)
    if found.iterations == num_rounds:
        for i, name in enumerate(votes.item_names):
            assert found.posterior[i] == pytest.approx(expected[name], abs=1e-8)


@given(vote_rows(), st.permutations(range(3)))
def test_renaming_labels_renames_the_posterior(rows, order):
    renamed = [(item, rater, LABELS[order[int(label)]]) for item, rater, label in rows]
    votes, other = votes_from_rows(rows, label_names=LABELS), votes_from_rows(renamed, label_names=LABELS)
    for aggregate in (majority, one_coin, dawid_skene):
        assert aggregate(other).posterior[:, order] == pytest.approx(aggregate(votes).posterior, abs=1e-4)


@given(vote_rows())
def test_posteriors_are_probabilities(rows):
    votes = votes_from_rows(rows, label_names=LABELS)
    for found in (
        majority(votes),
        one_coin(votes),
        dawid_skene(votes),
        weighted(votes, np.full(votes.num_raters, 0.8)),
    ):
        assert found.posterior.sum(1) == pytest.approx(1)
        assert (found.posterior >= 0).all()
        assert (found.labels == np.argmax(found.posterior, axis=1)).all() or found.is_tied.any()


def test_one_coin_finds_who_is_guessing_and_beats_the_majority_with_uneven_raters():
    rng = np.random.default_rng(0)
    accuracies = np.array([0.95, 0.90, 0.5, 0.5, 0.55])
    votes, truth = simulate(rng, num_items=600, accuracies=accuracies, votes_per_item=5)
    found = one_coin(votes)
    assert by_rater(votes, found.rater_accuracy) == pytest.approx(accuracies, abs=0.07)
    assert accuracy_with_ties(found, truth) > accuracy_with_ties(majority(votes), truth) + 0.05


def test_three_votes_of_many_raters_gain_nothing_as_the_reference_table_says():
    """20 raters, 3 votes per item, accuracies N(.72, .10): majority .812, one-coin .810, two-coin .806."""
    scores = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        accuracies = np.clip(rng.normal(0.72, 0.1, 20), 0.5, 0.97)
        votes, truth = simulate(rng, num_items=500, accuracies=accuracies, votes_per_item=3)
        scores.append([accuracy_with_ties(f(votes), truth) for f in (majority, one_coin, dawid_skene)])
    means = np.mean(scores, axis=0)
    assert means == pytest.approx([0.812, 0.810, 0.806], abs=0.02)


def test_five_votes_with_coin_flippers_gain_as_the_reference_table_says():
    """20 raters, 5 votes per item, 20% coin-flippers, the others .78: majority .866, one-coin .881."""
    scores = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        accuracies = np.where(np.arange(20) < 4, 0.5, 0.78)
        votes, truth = simulate(rng, num_items=500, accuracies=accuracies, votes_per_item=5)
        scores.append([accuracy_with_ties(f(votes), truth) for f in (majority, one_coin)])
    means = np.mean(scores, axis=0)
    assert means == pytest.approx([0.866, 0.881], abs=0.015)
    assert means[1] > means[0]


def test_side_bias_is_found_per_rater_and_removed_from_the_labels():
    rng = np.random.default_rng(1)
    accuracies, biases = np.full(6, 0.8), np.array([0.0, 0.0, 3.0, -3.0, 3.0, 0.0])
    votes, truth = simulate(rng, num_items=900, accuracies=accuracies, votes_per_item=4, biases=biases)
    found, plain = one_coin(votes, side_bias=True), one_coin(votes)
    assert by_rater(votes, found.side_bias) == pytest.approx(biases, abs=0.5)
    assert accuracy_with_ties(found, truth) > accuracy_with_ties(plain, truth) + 0.01


def test_exchanging_the_completions_of_a_pair_exchanges_its_posterior_and_keeps_the_bias():
    rng = np.random.default_rng(2)
    votes, _ = simulate(rng, num_items=80, accuracies=np.full(4, 0.75), votes_per_item=3, biases=np.full(4, 1.0))
    rows = [
        (votes.item_names[i], votes.rater_names[r], str(1 - label))
        for i, r, label in zip(votes.items, votes.raters, votes.labels, strict=True)
    ]
    mirrored = votes_from_rows(rows, label_names=LABELS[:2], swapped=list(~votes.swapped))
    found, other = one_coin(votes, side_bias=True), one_coin(mirrored, side_bias=True)
    assert other.posterior[:, ::-1] == pytest.approx(found.posterior, abs=1e-5)
    assert other.side_bias == pytest.approx(found.side_bias, abs=1e-4)
    assert (found.side_bias > 0).all()


def test_votes_without_sides_teach_nothing_about_a_rater_and_count_by_ability_alone():
    rng = np.random.default_rng(3)
    rows = [(f"q{i}", f"r{k}", str(int(rng.random() < 0.5))) for i in range(30) for k in range(3)]
    swaps = [bool(rng.random() < 0.5) for _ in rows]
    edits = [(f"edit{i}", "r0", "0") for i in range(20)]
    told = one_coin(votes_from_rows(rows, label_names=("0", "1"), swapped=swaps), side_bias=True)
    mixed = one_coin(
        votes_from_rows(rows + edits, label_names=("0", "1"), swapped=swaps + [None] * len(edits)), side_bias=True
    )
    assert mixed.side_bias == pytest.approx(told.side_bias, abs=1e-6)
    assert mixed.rater_accuracy == pytest.approx(told.rater_accuracy, abs=1e-6)
    as_sided = one_coin(
        votes_from_rows(rows + edits, label_names=("0", "1"), swapped=swaps + [False] * len(edits)), side_bias=True
    )
    assert as_sided.side_bias[0] > told.side_bias[0] + 0.1, "what it would be if an edit stood on the left"
    alone = one_coin(votes_from_rows(edits, label_names=("0", "1"), swapped=[None] * len(edits)), side_bias=True)
    assert np.isnan(alone.rater_accuracy).all() and alone.side_bias == pytest.approx([0])
    assert alone.posterior[:, 0] == pytest.approx(np.full(20, 2 / 3)), "the prior's accuracy: two of three"


def test_side_bias_needs_two_labels_and_the_sides():
    with pytest.raises(DataError, match=r"votes\.swapped is not recorded"):
        one_coin(votes_from_rows([("q", "a", "A"), ("q", "b", "B")]), side_bias=True)
    three = votes_from_rows([("q", "a", "A")], label_names=("A", "B", "tie"), swapped=[True])
    with pytest.raises(DataError, match="cannot show a side bias; expected two labels"):
        one_coin(three, side_bias=True)


@pytest.mark.parametrize("aggregate", [one_coin, dawid_skene])
def test_gold_items_are_held_and_settle_who_is_right(aggregate):
    """Two raters disagree on everything; gold on a third of the items says that ann is right."""
    rows = [(f"q{i}", rater, str((i + shift) % 2)) for i in range(30) for rater, shift in (("ann", 0), ("bob", 1))]
    votes = votes_from_rows(rows)
    assert aggregate(votes).is_tied.all()
    found = aggregate(votes, gold={f"q{i}": str(i % 2) for i in range(10)})
    assert (found.labels == np.arange(30) % 2).all()
    assert found.posterior[:10].max(1).tolist() == [1.0] * 10
    assert found.rater_accuracy[0] > 0.8 > 0.2 > found.rater_accuracy[1]


def test_gold_must_be_a_known_label():
    with pytest.raises(DataError, match=r"gold\.q=C is not a label"):
        one_coin(votes_from_rows([("q", "a", "A")]), gold={"q": "C"})


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_mirrored_solution_is_never_chosen(seed, side_bias):
    """Raters of any accuracy, bad ones included: labels exchanged and everybody wrong would fit as well."""
    rng = np.random.default_rng(seed)
    votes, _ = simulate(rng, num_items=12, accuracies=rng.uniform(0, 1, 5), votes_per_item=int(rng.integers(1, 6)))
    found = one_coin(votes, side_bias=side_bias)
    assert found.rater_accuracy[votes.raters].mean() > 0.5


def test_known_accuracies_weigh_votes_by_their_log_odds():
    """Shrunk accuracies (.9*97+2)/100 = .893 and (.6*97+2)/100 = .602: one good rater beats two poor ones.

    Odds for A: .893/.107 / (.602/.398)^2 = 8.346 / 2.288 = 3.648, so P(A) = .785.
    """
    votes = votes_from_rows([("q", "good", "A"), ("q", "p1", "B"), ("q", "p2", "B")])
    found = weighted(votes, [0.9, 0.6, 0.6], num_observed=[97, 97, 97])
    assert found.posterior[0, 0] == pytest.approx(0.785, abs=1e-3)


def test_perfect_and_unknown_accuracies_are_shrunk_to_finite_weights():
    votes = votes_from_rows([("q", "new", "A"), ("q", "perfect", "B")])
    found = weighted(votes, [math.nan, 1.0], num_observed=[0, 10])
    odds = (12 / 13) / (1 / 13) / 2
    assert found.posterior[0, 1] == pytest.approx(odds / (1 + odds))


def test_a_rater_without_votes_has_no_accuracy():
    votes = votes_from_rows([("q", "a", "A"), ("q", "b", "A")])
    idle = type(votes)(items=votes.items, raters=votes.raters, labels=votes.labels, item_names=votes.item_names,
                       rater_names=("a", "b", "idle"), label_names=("A", "B"))  # fmt: skip
    for found in (majority(idle), one_coin(idle), dawid_skene(idle)):
        assert math.isnan(found.rater_accuracy[2])
        assert np.isfinite(found.rater_accuracy[:2]).all()


@pytest.mark.parametrize("labels", [("A", "B"), ()])
def test_no_votes_give_an_empty_aggregate(labels):
    empty = votes_from_rows([], label_names=labels)
    for aggregate in (majority, one_coin, dawid_skene):
        assert aggregate(empty).posterior.shape == (0, len(labels))


ANAESTHETISTS = (
    "111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3|232 2 2 2 3|"
    "444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1|222 2 2 2 1|222 1 3 2 2|"
    "222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|"
    "111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1|"
    "111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2"
)
"""Dawid and Skene 1979, table 1: fitness of 45 patients by five observers, the first of whom judged three times."""


@pytest.mark.parametrize("smoothing", [0, 1e-6])
def test_dawid_skene_gives_the_shares_and_error_rates_of_the_paper(smoothing):
    rows = [(str(patient), str(observer), vote) for patient, seen in enumerate(ANAESTHETISTS.split("|"))
            for observer, votes in enumerate(seen.split()) for vote in votes]  # fmt: skip
    found = dawid_skene(votes_from_rows(rows, label_names="1234", may_repeat=True), smoothing=smoothing)
    assert found.posterior.mean(0).round(2).tolist() == [0.40, 0.42, 0.11, 0.07]
    assert found.confusion[0].round(2).tolist() == [
        [0.89, 0.11, 0, 0],
        [0.07, 0.88, 0.05, 0],
        [0, 0.34, 0.66, 0],
        [0, 0, 0.56, 0.44],
    ]
    assert found.confusion[1].round(2).tolist() == [
        [0.83, 0.17, 0, 0],
        [0.05, 0.63, 0.31, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]
    assert found.labels[[2, 29, 35, 37]].tolist() == [1, 0, 3, 2]


def test_dawid_skene_leaves_votes_alone_where_nobody_shares_an_item():
    """Thirty raters, one vote an item, 3 in 5 for a: nothing can be learned, and the smoothing must not turn votes for b into a."""
    rng = np.random.default_rng(0)
    rows = [(str(i), str(i % 30), "ab"[int(rng.random() < 0.4)]) for i in range(100)]
    votes = votes_from_rows(rows)
    found = dawid_skene(votes)
    assert (found.posterior[votes.items, votes.labels] == 1).all() and np.isnan(found.rater_accuracy).all()
    gold = dawid_skene(votes, gold={str(i): rows[i][2] for i in range(100)})
    assert (gold.rater_accuracy > 0.6).all(), "gold checks a rater"


@pytest.mark.parametrize(
    ("accuracy", "num_observed"), [([1.2, 0.5], None), ([0.5], None), ([0.5, 0.5], [-3, 1]), ([0.5, 0.5], [np.inf, 1])]
)
def test_weights_that_are_not_shares_are_refused(accuracy, num_observed):
    votes = votes_from_rows([("q", "a", "A"), ("q", "b", "B")])
    with pytest.raises(DataError, match="accuracy"):
        weighted(votes, accuracy, num_observed=num_observed)


def test_smoothing_cannot_take_votes_away():
    with pytest.raises(DataError, match="smoothing=-1 takes votes away"):
        dawid_skene(votes_from_rows([("q", "a", "A")]), smoothing=-1)
