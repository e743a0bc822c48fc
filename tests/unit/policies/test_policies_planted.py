"""Faults of the runbook in real on-policy runs: planted in the reward, the engine or the settings, noticed by the rule of that failure from what
the run itself logs, and acted on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from online_example import by_tokens, live_rows, make_loop

from fairlead.core.errors import TrainError
from fairlead.core.records import Completion
from fairlead.policies.online import OnlineLoop

SHORT: dict[str, Any] = {
    "num_iterations": 8,
    "batch_size": 16,
    "minibatch_size": 16,
    "num_epochs": 1,
    "group_size": 4,
    "max_new_tokens": 8,
}
Plant = Callable[[OnlineLoop], None]


def length(completion: Completion) -> float:
    """A reward that is gamed by writing on."""
    return float(len(completion.token_ids))


def one_token(completion: Completion) -> float:
    """A reward that is gamed by one token again and again."""
    return float(sum(token == completion.token_ids[0] for token in completion.token_ids))


def alerts(folder: Path) -> list[dict[str, Any]]:
    path = folder / "work" / "alerts.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def run(
    folder: Path, score: Callable[[Completion], float], *, plant: Plant | None = None, windows: dict[str, Any] | None = None, method: str = "grpo",
    rate: float = 1e-3, **changes: Any,
) -> tuple[OnlineLoop, str]:  # fmt: skip
    """A run to its end, or to the words that a rule stopped it with; `windows` shortens the rules that it is about."""
    training = {"learning_rate": rate, "schedule": "constant", "alerts": {"rules": windows or {}}}
    loop = make_loop(folder, method, score, **{**SHORT, **changes, "training": training})
    if plant is not None:
        plant(loop)
    try:
        loop.run(bos_token_id=1)
    except TrainError as error:
        return loop, str(error)
    return loop, ""


def moved(by: float) -> Plant:
    """The weights change between sampling and training, so that the engine's logprobs are of another policy."""

    def plant(loop: OnlineLoop) -> None:
        fill = loop._fill  # what makes the buffer full

        def filled(bos_token_id: int | None) -> None:
            fill(bos_token_id)
            if loop.position.num_trained == 2:
                with torch.no_grad():
                    for i, parameter in enumerate(loop.models.policy.module.parameters()):
                        parameter += by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i))

        loop._fill = filled  # pyright: ignore[reportAttributeAccessIssue]

    return plant


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_old_logprobs_of_another_policy_end_the_run_at_that_round(method: str, tmp_path: Path) -> None:
    group = {"group_size": 1} if method == "ppo" else {}
    _, words = run(tmp_path / "bad", by_tokens, plant=moved(0.05), method=method, **group)
    assert "was stopped at step 3 by rule first_ratio" in words and "recompute them in the trainer" in words
    assert [row["rl/first_ratio_gap"] < 1e-3 for row in live_rows(tmp_path / "bad")] == [True, True, False]
    assert run(tmp_path / "good", by_tokens, method=method, **group)[1] == ""
    assert "first_ratio" not in {alert["rule"] for alert in alerts(tmp_path / "good")}


def test_a_policy_that_runs_away_is_taken_back_twice_and_then_stopped(tmp_path: Path) -> None:
    """The rate is far too high for a reward that pays for length. What is gone back to is the state after the first row; the coefficient rises."""
    loop, words = run(tmp_path, length, rate=2e-2, num_iterations=40)
    assert "by rule kl_runaway: rl/kl_k1" in words and "--allow alert.kl_runaway='why'" in words
    found = [alert for alert in alerts(tmp_path) if alert["rule"] == "kl_runaway"]
    assert [len(alert["results"]) for alert in found] == [2, 2, 1]
    assert [alert["results"][0] for alert in found] == [
        "KL coefficient 0.100 to 0.150", "KL coefficient 0.150 to 0.225", "stopped here",
    ]  # fmt: skip
    assert {alert["results"][1] for alert in found[:2]} == {"back to the weights of step 1"}
    kl = {row["step"]: row["rl/kl_k1"] for row in live_rows(tmp_path)}
    for alert in found[:2]:
        assert kl[alert["step"]] > 1.0 > 0.4 > kl[alert["step"] + 1], (
            "the next round is sampled from the weights of before"
        )
    assert loop.position.kl_coef == pytest.approx(0.225)


def test_a_policy_that_is_stuck_at_its_reference_gets_a_lower_coefficient_and_a_higher_rate(tmp_path: Path) -> None:
    rules = {"kl_collapse": {"window": 3, "warmup": 3}}
    run(tmp_path / "stuck", by_tokens, rate=1e-9, windows=rules, kl={"kl_coef": 0.3}, num_iterations=14)
    (alert, *_) = (alert for alert in alerts(tmp_path / "stuck") if alert["rule"] == "kl_collapse")
    assert alert["results"] == ["KL coefficient 0.300 to 0.150", "learning rate x 1.50 from here on"]
    rates = [row["learning_rate"] for row in live_rows(tmp_path / "stuck")]
    assert rates[alert["step"] - 1] == pytest.approx(1e-9) and rates[alert["step"]] == pytest.approx(1.5e-9)


def test_what_a_gamed_reward_does_to_replies_is_noticed_and_a_run_that_works_is_left_alone(tmp_path: Path) -> None:
    """The reward pays for one token again and again: replies become alike, repeat themselves, and nothing is explored any more."""
    rules = {
        "kl_runaway": {"mode": "off"},
        "hacking": {"mode": "propose"},
    }  # neither takes the weights back, so that all is seen
    expected = {"mode_collapse", "hacking", "repetition", "entropy_low"}
    run(tmp_path / "bad", one_token, rate=1e-2, num_iterations=24, kl={"kl_coef": 0.0}, windows=rules)
    found = {alert["rule"]: alert for alert in alerts(tmp_path / "bad")}
    assert expected <= found.keys()
    assert found["hacking"]["proposed"] == ["keep a checkpoint of this moment", "back to the last good checkpoint"]
    run(tmp_path / "good", by_tokens, windows=rules)
    assert not expected & {alert["rule"] for alert in alerts(tmp_path / "good")}


@pytest.mark.parametrize(
    ("rule", "score", "changes"),
    [
        ("zero_variance", lambda _: 1.0, {}),
        ("staleness", by_tokens, {"max_staleness": 7, "windows": {"staleness": {"window": 2}}}),
    ],
)
def test_signals_that_are_missing_or_old_are_noticed(
    rule: str, score: Callable[[Completion], float], changes: dict[str, Any], tmp_path: Path
) -> None:
    run(tmp_path / "bad", score, **changes)
    assert rule in {alert["rule"] for alert in alerts(tmp_path / "bad")}
    run(tmp_path / "good", by_tokens, windows=changes.get("windows"))
    assert rule not in {alert["rule"] for alert in alerts(tmp_path / "good")}
