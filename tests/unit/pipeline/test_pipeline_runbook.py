"""Each failure of the runbook that a gate notices is planted, and measured and judged by the code of the stage where it can be; a healthy
counterpart passes. Gates that read what a training did are planted in trainings, by other tests."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairlead.completions.readiness import readiness
from fairlead.core.gates import GateResult
from fairlead.core.records import Completion, EvalResult, Message, Preference
from fairlead.core.sections import Scope, TrainSection, judge_learning_rate
from fairlead.evals.criteria import judge_capability, judge_criteria, judge_guards
from fairlead.evals.monitors import judge_collapse, judge_kl, judge_signals, measure_signals
from fairlead.evals.opinions import judge_flips
from fairlead.pipeline.gates import all_gates
from fairlead.preferences.agreement import read_agreement
from fairlead.preferences.counts import rl_count_gate
from fairlead.rewards.quality import measure
from fairlead.stats.votes import votes_from_rows
from fairlead.telemetry import runbook
from fairlead.text import Branch, Tree

WORDS = [f"w{i}" for i in range(400)]
GATES = {gate.name: gate for gate in all_gates()}


def replies(
    *, num_words: int = 30, pool: int = 400, phrase: str = "", loops: bool = False, cut: float = 0.0
) -> list[list[Completion]]:
    """Replies to 64 prompts, 4 each, of random words."""
    rng = np.random.default_rng(num_words + pool)
    groups: list[list[Completion]] = []
    for p in range(64):
        group = []
        for k in range(4):
            words = [WORDS[i] for i in rng.integers(0, pool, num_words)]
            words = words[:5] * (num_words // 5) if loops else words
            text = " ".join([*words[:10], phrase, *words[10:]]).replace("  ", " ")
            reason = "length" if rng.random() < cut else "stop"
            group.append(Completion(prompt_id=f"p{p}", text=text, model="m", finish_reason=reason, sample_index=k))
        groups.append(group)
    return groups


def monitored(name: str, after: list[list[Completion]], **signals: float) -> GateResult:
    before = measure_signals(replies())
    policy = measure_signals(after)
    for key, value in signals.items():
        before, policy = replace(before, **{key: np.ones(64)}), replace(policy, **{key: np.full(64, value)})
    return next(r for r in judge_signals(before, policy) if r.gate == name)


def ready(groups: list[list[Completion]]) -> GateResult:
    return readiness([reply for group in groups for reply in group], is_heldout=True)[0]


def spread(after: float) -> GateResult:
    rng = np.random.default_rng(0)
    before, policy = measure_signals(replies()), measure_signals(replies())
    results = judge_signals(
        replace(before, scores=rng.normal(size=256)), replace(policy, scores=after * rng.normal(size=256))
    )
    return next(r for r in results if r.gate == "evals.spread")


def reward_model(name: str, *, accuracy: float, ceiling: float = 0.9, pays_for_length: bool = False) -> GateResult:
    rng = np.random.default_rng(0)
    right = rng.random(600) < accuracy
    margins = np.where(right, 1, -1) * np.abs(rng.normal(1, 0.3, 600))
    lengths = rng.integers(5, 60, size=(600, 2))
    scores = np.stack([margins, np.zeros(600)], axis=1)
    if pays_for_length:
        scores = lengths / 10.0
    trees = [
        Tree(prompt_ids=np.zeros(1, np.int64), branches=tuple(Branch(token_ids=np.zeros(n, np.int64)) for n in row))
        for row in lengths
    ]
    rows = [Preference(prompt=(Message(role="user", content="q"),), chosen="a", rejected="b") for i in range(600)]
    return next(
        r for r in measure(scores.reshape(-1), trees, rows).verdicts({"ceiling_label": ceiling}) if r.gate == name
    )


def agreement(name: str, share: float) -> GateResult:
    rng = np.random.default_rng(0)
    items = ["aa" if i % 2 else "bb" for i in range(400)]
    items = [item if rng.random() < share else "ab" for item in items]
    rows = [(str(i), str(r), label) for i, item in enumerate(items) for r, label in enumerate(item)]
    return next(
        r for r in read_agreement(votes_from_rows(rows), seed=0, num_resamples=200).verdicts() if r.gate == name
    )


def behaviour(verdict: str, effect: float, *, guard: bool) -> EvalResult:
    return EvalResult(model="m", behaviour="hedging", before=0.0, after=effect, effect=effect, low=effect - 0.05, high=effect + 0.05, num_prompts=200,
                      verdict=verdict, unit="words", meta={"guard": guard, "direction": "flat", "margin": 0.1})  # fmt: skip


def capability(share: float) -> GateResult:
    before = np.ones(800)
    after = before.copy()
    after[: int(800 * share)] = 0
    return judge_capability(before, after, task="recall")


def rate(stage: str, kind: str, factor: float) -> GateResult:
    found = judge_learning_rate(
        TrainSection(learning_rate=1e-5 * factor), stage=stage, kind=kind, num_parameters=2_000_000_000, reasons={}
    )
    assert found is not None
    return found


FLAT, RISING = np.zeros(60), np.linspace(0, 3, 60)
PLANTED: dict[str, tuple[Callable[[], GateResult], Callable[[], GateResult]]] = {
    "evals.collapse": (lambda: judge_collapse(np.full(60, 0.001), FLAT),
        lambda: judge_collapse(np.full(60, 0.1), RISING)),
    "evals.kl": (lambda: judge_kl(np.full(64, 1.2)),
        lambda: judge_kl(np.full(64, 0.2))),
    "completions.readiness": (lambda: ready(replies(loops=True)),
        lambda: ready(replies())),
    "evals.self_bleu": (lambda: monitored("evals.self_bleu", replies(pool=4)),
        lambda: monitored("evals.self_bleu", replies())),
    "evals.distinct": (lambda: monitored("evals.distinct", replies(pool=4)),
        lambda: monitored("evals.distinct", replies())),
    "evals.length": (lambda: monitored("evals.length", replies(num_words=80)),
        lambda: monitored("evals.length", replies())),
    "evals.truncation": (lambda: monitored("evals.truncation", replies(cut=0.5)),
        lambda: monitored("evals.truncation", replies())),
    "evals.repetition": (lambda: monitored("evals.repetition", replies(loops=True)),
        lambda: monitored("evals.repetition", replies())),
    "evals.boilerplate": (lambda: monitored("evals.boilerplate", replies(phrase="you are valued")),
        lambda: monitored("evals.boilerplate", replies())),
    "evals.sycophancy": (lambda: judge_flips(np.arange(200) < 10, np.arange(200) < 90),
        lambda: judge_flips(np.arange(200) < 10, np.arange(200) < 12)),
    "evals.entropy": (lambda: monitored("evals.entropy", replies(), entropy=0.1),
        lambda: monitored("evals.entropy", replies(), entropy=0.9)),
    "evals.spread": (lambda: spread(0.02),
        lambda: spread(1.0)),
    "evals.criteria": (lambda: judge_criteria([behaviour("unchanged", 0.0, guard=False)]),
        lambda: judge_criteria([behaviour("improved", 0.5, guard=False)])),
    "evals.guard": (lambda: judge_guards([behaviour("regressed", 0.5, guard=True)])[0],
        lambda: judge_guards([behaviour("unchanged", 0.0, guard=True)])[0]),
    "evals.capability": (lambda: capability(0.08),
        lambda: capability(0.0)),
    "rewards.length": (lambda: reward_model("rewards.length", accuracy=0.7, pays_for_length=True),
        lambda: reward_model("rewards.length", accuracy=0.7)),
    "rewards.accuracy": (lambda: reward_model("rewards.accuracy", accuracy=0.5),
        lambda: reward_model("rewards.accuracy", accuracy=0.72)),
    "rewards.ceiling": (lambda: reward_model("rewards.ceiling", accuracy=0.97, ceiling=0.75),
        lambda: reward_model("rewards.ceiling", accuracy=0.7)),
    "preferences.agreement": (lambda: agreement("preferences.agreement", 0.5),
        lambda: agreement("preferences.agreement", 0.75)),
    "preferences.alpha": (lambda: agreement("preferences.alpha", 0.5),
        lambda: agreement("preferences.alpha", 0.9)),
    "sft.learning_rate": (lambda: rate("sft", "sft", 20),
        lambda: rate("sft", "sft", 2)),
    "rl.learning_rate": (lambda: rate("rl", "policy_gradient", 20),
        lambda: rate("rl", "policy_gradient", 1)),
}  # fmt: skip

TRAININGS = "unit/policies/test_policies_planted_gates.py"
RUNS = "integration/test_pipeline_gates.py"
PLANTED_IN_RUNS = {
    "sft.count": TRAININGS, "sft.perplexity": TRAININGS, "rl.kl": TRAININGS, "rl.collapse": TRAININGS, "dpo.accuracy": TRAININGS,
    "preferences.count": RUNS, "preferences.rl_count": RUNS,
}  # fmt: skip
"""Gate -> the test that plants its failure in a real training or run."""
ANCHORS, STEERING, WRITING = (f"unit/web/test_web_{name}.py" for name in ("anchors", "steering", "demonstrations"))
PLANTED_IN_APPLICATION = {
    "rater_drift": (
        (ANCHORS, "test_a_rater_who_turns_to_coin_flipping_is_caught_within_the_stated_length"),
        (ANCHORS, "test_a_steady_rater_sets_off_no_alarm"),
        (ANCHORS, "test_an_alarm_is_answered_by_a_new_round_and_by_votes_of_others_and_nothing_is_dropped"),
    ),
    "calibration_overdue": (
        (STEERING, "test_a_round_comes_again_after_so_many_items_and_everybody_gets_the_same_new_pairs"),
        (STEERING, "test_a_round_is_not_drawn_from_too_few_pairs_and_that_is_told"),
        (STEERING, "test_a_low_rolling_kappa_pauses_the_project_and_opening_it_again_needs_a_reason"),
    ),
    "unreviewed": ((WRITING, "test_what_waits_is_counted_and_does_not_wait_for_one_person_for_ever"),),
}
"""Failure -> the tests that plant it in the rating application, and its healthy counterpart."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_failure_is_noticed_and_its_healthy_counterpart_is_not(name: str):
    planted, healthy = (build() for build in PLANTED[name])
    assert planted.gate == name and planted.outcome in ("WARN", "STOP"), planted.line()
    assert healthy.outcome == "PASS", healthy.line()


