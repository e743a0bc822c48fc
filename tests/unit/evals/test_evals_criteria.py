"""Criteria: frozen by hash, changes located, gates on aims and guards."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.records import EvalResult
from fairlead.evals.behaviours import Behaviour, compare
from fairlead.evals.criteria import (
    CriteriaConfig,
    check_frozen,
    default_behaviours,
    freeze,
    hash_file,
    judge_capability,
    judge_criteria,
    judge_guards,
)
from fairlead.stats.intervals import Interval

CONFIG = CriteriaConfig()
RISE, STILL = Interval(0.5, 0.4, 0.6, 100), Interval(0.0, -0.1, 0.1, 100)


def result(
    verdict="improved", name="score", guard=False, direction="up", effect=0.5, half=0.1, unit="score", margin=0.1
):
    meta = {"direction": direction, "guard": guard, "margin": margin}
    return EvalResult(model="ppo", behaviour=name, before=0.0, after=effect, effect=effect, low=effect - half, high=effect + half,
                      num_prompts=200, verdict=verdict, unit=unit, meta=meta)  # fmt: skip


def test_frozen_criteria_survive_a_round_trip_through_a_file(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("{}\n")
    frozen = json.loads(json.dumps(freeze(CONFIG, eval_prompts_sha256=hash_file(prompts))))
    assert len(frozen["sha256"]) == 64
    check_frozen(frozen, parse_config(CriteriaConfig, frozen["criteria"]), eval_prompts_sha256=hash_file(prompts))
    prompts.write_text("{} \n")
    with pytest.raises(DataError, match=r"evals\.prompts=.* was changed after training began"):
        check_frozen(frozen, CONFIG, eval_prompts_sha256=hash_file(prompts))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"alpha": 0.1}, r"evals\.alpha=0\.1 was changed after training began; expected 0\.05 as frozen"),
        ({"behaviours": CONFIG.behaviours[:3]}, r"evals\.behaviours="),
        ({"behaviours": (CONFIG.behaviours[0].model_copy(update={"min_effect": 0.01}), *CONFIG.behaviours[1:])},
         r"evals\.behaviours\[0\]\.min_effect=0\.01 was changed .* expected 0\.2 as frozen"),
    ],
)  # fmt: skip
def test_a_change_after_freezing_is_refused_with_its_place(change, path):
    frozen = freeze(CONFIG, eval_prompts_sha256="a" * 64)
    with pytest.raises(ConfigError, match=path):
        check_frozen(frozen, CONFIG.model_copy(update=change), eval_prompts_sha256="a" * 64)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from([("criteria", "alpha"), ("eval_prompts_sha256",), ("schema",), ("sha256",)]), st.integers(2, 9))
def test_an_edited_record_is_refused_wherever_it_was_edited(path, value):
    frozen = json.loads(json.dumps(freeze(CONFIG, eval_prompts_sha256="a" * 64)))
    target = frozen
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(DataError, match="does not match its content"):
        check_frozen(frozen, CONFIG, eval_prompts_sha256="a" * 64)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"behaviours": []}, "behaviours"),
        ({"behaviours": [default_behaviours()[0].model_dump()] * 2}, "declared twice"),
        ({"behaviours": [default_behaviours()[3].model_dump()]}, "are all guards"),
        ({"alpha": 0}, "alpha"),
    ],
)
def test_criteria_that_cannot_be_judged_are_refused(data, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(CriteriaConfig, data, where="evals")


def test_defaults_aim_at_score_and_hedging_and_guard_the_rest():
    assert [(b.id, b.guard) for b in CONFIG.behaviours] == [
        ("score", False),
        ("hedging", False),
        ("finished", True),
        ("length", True),
    ]


@pytest.mark.parametrize(
    ("verdicts", "reward", "outcome", "words"),
    [
        (["improved", "improved"], RISE, "PASS", ""),
        (["improved", "unchanged"], RISE, "WARN", "Not improved: b1 unchanged"),
        (["unchanged", "inconclusive"], RISE, "STOP", "reward hacking"),
        (["unchanged", "regressed"], STILL, "STOP", "Not improved: b0 unchanged, b1 regressed"),
        (["unchanged"], None, "STOP", "Not improved"),
        (["improved"], None, "PASS", ""),
    ],
)
def test_the_criteria_gate_counts_aims_only(verdicts, reward, outcome, words):
    results = [result(v, f"b{i}") for i, v in enumerate(verdicts)]
    guards = [result("regressed", "guard", guard=True), result("improved", "other", guard=True)]
    judged = judge_criteria([*results, *guards], reward_change=reward)
    assert (judged.outcome, judged.n) == (outcome, len(verdicts))
    assert words in judged.note
    assert ("reward hacking" in judged.note) == (outcome == "STOP" and reward is RISE)


def test_no_aim_at_all_stops():
    assert judge_criteria([]).outcome == "STOP"


@pytest.mark.parametrize(
    ("drop", "half", "outcome"),
    [
        (0.0, 0.5, "PASS"),
        (0.9, 0.1, "PASS"),  # below 1 point
        (1.5, 0.2, "WARN"),
        (1.5, 2.0, "PASS"),  # within 2 standard errors
        (6.0, 2.0, "WARN"),  # above 5, but the interval reaches below
        (8.0, 2.0, "STOP"),
        (-9.0, 1.0, "PASS"),  # a gain
    ],
)
def test_share_guards_are_judged_in_points(drop, half, outcome):
    spec = {"guard": True, "unit": "share", "half": half / 100}
    up = result("x", effect=-drop / 100, direction="up", **spec)
    down = dataclasses.replace(
        up, effect=drop / 100, low=(drop - half) / 100, high=(drop + half) / 100, meta={**up.meta, "direction": "down"}
    )
    for judged in judge_guards([up, down]):
        assert (judged.gate, judged.outcome) == ("evals.capability", outcome)
        assert judged.value == pytest.approx(drop)


@pytest.mark.parametrize(
    ("effect", "half", "outcome"),
    [
        (2.0, 0.5, "PASS"),
        (-3.0, 0.2, "WARN"),
        (5.5, 0.2, "STOP"),
        (-5.5, 0.2, "STOP"),
        (0.1, 9.0, "PASS"),
        (5.5, 6.0, "WARN"),
    ],
)
def test_flat_guards_are_judged_in_multiples_of_their_margin(effect, half, outcome):
    """Margin 2.5 words: a change of 2 is 0.8 of it, 3 is 1.2, 5.5 is 2.2; only an interval beyond 2 margins stops."""
    (judged,) = judge_guards(
        [
            result("x", guard=True, direction="flat", unit="words", effect=effect, half=half, margin=2.5),
            result("improved"),
        ]
    )
    assert (judged.gate, judged.outcome) == ("evals.guard", outcome)
    assert judged.value == pytest.approx(abs(effect) / 2.5)
    assert judged.low <= judged.value <= judged.high


def test_capability_on_paired_items():
    """300 pairs, 30 lost and none won: 10 points, standard error 1.7, whole interval above 5."""
    before = np.ones(300)
    after = before.copy()
    after[:30] = 0
    assert judge_capability(before, after, task="minimal pairs").outcome == "STOP"
    assert judge_capability(before, after, task="minimal pairs").value == pytest.approx(10)
    assert judge_capability(after, before, task="minimal pairs").outcome == "PASS"
    assert judge_capability(before[:1], after[:1], task="one item").outcome == "STOP"


def test_a_measured_guard_flows_into_its_gate():
    spec = Behaviour(id="finished", direction="up", metric="finished", min_effect=0.01, guard=True)
    after = np.array([0.0] * 60 + [1.0] * 140)
    (judged,) = judge_guards([compare(spec, np.ones(200), after, model="ppo")])
    assert judged.outcome == "STOP"
    assert judged.value == pytest.approx(30)
