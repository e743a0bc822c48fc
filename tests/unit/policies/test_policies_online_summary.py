"""What an on-policy run reports of its metrics."""

import contextlib
from pathlib import Path

from fairlead.core.reward_section import ComposeSection
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.online_summary import summarise
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
    assert "moved the score by +0.20 reference standard deviations at" in plain.headline
    assert "moved the score by +0.20 points at" in composed.headline
    assert (plain.figures[1].unit, composed.figures[1].unit) == ("reference sd", "score")
    assert [c.charts[1].y_label for c in (plain, composed)] == ["reference sd", "score"]
