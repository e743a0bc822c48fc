"""Old log-probabilities from the step's own forward: the same training as with a forward of their own, for a round that is one step."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from online_example import make_loop, rows, run
from pydantic import ValidationError

from fairlead.policies.online import OnlineLoop
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.sampling import RoundSampler
from fairlead.train.forward import PolicyLogprobs

ONE_STEP: dict[str, Any] = {
    "batch_size": 8,
    "minibatch_size": 8,
    "kl": {"kl_coef": 0.1, "target": None, "where": "loss"},
}
SAID_BY_STEPS = {
    "rl/sampling_gap",
    "rl/mismatch_sample_share",
    "rl/correction_capped_share",
    "rl/correction_masked_share",
}
WAYS: dict[str, dict[str, Any]] = {
    "clip": {"way": "token_clip", "cap": 1.02}, "mask": {"way": "token_mask", "cap": 1.02, "floor": 0.98},
    "sequences": {"way": "sequence_mask", "cap": 1.05, "floor": 0.95, "sequence_ratio": "product"}, "off": {"way": "off"},
}  # fmt: skip


@pytest.fixture
def imprecise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that says other log-probabilities than it drew from: a few hundredths of a nat, a different one for every token."""
    sample = RoundSampler.rollouts

    def off(*args: Any, **named: Any) -> Any:
        found = sample(*args, **named)
        for rollout in found:
            for branch in rollout.tree.branches:
                gaps = (0.03 * np.sin(branch.token_ids)).astype(np.float32)
                branch.arrays["sampling_logprobs"] = branch.arrays["old_logprobs"] + gaps
        return found

    monkeypatch.setattr(RoundSampler, "rollouts", off)
    monkeypatch.setattr(OnlineConfig, "has_exact_engine", property(lambda _self: False))  # preflight lets it through


def trained(folder: Path, method: str, old: str, **changes: Any) -> tuple[list[dict[str, float]], torch.Tensor]:
    """Rows of a run, and the weights that it ends with."""
    loop = run(make_loop(folder, method, old_logprobs=old, **{**ONE_STEP, **changes}))
    return rows(folder), weights(loop)


def weights(loop: OnlineLoop) -> torch.Tensor:
    """All of the policy."""
    return torch.cat([p.detach().flatten() for p in loop.models.policy.module.parameters()])


@pytest.mark.usefixtures("imprecise")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["grpo", "gspo"])
def test_the_step_learns_what_it_learns_with_a_forward_before_it(method: str, way: str, tmp_path: Path) -> None:
    given = {"correction": WAYS[way], "group_size": 4}
    slow, slow_weights = trained(tmp_path / "trainer", method, "trainer", **given)
    fast, fast_weights = trained(tmp_path / "step", method, "step", **given)
    torch.testing.assert_close(fast_weights, slow_weights, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(
        slow_weights, weights(make_loop(tmp_path / "start", method, **{**ONE_STEP, **given})), atol=1e-4
    )
    names = {"loss", "grad_norm", "rl/reward", "rl/kl_loss", "rl/advantages_std", "rl/entropy"}
    names |= SAID_BY_STEPS if way != "off" else {"rl/sampling_gap", "rl/mismatch_sample_share"}
    for one, other in zip(slow, fast, strict=True):
        for name in names:
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=2e-6), name
        assert other["rl/sampling_gap"] > 0.005
    if way in ("clip", "mask"):
        assert any(row["rl/correction_capped_share"] + row["rl/correction_masked_share"] > 0 for row in fast)


def test_the_policy_is_not_read_before_the_step_and_no_ratio_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bool] = []
    call = PolicyLogprobs.__call__

    def counted(self: PolicyLogprobs, batch: Any) -> torch.Tensor:
        read.append(self.model is loop.models.policy)
        return call(self, batch)

    loop = make_loop(tmp_path, "grpo", old_logprobs="step", group_size=4, **ONE_STEP)
    monkeypatch.setattr(PolicyLogprobs, "__call__", counted)
    found = loop.collector.collect(loop.prompts, number=0, kl_coef=0.1, step=0, policy_version=0)
    assert read and not any(read)
    assert all("old_logprobs" not in b.arrays for tree in found.trees for b in tree.branches)
    run(make_loop(tmp_path / "whole", "grpo", old_logprobs="step", group_size=4, **ONE_STEP))
    assert all("rl/first_ratio_gap" not in row and row["rl/approx_kl"] == 0 for row in rows(tmp_path / "whole"))


def test_auto_takes_the_step_where_a_round_is_one_step_and_its_kl_is_not_paid(tmp_path: Path) -> None:
    def chosen(precision: Any = "bf16", **section: Any) -> str:
        return OnlineConfig.model_validate(section).resolved(precision).old_logprobs

    assert chosen(algorithm="grpo") == chosen(algorithm="dr_grpo") == chosen(algorithm="best_of_n") == "step"
    assert chosen("fp32", algorithm="grpo") == "engine"
    assert chosen(algorithm="ppo") == chosen(algorithm="rloo") == chosen(algorithm="dapo") == "trainer"
    assert chosen(algorithm="grpo", num_epochs=2) == chosen(algorithm="grpo", max_staleness=1) == "trainer"
    assert chosen(algorithm="online_dpo", repetition_penalty=1.2) == "trainer"
    assert chosen(algorithm="rloo", kl={"kl_coef": 0.0, "target": None}) == "step"


@pytest.mark.parametrize(
    ("section", "why"),
    [({"algorithm": "rloo"}, "kl.where: reward"), ({"algorithm": "grpo", "num_epochs": 2}, "several steps a round"),
     ({"algorithm": "grpo", "max_staleness": 1}, "max_staleness: 1"),
     ({"algorithm": "online_dpo", "repetition_penalty": 1.2}, "repetition_penalty: 1.2")],
)  # fmt: skip
def test_a_step_that_would_come_too_late_is_refused(section: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OnlineConfig.model_validate({**section, "old_logprobs": "step"})
    assert f"old_logprobs=step comes too late for this method ({why})" in json.dumps(str(caught.value))
