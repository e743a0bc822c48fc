"""Monitors: each threshold on both sides, alarms that need two conditions, a collapse seen from texts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.records import Completion
from fairlead.evals import monitors
from fairlead.evals.monitors import (
    Signals,
    is_flat,
    judge_boilerplate,
    judge_change,
    judge_collapse,
    judge_entropy,
    judge_kl,
    judge_relative,
    judge_signals,
    judge_truncation,
    measure_signals,
)

RNG = np.random.default_rng(0)
JITTER = RNG.normal(0, 0.01, 64)
JITTER -= JITTER.mean()


@pytest.mark.parametrize(("kl", "outcome"), [(0.0, "PASS"), (0.3, "PASS"), (0.6, "WARN"), (1.2, "STOP")])
def test_kl_is_an_upper_band(kl, outcome):
    assert judge_kl(kl + JITTER).outcome == outcome


def test_a_kl_below_zero_beyond_chance_is_a_bug_and_stops():
    wrong = judge_kl(-0.1 + JITTER)
    assert wrong.outcome == "STOP"
    assert "disagree" in wrong.note
    noisy = RNG.normal(0, 1, 64)
    assert judge_kl(noisy - noisy.mean() - 0.1).outcome == "PASS"  # 0.1 below 0 with standard error 0.125


@pytest.mark.parametrize(
    ("kl", "slope", "outcome"),
    [(0.001, 0.0, "WARN"), (0.001, 0.05, "PASS"), (0.2, 0.0, "PASS"), (0.2, 0.05, "PASS")],
)
def test_collapse_needs_low_kl_and_a_flat_reward(kl, slope, outcome):
    steps = np.arange(60)
    reward = RNG.normal(0, 0.2, 60) + slope * steps
    assert judge_collapse(np.full(60, kl), reward).outcome == outcome


def test_warm_up_is_left_out_of_the_collapse_alarm():
    """The reward moves only in the first fifth; afterwards it is flat at KL 0, and that is the alarm."""
    reward = np.concatenate([np.linspace(-5, 0, 12), np.zeros(48)])
    assert judge_collapse(np.zeros(60), reward).outcome == "WARN"


@settings(deadline=None, max_examples=25)
@given(st.integers(4, 60), st.floats(0.1, 10), st.floats(-5, 5), st.integers(0, 999))
def test_a_line_is_not_flat_and_an_alternation_is(num, slope, start, seed):
    noise = np.random.default_rng(seed).normal(0, 1e-6, num)
    assert not is_flat(start + slope * np.arange(num) + noise)
    assert is_flat(np.full(num, start))
    assert is_flat(start + np.array([1, -1, -1, 1] * num))


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        (monitors.SELF_BLEU, {0.05: "PASS", 0.15: "WARN", 0.30: "STOP", -0.30: "PASS"}),
        (monitors.REPETITION, {0.02: "PASS", 0.10: "WARN", 0.25: "STOP"}),
    ],
)
def test_absolute_changes(gate, changes):
    reference = 0.3 + RNG.normal(0, 0.05, 64)
    for change, outcome in changes.items():
        assert judge_change(gate, reference, reference + change + JITTER).outcome == outcome


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        (monitors.LENGTH, {0.2: "PASS", 0.3: "WARN", 1.2: "STOP", -0.6: "PASS"}),
        (monitors.DISTINCT, {-0.2: "PASS", -0.3: "WARN", -0.6: "STOP", 0.5: "PASS"}),
    ],
)
def test_relative_changes_do_not_depend_on_the_unit(gate, changes):
    reference = 10 + RNG.normal(0, 1, 64)
    for change, outcome in changes.items():
        for unit in (1.0, 40.0):
            result = judge_relative(gate, unit * reference, unit * reference * (1 + change + JITTER))
            assert result.outcome == outcome
            assert result.value == pytest.approx(change, abs=0.01)


def test_a_wide_interval_warns_instead_of_stopping():
    reference = np.full(4, 10.0)
    policy = np.array([10.0, 10.0, 10.0, 70.0])  # +150 % on average, carried by one prompt
    assert judge_relative(monitors.LENGTH, reference, policy).outcome == "WARN"


def cut(num, total=200):
    return np.arange(total) < num


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [(0, 4, "PASS"), (0, 20, "WARN"), (18, 20, "PASS"), (0, 60, "STOP"), (60, 60, "PASS"), (60, 20, "PASS")],
)
def test_truncation_counts_only_beyond_the_reference(before, after, outcome):
    assert judge_truncation(cut(before), cut(after)).outcome == outcome


@pytest.mark.parametrize(
    ("ratio", "is_reward_flat", "outcome"),
    [(0.9, False, "PASS"), (0.4, False, "WARN"), (0.1, False, "WARN"), (0.1, True, "STOP")],
)
def test_low_entropy_stops_only_when_nothing_is_gained(ratio, is_reward_flat, outcome):
    reference = 2 + JITTER
    assert judge_entropy(reference, ratio * reference, is_reward_flat=is_reward_flat).outcome == outcome


def test_boilerplate_names_the_phrase():
    reference = [["the", "film", "is", f"word{i}"] for i in range(50)]
    policy = [["you", "are", "valued", f"word{i}"] for i in range(30)] + reference[:20]
    result = judge_boilerplate(reference, policy)
    assert (result.outcome, result.value) == ("WARN", 0.6)  # the Wilson interval reaches below one half
    assert '"you are valued"' in result.note
    assert judge_boilerplate(reference, policy[:30]).outcome == "STOP"
    assert judge_boilerplate(reference, reference).outcome == "PASS"


VARIED = "the story is lovely and the cast is warm|I loved every minute of this one|a quiet film about two brothers|my sister hated the last song"


def groups(texts, num_prompts=20, finish_reason="stop"):
    return [[Completion(prompt_id=f"p{i}", text=t, model="m", sample_index=k, finish_reason=finish_reason) for k, t in enumerate(texts)]
            for i in range(num_prompts)]  # fmt: skip


def test_a_collapsed_policy_is_seen_from_its_texts():
    before = measure_signals(groups(VARIED.split("|")), scores=RNG.normal(0, 1, 80))
    same = judge_signals(before, before)
    assert {r.outcome for r in same} == {"PASS"}
    loop = "lovely lovely warm film lovely lovely warm film lovely lovely warm film"
    after = measure_signals(groups([loop] * 4), kl=np.full(20, 2.0), entropy=np.full(20, 0.1), scores=np.full(80, 2.0))
    outcomes = {r.gate: r.outcome for r in judge_signals(before, after, is_reward_flat=True)}
    assert outcomes == {"evals.length": "WARN", "evals.truncation": "PASS", "evals.repetition": "STOP", "evals.distinct": "STOP",
                        "evals.boilerplate": "STOP", "evals.self_bleu": "STOP", "evals.kl": "STOP", "evals.spread": "STOP"}  # fmt: skip


def test_signals_closed_form():
    signals = measure_signals([[Completion(prompt_id="p", text="a b a b", model="m", token_ids=(7,) * 6, finish_reason="length"),
                                Completion(prompt_id="p", text="c", model="m", token_ids=(7, 7))]])  # fmt: skip
    assert signals.num_tokens.tolist() == [4.0]
    assert signals.is_cut.tolist() == [True, False]
    assert signals.distinct.tolist() == [2 / 3]  # ab, ba, ab
    assert signals.repetition.tolist() == [0.0]
    assert signals.texts == (("a", "b", "a", "b"), ("c",))


def test_what_was_not_measured_has_no_line_and_nothing_stops():
    signals = measure_signals(groups(["one reply only here"]))
    assert {r.gate for r in judge_signals(signals, signals)} == {
        "evals.length", "evals.truncation", "evals.repetition", "evals.distinct", "evals.boilerplate"}  # fmt: skip
    empty = Signals(
        num_tokens=np.zeros(0),
        is_cut=np.zeros(0, bool),
        self_bleu=np.zeros(0),
        distinct=np.zeros(0),
        repetition=np.zeros(0),
        texts=(),
    )
    assert {r.outcome for r in judge_signals(empty, empty)} == {"STOP"}


def test_gates_are_unique_and_explained():
    names = [gate.name for gate in monitors.GATES]
    assert len(set(names)) == len(names)
    assert all(name.startswith("evals.") for name in names)
    assert all(gate.remedy and gate.question.endswith("?") for gate in monitors.GATES)
