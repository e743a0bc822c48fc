"""Pairs become preferences by the rules, every pair is accounted for, and a prompt never stands on both sides."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.records import Completion, Message, Preference, Prompt, Task
from fairlead.preferences.aggregate import PairOutcome
from fairlead.preferences.pairs import (
    Candidate,
    Ledger,
    Rules,
    build_preferences,
    check_pairs,
    count_contradictions,
    drop_repeats,
    log_odds,
    split_by_prompt,
)


def preference(question="q", chosen="good", rejected="bad", **changes):
    return Preference(prompt=(Message(role="user", content=question),), chosen=chosen, rejected=rejected, **changes)


def candidate(*, p_a=0.8, num_votes=3, texts=("first", "second"), is_rated=True):
    prompt = Prompt(messages=(Message(role="user", content="q"),), slice="s", source="own")
    a, b = (Completion(prompt_id=prompt.id, text=text, model="m") for text in texts)
    outcome = PairOutcome(p_a=p_a, num_votes=num_votes, agreement=0.75) if is_rated else None
    task = Task(prompt_id=prompt.id, completion_a=a.id, completion_b=b.id)
    return Candidate(task=task, prompt=prompt, a=a, b=b, outcome=outcome, judgments=("j-1", "j-2", "j-3"))


def build(*candidates, **rules):
    ledger = Ledger()
    return build_preferences(candidates, rules=Rules(**rules), ledger=ledger), ledger


@pytest.mark.parametrize(("p_a", "chosen", "p_chosen"), [(0.8, "first", 0.8), (0.3, "second", 0.7)])
def test_the_likelier_side_is_chosen_with_its_provenance(p_a, chosen, p_chosen):
    ((found,), _) = build(candidate(p_a=p_a))
    assert found.chosen == chosen
    assert found.p_chosen == pytest.approx(p_chosen)
    assert (found.num_votes, found.agreement, found.judgments) == (3, 0.75, ("j-1", "j-2", "j-3"))
    assert (found.slice, found.source, found.is_tie, found.margin) == ("s", "own", False, 0.0)
    assert found.chosen_id != found.rejected_id


@pytest.mark.parametrize(
    ("changes", "rules", "reason"),
    [
        ({"is_rated": False}, {}, "without a vote"),
        ({"num_votes": 2}, {"min_votes": 3}, "with fewer than 3 votes"),
        ({"texts": ("same", " same ")}, {}, "with equal texts"),
        ({"p_a": 0.5}, {}, "tied"),
        ({"p_a": 0.35}, {"min_posterior": 0.7}, "tied"),
    ],
)
def test_what_is_left_out_is_counted_by_reason(changes, rules, reason):
    kept, ledger = build(candidate(**changes), candidate(), **rules)
    assert len(kept) == 1
    assert ledger.dropped == {reason: 1}
    assert ledger.total_in == len(kept) + ledger.total_dropped


def test_ties_can_be_kept():
    kept, ledger = build(
        candidate(p_a=0.5), candidate(p_a=0.45), candidate(p_a=0.9), ties="keep", min_posterior=0.6, margin="log_odds"
    )
    assert [p.is_tie for p in kept] == [True, True, False]
    assert [p.margin for p in kept] == pytest.approx([0, 0, math.log(9)])
    assert not ledger.dropped


def test_margins_are_capped():
    """ln(0.99 / 0.01) = 4.595, however sure the rater model is."""
    assert log_odds(0.999999) == log_odds(1.0) == pytest.approx(4.595, abs=1e-3)
    assert log_odds(0.75) == pytest.approx(math.log(3))


def test_equal_pairs_are_merged_and_the_best_rated_stays():
    ledger = Ledger()
    rows = [preference(num_votes=1), preference("other"), preference(num_votes=5), preference(num_votes=3)]
    kept = drop_repeats(rows, ledger)
    assert kept == [rows[2], rows[1]]
    assert ledger.dropped == {"repeating another pair": 2}


def test_contradictions_are_counted_once():
    rows = [
        preference(),
        preference(chosen="bad", rejected="good"),
        preference("other"),
        preference("other", "bad", "good", is_tie=True),
    ]
    assert count_contradictions(rows) == 1


def test_preferences_of_a_file_follow_the_same_rules():
    ledger = Ledger()
    rows = [
        preference(),
        preference(chosen="x", rejected="x "),
        preference(p_chosen=0.6),
        preference(num_votes=1),
        preference(num_votes=0),
    ]
    kept = check_pairs(rows, rules=Rules(min_votes=2, min_posterior=0.7), ledger=ledger)
    assert ledger.dropped == {"with equal texts": 1, "tied": 1, "with fewer than 2 votes": 1}
    assert len(kept) == 2
    assert ledger.total_in == 5


ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz"), st.sampled_from(["train", "heldout"])), min_size=1
)


@given(ROWS, st.floats(0, 0.99), st.booleans())
def test_a_prompt_is_on_one_side_only(rows, heldout, knows_splits):
    table = [preference(q, chosen, "other", split=split if knows_splits else "train") for q, chosen, split in rows]
    result = split_by_prompt(table, heldout=heldout)
    sides = {}
    for before, after in zip(table, result, strict=True):
        assert (before.prompt, before.chosen) == (after.prompt, after.chosen)
        assert sides.setdefault(after.prompt, after.split) == after.split
    known = {p.prompt for p in table if p.split == "heldout"}
    if known:
        assert {prompt for prompt, side in sides.items() if side == "heldout"} == known
    else:
        assert "train" in sides.values()
        assert ("heldout" in sides.values()) == (heldout > 0 and len(sides) > 1)


@given(st.sets(st.integers(0, 200), min_size=30, max_size=60), st.sets(st.integers(201, 400), max_size=60))
def test_a_prompt_stays_on_its_side_when_others_arrive(first, later):
    before = {p.prompt: p.split for p in split_by_prompt([preference(f"q{i}") for i in sorted(first)], heldout=0.2)}
    after = {
        p.prompt: p.split for p in split_by_prompt([preference(f"q{i}") for i in sorted(first | later)], heldout=0.2)
    }
    assert all(after[prompt] == side for prompt, side in before.items())


def test_the_share_of_held_out_prompts_is_met():
    result = split_by_prompt([preference(f"q{i}") for i in range(2000)], heldout=0.1)
    num = Counter(p.split for p in result)["heldout"]
    assert abs(num - 200) < 4 * math.sqrt(2000 * 0.1 * 0.9)
