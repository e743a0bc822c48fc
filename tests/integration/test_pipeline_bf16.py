"""bf16 products through the pipeline: every offline stage trains, and what is saved is fp32."""

from pathlib import Path

import pytest
import torch
from micro import artifacts, fairlead, folder_of, write_recipe
from safetensors.torch import load_file

from fairlead.models.arithmetic import has_low_precision
from fairlead.telemetry.sinks import read_metrics

BF16 = {"training": {"precision": "bf16"}}


@pytest.mark.skipif(not has_low_precision(), reason="this processor has no bf16 instructions")
def test_every_stage_trains_in_bf16(tmp_path: Path) -> None:
    """On-policy the engine is asked for fp32: the heads of the bundled model are not of a size that it samples in bf16."""
    ppo = {**BF16, "engine": {"precision": "fp32"}}
    recipe = write_recipe(tmp_path / "project", {"sft": BF16, "rewards": BF16, "policies": {"dpo": BF16, "ppo": ppo}})
    for command, times in ((("reward", "train"), 2), (("train",), 2)):
        outcome = fairlead(*command, recipe, home=tmp_path / "home")
        assert outcome.code == 0, outcome.err
        assert (outcome.out + outcome.err).count("Products are computed in bf16") == times
    home = tmp_path / "home"
    for stage in ("sft", "policies.dpo", "policies.ppo"):
        weights = load_file(folder_of(home, artifacts(home)[stage]) / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}, stage

    found = read_metrics(folder_of(home, artifacts(home)["policies.ppo"]) / "metrics.jsonl")
    assert all(gap < 0.01 for _, gap in found["rl/first_ratio_gap"]), (
        "the ratio compares with a forward of the same precision"
    )
    assert 0 < found["rl/sampling_gap"][0][1] < 0.05 and found["rl/mismatch_sample_share"][0][1] > 0.99
    assert "rl/correction_capped_share" in found and abs(found["rl/kl_k1"][0][1]) < 1e-3


@pytest.mark.skipif(not has_low_precision(), reason="this processor has no bf16 instructions")
def test_bf16_on_policy_is_refused_where_the_engine_cannot_follow(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", {"policies": {"ppo": BF16, "dpo": None}})
    outcome = fairlead("train", recipe, home=tmp_path / "home")
    assert outcome.code != 0
    assert "training.precision=bf16 needs an engine that follows (" in outcome.err
