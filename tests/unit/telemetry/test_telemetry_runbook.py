"""The runbook: every rule has its failure, every failure is planted and noticed, and a run that works is left alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fairlead.telemetry import DEFAULT_RULES, Watch, move_kl_coef, replay, runbook, runbook_page

PAGE = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
ROWS = 60
FAULT_AT = 25
Course = Callable[[int], Mapping[str, float]]
"""Row after the fault began -> metrics that it changes."""


def healthy(row: int, noise: np.random.Generator) -> dict[str, float]:
    """A PPO run that works, by round: the score rises by a standard deviation, KL to 0.2 nats a token, entropy falls by a fifth."""
    done = row / ROWS
    return {
        "rl/kl_k1": 0.2 * done + 0.002 * noise.normal(), "rl/kl_k1_error": 0.002, "rl/kl_efficiency": 0.5,
        "rl/score": done * 2 + 0.1 * noise.normal(),
        "rl/score_std": 1 - 0.3 * done, "rl/disagreement": 0.3, "rl/length_tokens": 40 + 4 * done + noise.normal(), "rl/missing_eos_share": 0.02,
        "rl/repetition": 0.05 + 0.01 * done, "rl/distinct_2": 0.6 - 0.05 * done, "rl/reference_perplexity": 5 + done,
        "rl/base_perplexity": 9 + done, "rl/entropy": 2 - 0.4 * done,
        "rl/zero_variance_share": 0.2, "rl/explained_variance": 0.3 + 0.1 * noise.normal(), "rl/clip_fraction": 0.1, "rl/approx_kl": 0.02,
        "rl/first_ratio_gap": 1e-5, "rl/sampling_gap": 1e-4, "rl/mismatch_sample_share": 0.98, "rl/staleness": 0.0,
        "rl/tool_failed": 0.0, "rl/tool_errors": 0.2 - 0.1 * done, "rl/turn_limit_share": 0.02,
        "grad_norm": 1 + 0.3 * noise.random(),
        "loss": 0.1, "dpo/chosen_logprobs": -40 - 4 * done,
    }  # fmt: skip


FAULTS: dict[str, Course] = {
    "first_ratio": lambda t: {"rl/first_ratio_gap": 0.2},
    "sampling_gap": lambda t: {"rl/sampling_gap": 0.2},
    "few_samples": lambda t: {"rl/mismatch_sample_share": 0.4},
    "too_few_samples": lambda t: {"rl/mismatch_sample_share": 0.05},
    "staleness": lambda t: {"rl/staleness": 6.0},
    "tools_fail": lambda t: {"rl/tool_failed": 0.3},
    "tools_misused": lambda t: {"rl/tool_errors": 0.9},
    "turns_run_out": lambda t: {"rl/turn_limit_share": 0.5},
    "not_finite": lambda t: {"loss": float("nan")},
    "kl_high": lambda t: {"rl/kl_k1": 0.2 + 0.05 * t},
    "kl_runaway": lambda t: {"rl/kl_k1": 0.2 + 0.1 * t},
    "kl_negative": lambda t: {"rl/kl_k1": -0.05},
    "kl_collapse": lambda t: {"rl/kl_k1": 0.001, "rl/score": 0.5},
    "kl_wasted": lambda t: {"rl/kl_efficiency": 0.05},
    "kl_too_cheap": lambda t: {"rl/kl_efficiency": 2.0},
    "incoherence": lambda t: {"rl/reference_perplexity": 5 * 1.1**t},
    "length": lambda t: {"rl/length_tokens": 40 + 2.0 * t},
    "truncation": lambda t: {"rl/missing_eos_share": 0.1},
    "repetition": lambda t: {"rl/repetition": 0.05 + 0.01 * t},
    "mode_collapse": lambda t: {"rl/distinct_2": 0.6 * 0.95**t},
    "disagreement": lambda t: {"rl/disagreement": 0.3 + 0.02 * t},
    "hacking": lambda t: {"rl/length_tokens": 40 + 6.0 * t, "rl/repetition": 0.05 + 0.02 * t, "rl/score": 1 + 0.2 * t},
    "entropy_low": lambda t: {"rl/entropy": 1.6 * 0.9**t},
    "entropy_collapse": lambda t: {"rl/entropy": 1.6 * 0.8**t, "rl/score": 1.0},
    "score_spread": lambda t: {"rl/score_std": 0.1},
    "zero_variance": lambda t: {"rl/zero_variance_share": 0.9},
    "explained_variance": lambda t: {"rl/explained_variance": -0.4},
    "clip_fraction": lambda t: {"rl/clip_fraction": 0.5},
    "update_kl": lambda t: {"rl/approx_kl": 0.3},
    "gradient_jump": lambda t: {"grad_norm": 50.0},
    "chosen_fall": lambda t: {"dpo/chosen_logprobs": -40.0 - 3 * t},
}


def course(fault: Course | None, *, seed: int = 0) -> list[tuple[int, Mapping[str, float]]]:
    noise = np.random.default_rng(seed)
    rows = [(row, healthy(row, noise)) for row in range(ROWS)]
    return [(row, {**m, **fault(row - FAULT_AT)} if fault and row >= FAULT_AT else m) for row, m in rows]


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_works_is_left_alone(seed: int):
    assert replay(DEFAULT_RULES, course(None, seed=seed)) == []


@pytest.mark.parametrize("rule", FAULTS)
def test_a_planted_fault_trips_its_rule_and_not_before_it_is_there(rule: str):
    alerts = replay(DEFAULT_RULES, course(FAULTS[rule]))
    said = {alert.rule: alert.step for alert in alerts}
    assert rule in said and min(said.values()) >= FAULT_AT


def test_every_rule_has_a_planted_fault():
    assert set(FAULTS) == {rule.id for rule in DEFAULT_RULES}


def test_a_stuck_policy_is_told_from_replies_that_became_alike():
    """Both have KL near 0 and a flat reward; only where diversity stayed is the coefficient lowered and the rate raised."""
    stuck = replay(DEFAULT_RULES, course(FAULTS["kl_collapse"]))
    assert [action.kind for alert in stuck for action in alert.actions][:2] == ["lower_kl", "scale_rate"]
    alike = replay(DEFAULT_RULES, course(lambda t: {**FAULTS["kl_collapse"](t), "rl/distinct_2": 0.2}))
    assert {alert.rule for alert in alike} == {"mode_collapse"}


def test_kl_collapse_halves_the_coefficient_to_a_floor_and_raises_the_rate_once():
    watch, kl_coef, rate = Watch(DEFAULT_RULES), 0.2, 1.0
    seen = [kl_coef]
    for step, metrics in course(FAULTS["kl_collapse"]):
        decision = watch.decide(step, metrics)
        kl_coef, rate = move_kl_coef(kl_coef, decision.actions), rate * decision.rate_factor
        seen += [kl_coef] if kl_coef != seen[-1] else []
    assert seen == pytest.approx([0.2, 0.1, 0.05]) and rate == pytest.approx(1.5)


@pytest.mark.parametrize("name", ["rl/reference_perplexity", "rl/base_perplexity"])
def test_incoherence_proposes_a_coefficient_and_changes_nothing(name: str):
    """Whichever of the frozen models finds it."""
    (alert,) = [a for a in replay(DEFAULT_RULES, course(lambda t: {name: 9 * 1.1**t})) if a.rule == "incoherence"]
    assert alert.seen[0].metric == name
    assert alert.actions == () and "KL coefficient to 0.5" in alert.line()


def test_one_drift_warns_and_two_at_once_go_back():
    long = replay(DEFAULT_RULES, course(lambda t: {"rl/length_tokens": 40 + 6.0 * t}))
    assert {alert.rule for alert in long} == {"length"}
    (hacked,) = [a for a in replay(DEFAULT_RULES, course(FAULTS["hacking"])) if a.rule == "hacking"]
    assert [action.kind for action in hacked.actions] == ["snapshot", "raise_kl", "roll_back"]


def test_every_rule_has_its_failure():
    entries = runbook()
    named = [name for entry in entries for name in entry.rules]
    assert sorted(named) == sorted(rule.id for rule in DEFAULT_RULES)
    assert len({entry.id for entry in entries}) == len(entries)
    assert all(entry.rules or entry.gates or entry.application for entry in entries)


def test_the_page_in_docs_is_the_runbook():
    assert PAGE.read_text(encoding="utf-8") == runbook_page()
