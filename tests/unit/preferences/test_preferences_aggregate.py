"""Votes to probabilities: by hand, by symmetry, and better than single votes on a panel with a known truth."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from preferences_example import draw_judgments

from fairlead.core.records import NO_SIDE, Judgment, Task
from fairlead.preferences.aggregate import Verdicts, aggregate_pairs, choose_method
from fairlead.preferences.raters import read_raters
from fairlead.preferences.truth import read_truth

METHODS = ("majority", "dawid_skene", "one_coin", "one_coin_side_bias", "weighted")
VERDICTS = st.sampled_from(["a", "b", "tie", "both_bad", "skip"])
JUDGMENTS = st.dictionaries(
    st.tuples(st.sampled_from(["t1", "t2", "t3"]), st.sampled_from(["r1", "r2", "r3"])),
    st.tuples(VERDICTS, st.booleans()),
    min_size=1,
)


def judgment(task, rater, verdict, *, swapped=False):
    return Judgment(task_id=task, rater=rater, rater_kind="human", verdict=verdict, swapped=swapped)


def verdicts(table):
    return Verdicts.from_judgments(judgment(task, rater, v, swapped=s) for (task, rater), (v, s) in table.items())


def test_majority_by_hand():
    """Votes a, a, b, tie, skip, both bad: t = 2/5, p(a | decided) = 2/3, so p = 3/5 * 2/3 + 1/5 = 3/5; agreement 2/5."""
    table = {("t", f"r{i}"): (v, False) for i, v in enumerate(["a", "a", "b", "tie", "skip", "both_bad"])}
    found = verdicts(table)
    pair = aggregate_pairs(found, method="majority").pairs["t"]
    assert (found.num_skips, found.num_both_bad, pair.num_votes) == (1, 1, 5)
    assert pair.p_a == pytest.approx(0.6)
    assert pair.agreement == pytest.approx(0.4)


def test_a_pair_with_ties_only_is_undecided():
    outcome = aggregate_pairs(
        verdicts({("t", "r1"): ("tie", False), ("t", "r2"): ("both_bad", True)}), method="one_coin"
    )
    assert outcome.pairs["t"].p_a == 0.5
    assert outcome.raters == {}


@pytest.mark.parametrize("method", METHODS)
@given(table=JUDGMENTS)
def test_exchanging_the_names_of_a_and_b_mirrors_the_probability(method, table):
    mirror = {"a": "b", "b": "a"}
    mirrored = {key: (mirror.get(v, v), not s) for key, (v, s) in table.items()}
    first = aggregate_pairs(verdicts(table), method=method)
    second = aggregate_pairs(verdicts(mirrored), method=method)
    assert first.pairs.keys() == second.pairs.keys() == {task for (task, _), (v, _) in table.items() if v != "skip"}
    for task, pair in first.pairs.items():
        assert 0 <= pair.p_a <= 1
        assert pair.p_a == pytest.approx(1 - second.pairs[task].p_a, abs=1e-6)
        assert dataclasses.replace(pair, p_a=0) == dataclasses.replace(second.pairs[task], p_a=0)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_judgments_does_not_matter(method):
    judgments, _ = draw_judgments([0.6, 0.7, 0.8, 0.9], num_tasks=30, votes_per_task=3, seed=0)
    first = aggregate_pairs(Verdicts.from_judgments(judgments), method=method)
    assert aggregate_pairs(Verdicts.from_judgments(judgments[::-1]), method=method) == first


def test_auto_asks_for_exchanged_sides():
    both, one = verdicts({("t", "r1"): ("a", True), ("t", "r2"): ("a", False)}), verdicts({("t", "r1"): ("a", False)})
    assert choose_method("auto", both) == "one_coin_side_bias"
    assert choose_method("auto", one) == "one_coin"
    assert choose_method("majority", both) == "majority"


def test_a_reply_that_the_rater_wrote_has_no_side():
    """Of 100 raters' votes 40 are edits; their left share and bias are those of the 60 that were shown."""
    shown = [judgment(f"t{i}", "r", "a" if i % 2 else "b", swapped=i % 3 == 0) for i in range(60)]
    wrote = [
        Judgment(task_id=f"e{i}", rater="r", rater_kind="human", verdict="a", meta={"side": NO_SIDE}) for i in range(40)
    ]
    alone, mixed = Verdicts.from_judgments(shown), Verdicts.from_judgments(shown + wrote)
    assert (~mixed.sided).sum() == 40 and alone.sided.all()
    left = [read_raters(v.votes(), orders=v.order, outcomes={})[0].left for v in (alone, mixed)]
    assert left[0].n == left[1].n == 60 and left[0].value == left[1].value
    first, second = (aggregate_pairs(v, method="one_coin_side_bias").raters["r"] for v in (alone, mixed))
    assert second.side_bias == pytest.approx(first.side_bias, abs=1e-6)
    only = Verdicts.from_judgments(wrote)
    assert choose_method("auto", only) == "one_coin"
    assert aggregate_pairs(only, method="one_coin_side_bias").raters["r"].accuracy is None