def test_every_gate_of_the_runbook_is_there_and_planted():
    named = {gate for entry in runbook() for gate in entry.gates}
    assert named <= GATES.keys()
    assert named == PLANTED.keys() | PLANTED_IN_RUNS.keys() and not PLANTED.keys() & PLANTED_IN_RUNS.keys()
    tests = Path(__file__).parents[2]
    for name, file in PLANTED_IN_RUNS.items():
        assert f'"{name}"' in (tests / file).read_text(encoding="utf-8")


def test_every_failure_that_the_rating_application_notices_is_planted_there():
    assert {entry.id for entry in runbook() if entry.application} == PLANTED_IN_APPLICATION.keys()
    tests = Path(__file__).parents[2]
    for file, name in (one for found in PLANTED_IN_APPLICATION.values() for one in found):
        assert f"def {name}(" in (tests / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("scope", "num", "outcome"), [("narrow", 1_999, "STOP"), ("toy", 1_999, "WARN"), ("narrow", 2_000, "PASS")]
)
def test_rl_on_few_preferences_is_refused_and_in_a_toy_run_told(scope: Scope, num: int, outcome: str):
    """The run that is refused is in integration/test_pipeline_gates.py."""
    found = rl_count_gate(scope).judge(num, n=num)
    assert (found.gate, found.outcome, found.is_blocking) == ("preferences.rl_count", outcome, outcome == "STOP")
    assert "STOP preferences.rl_count" in (Path(__file__).parents[2] / RUNS).read_text(encoding="utf-8"), (
        "planted in a run too"
    )
