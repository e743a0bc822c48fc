"""Simulated raters follow their formula, and their answers depend on nothing else."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.core.protocols import Judge
from fairlead.core.records import Completion, Message, Prompt, Task
from fairlead.feedback.simulated import RaterTraits, ScoreTable, SimulatedRater, simulated_panel, uniform_draw

PROMPT = Prompt(messages=(Message(role="user", content="q"),))
A = Completion(prompt_id=PROMPT.id, text="abc", model="m")
B = Completion(prompt_id=PROMPT.id, text="abcdefg", model="m")
TRAITS = st.builds(
    RaterTraits, name=st.just("r"), ability=st.floats(0, 5), lapse=st.floats(0, 1), side_bias=st.floats(-3, 3),
    tie_width=st.floats(0, 2), length_bias=st.floats(-2, 2), half_life=st.none() | st.floats(1, 100),
)  # fmt: skip


def share_of_a(traits, *, difference, swapped=False, order=0, num=4000, seed=0):
    rater = SimulatedRater(traits, gold=ScoreTable("gold", {A.id: difference, B.id: 0.0}), seed=seed)
    tasks = [Task(prompt_id=PROMPT.id, completion_a=A.id, completion_b=B.id, meta={}, id=f"t{i}") for i in range(num)]
    return np.mean([rater.judge(t, PROMPT, A, B, swapped=swapped, order=order).verdict == "a" for t in tasks])


@pytest.mark.parametrize(
    ("traits", "swapped", "order", "logit", "lapse"),
    [
        (RaterTraits(name="plain", ability=2.0), False, 0, 2.0 * 0.5, 0.0),
        (RaterTraits(name="lapsing", ability=2.0, lapse=0.3), False, 0, 1.0, 0.3),
        (RaterTraits(name="left", ability=2.0, side_bias=0.8), False, 0, 1.8, 0.0),
        (RaterTraits(name="left", ability=2.0, side_bias=0.8), True, 0, 0.2, 0.0),
        (RaterTraits(name="drifting", ability=2.0, half_life=10.0), False, 20, 0.25, 0.0),
        (RaterTraits(name="long", ability=2.0, length_bias=1.0), False, 0, 1.0 + math.log(4 / 8), 0.0),
        (RaterTraits(name="clicking", ability=2.0, lapse=1.0), False, 0, 0.0, 1.0),
    ],
)
def test_the_share_of_verdicts_follows_the_formula(traits, swapped, order, logit, lapse):
    """P(a) = (1 - lapse) / (1 + exp(-logit)) + lapse / 2 at a gold difference of 0.5, within four standard errors."""
    expected = (1 - lapse) / (1 + math.exp(-logit)) + lapse / 2
    measured = share_of_a(traits, difference=0.5, swapped=swapped, order=order)
    assert abs(measured - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def test_a_tie_width_gives_ties_by_rao_and_kupper():
    """At equal scores P(tie) = 1 - 2 / (1 + e^w); for w = 1 that is 0.462."""
    p_a, p_tie, p_b = RaterTraits(name="r", tie_width=1.0).chances(0.0)
    assert p_tie == pytest.approx(0.4621, abs=1e-4)
    assert p_a == p_b


@given(TRAITS, st.floats(-20, 20), st.floats(-3, 3), st.booleans(), st.integers(0, 1000))
def test_chances_are_a_distribution_and_symmetric(traits, difference, ratio, swapped, order):
    chances = traits.chances(difference, log_length_ratio=ratio, swapped=swapped, order=order)
    assert sum(chances) == pytest.approx(1)
    assert all(0 <= p <= 1 for p in chances)
    mirrored = traits.chances(-difference, log_length_ratio=-ratio, swapped=not swapped, order=order)
    assert mirrored == pytest.approx(chances[::-1])


@given(st.floats(-3, 3), st.integers(0, 50), st.integers(0, 3))
def test_a_rater_without_side_bias_answers_alike_on_both_sides(difference, number, seed):
    rater = SimulatedRater(RaterTraits(name="r"), gold=ScoreTable("g", {A.id: difference, B.id: 0.0}), seed=seed)
    task = Task(prompt_id=PROMPT.id, completion_a=A.id, completion_b=B.id, guideline_version=str(number))
    verdicts = {rater.judge(task, PROMPT, A, B, swapped=s, order=o).verdict for s in (False, True) for o in (0, 9)}
    assert len(verdicts) == 1


def test_raters_draw_independently():
    """Two coin flippers agree on half of the tasks: equal draws would make it all of them."""
    tasks = [f"t{i}" for i in range(2000)]
    first, second = ([uniform_draw(0, name, t) < 0.5 for t in tasks] for name in ("r1", "r2"))
    agreed = sum(x == y for x, y in zip(first, second, strict=True))
    assert abs(agreed - 1000) < 4 * math.sqrt(500)


def test_unit_rescales_the_gold_score():
    gold = ScoreTable("g", {A.id: 3.0, B.id: 0.0})
    tenfold = ScoreTable("g", {A.id: 30.0, B.id: 0.0})
    for i in range(50):
        task = Task(prompt_id=PROMPT.id, completion_a=A.id, completion_b=B.id, id=f"t{i}")
        one = SimulatedRater(RaterTraits(name="r"), gold=gold, seed=0, unit=2.0).judge(task, PROMPT, A, B)
        assert one == SimulatedRater(RaterTraits(name="r"), gold=tenfold, seed=0, unit=20.0).judge(task, PROMPT, A, B)


def test_a_rater_is_a_judge():
    rater: Judge = SimulatedRater(RaterTraits(name="r"), gold=ScoreTable("g", {A.id: 1.0, B.id: 0.0}), seed=0)
    judgment = rater.judge(Task(prompt_id=PROMPT.id, completion_a=A.id, completion_b=B.id), PROMPT, A, B)
    assert (judgment.rater, judgment.rater_kind) == ("r", "simulated")


@pytest.mark.parametrize("num_raters", [5, 10, 20, 40])
def test_the_panel_has_its_weak_members(num_raters):
    panel = simulated_panel(num_raters, seed=3)
    assert len({t.name for t in panel}) == num_raters
    assert sum(t.lapse == 1 for t in panel) == 1
    assert sum(t.half_life is not None for t in panel) == 1
    assert sum(t.side_bias != 0 for t in panel) == num_raters // 5
    assert max(t.ability for t in panel) > 1.3 * min(t.ability for t in panel)
    assert panel == simulated_panel(num_raters, seed=3) != simulated_panel(num_raters, seed=4)


def test_a_tiny_panel_is_honest():
    assert all(t.lapse == 0 and t.half_life is None and t.side_bias == 0 for t in simulated_panel(4, seed=0))