def test_side_bias_and_accuracy_are_recovered():
    """Ten raters with 1,200 votes each: biases of +1, -0.8 and 0 logits come back within 0.3, accuracies within 0.05."""
    accuracies = [0.62, 0.65, 0.7, 0.72, 0.75, 0.78, 0.8, 0.82, 0.85, 0.9]
    judgments, _ = draw_judgments(accuracies, num_tasks=2400, votes_per_task=5, seed=1, side_bias={2: 1.0, 6: -0.8})
    raters = aggregate_pairs(Verdicts.from_judgments(judgments), method="one_coin_side_bias").raters
    for number, accuracy in enumerate(accuracies):
        found = raters[f"r{number:02d}"]
        assert found.side_bias == pytest.approx({2: 1.0, 6: -0.8}.get(number, 0.0), abs=0.3)
        if number not in (2, 6):
            assert found.accuracy == pytest.approx(accuracy, abs=0.05)
    assert all(
        r.side_bias is None
        for r in aggregate_pairs(Verdicts.from_judgments(judgments), method="one_coin").raters.values()
    )


def test_aggregation_beats_single_votes_and_weighting_beats_the_majority():
    """Six able raters among six coin flippers, five votes a pair: every method beats one vote, and weighing raters beats the majority."""
    judgments, truth = draw_judgments([0.92] * 6 + [0.52] * 6, num_tasks=800, votes_per_task=5, seed=2)
    found = Verdicts.from_judgments(judgments)
    gold = {task: 1.0 if better == "a" else -1.0 for task, better in truth.items()}
    tasks = {task: Task(prompt_id=task, completion_a="a", completion_b="b", id=task) for task in truth}
    readings = {m: read_truth(found, aggregate_pairs(found, method=m), tasks=tasks, gold=gold) for m in METHODS}
    single = readings["majority"].single.value
    assert single == pytest.approx(0.72, abs=0.03)
    for method in METHODS:
        assert readings[method].gain.low > 0.05
        assert readings[method].gain.value == pytest.approx(readings[method].aggregated.value - single)
    for method in ("dawid_skene", "one_coin", "one_coin_side_bias", "weighted"):
        assert readings[method].aggregated.value > readings["majority"].aggregated.value + 0.02


def test_posteriors_are_calibrated():
    """Among pairs with p in a band, the share whose truth is the likelier side is p, within four standard errors."""
    judgments, truth = draw_judgments([0.6, 0.65, 0.7, 0.75, 0.8, 0.85] * 3, num_tasks=3000, votes_per_task=4, seed=3)
    pairs = aggregate_pairs(Verdicts.from_judgments(judgments), method="one_coin").pairs
    p = np.array([pair.p_chosen for pair in pairs.values()])
    hit = np.array([(pair.p_a >= 0.5) == (truth[task] == "a") for task, pair in pairs.items()])
    for low, high in ((0.5, 0.75), (0.75, 0.9), (0.9, 0.97), (0.97, 1.0)):
        band = (p >= low) & (p < high)
        assert band.sum() > 100
        assert abs(hit[band].mean() - p[band].mean()) < 4 * np.sqrt(0.25 / band.sum())
