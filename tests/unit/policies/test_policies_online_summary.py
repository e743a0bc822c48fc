"""What an on-policy run reports of its metrics."""

import contextlib
from pathlib import Path

import pytest

from fairlead.core.reward_section import ComposeSection
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.online_summary import summarise
from fairlead.policies.telling import metric_change
from fairlead.telemetry.sinks import JsonlSink


def test_kl_stands_before_the_reward_in_figures_gates_and_charts(tmp_path: Path) -> None:
    with contextlib.closing(JsonlSink(tmp_path / "metrics.jsonl")) as sink:
        for step in range(1, 5):
            sink.log(step, {"rl/score": 0.1 * step, "rl/reward": 0.1, "rl/kl_k1": 0.01 * step, "rl/kl_k3": 0.01, "rl/kl_k1_sequence": 0.3,
                            "rl/length_tokens": 20.0, "rl/kl_coef": 0.2, "loss": 1.0})  # fmt: skip
    found = summarise(OnlineConfig(num_iterations=4), tmp_path / "metrics.jsonl", None, length_coef=0.1)
    assert found.charts[0].question == "How far does the policy move from its reference?"
    assert [chart.series[0].label for chart in found.charts] == ["k1", "score", "length", "coefficient"]
    assert [figure.name for figure in found.figures[:2]] == ["KL", "score gain"]
    assert [verdict.gate for verdict in found.verdicts] == ["rl.kl", "rl.collapse"]


def _summary(path: Path, config: OnlineConfig):
    with contextlib.closing(JsonlSink(path)) as sink:
        for step in range(1, config.num_iterations + 1):
            sink.log(step, {"rl/score": 0.1 * step, "rl/reward": 0.1, "rl/kl_k1": 0.0, "rl/kl_k1_sequence": 0.0})
    return summarise(config, path, None, length_coef=0.0)


def test_of_one_round_no_gate_judges_a_policy_that_was_not_sampled_again(tmp_path: Path) -> None:
    """Rejection sampling with one large round: its metrics are of the policy before it was trained."""
    found = _summary(tmp_path / "one.jsonl", OnlineConfig(algorithm="best_of_n", num_iterations=1, batch_size=64))
    assert found.verdicts == () and [figure.name for figure in found.figures] == ["length penalty"]
    assert (
        found.headline == "One round of 64 replies was trained on; how far it moved the policy shows in the evaluation."
    )


def test_a_composed_score_is_in_no_standard_deviations_of_the_reference(tmp_path: Path) -> None:
    rewards = ComposeSection.model_validate({"components": {"ends": {"type": "rule", "rule": {"kind": "missing_eos"}}}})
    plain = _summary(tmp_path / "plain.jsonl", OnlineConfig(num_iterations=3))
    composed = _summary(tmp_path / "composed.jsonl", OnlineConfig(num_iterations=3, rewards=rewards))
    assert "moved the score by +0.20 reference standard deviations (" in plain.headline
    assert "moved the score by +0.20 points (" in composed.headline
    assert (plain.figures[1].unit, composed.figures[1].unit) == ("reference sd", "score")
    assert [c.charts[1].y_label for c in (plain, composed)] == ["reference sd", "score"]
    collapses = [next(v for v in c.verdicts if v.gate == "rl.collapse") for c in (plain, composed)]
    assert [(v.unit, "normalised" in v.note, "composed" in v.note) for v in collapses] == [
        ("reference sd of reward", True, False), ("score", False, True)
    ]  # fmt: skip


def test_the_score_moves_with_an_interval_or_with_what_it_rests_on(tmp_path: Path) -> None:
    """Two rounds with standard errors 0.3 and 0.4: half of the interval is 1.96 sqrt(0.09 + 0.16) = 0.98. Of twenty rounds two stand at either
    end: errors of 0.3 make sqrt(2 * 0.09) / 2 = 0.2121 an end, and 1.96 * 0.3 = 0.588."""
    path = tmp_path / "two.jsonl"
    with contextlib.closing(JsonlSink(path)) as sink:
        for step, error in ((1, 0.3), (5, 0.4)):
            sink.log(step, {"rl/score": 1.0 * step, "rl/score_error": error, "rl/kl_k1": 0.1, "rl/kl_k1_sequence": 1.0})
    found = summarise(OnlineConfig(num_iterations=2, batch_size=32, minibatch_size=32), path, None, length_coef=0.0)
    assert (
        "by +4.00 reference standard deviations (95 % interval +3.02 to +4.98, 32 replies at either end) at KL"
        in found.headline
    )
    assert (found.figures[1].low, found.figures[1].high) == (
        pytest.approx(3.02, abs=1e-3),
        pytest.approx(4.98, abs=1e-3),
    )
    path = tmp_path / "many.jsonl"
    with contextlib.closing(JsonlSink(path)) as sink:
        for step in range(20):
            sink.log(step, {"rl/score": 0.0, "rl/score_error": 0.3, "rl/kl_k1": 0.1, "rl/kl_k1_sequence": 1.0})
    change = metric_change(path, "rl/score", error="rl/score_error")
    assert (change.high, change.n) == (pytest.approx(0.588, abs=1e-3), 2)
    bare = _summary(tmp_path / "bare.jsonl", OnlineConfig(num_iterations=3, batch_size=32, minibatch_size=32))
    assert "(32 replies at either end)" in bare.headline and bare.figures[1].low is None
