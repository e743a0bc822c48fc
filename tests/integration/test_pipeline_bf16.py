"""bf16 products through the pipeline: every offline stage trains, and what is saved is fp32."""

from pathlib import Path

import pytest
import torch
from micro import artifacts, fairlead, folder_of, write_recipe
from safetensors.torch import load_file

from fairlead.models.arithmetic import has_low_precision

BF16 = {"training": {"precision": "bf16"}}


@pytest.mark.skipif(not has_low_precision(), reason="this processor has no bf16 instructions")
def test_every_offline_stage_trains_in_bf16(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", {"sft": BF16, "rewards": BF16, "policies": {"dpo": BF16, "ppo": None}})
    for command, times in ((("reward", "train"), 2), (("train",), 1)):
        outcome = fairlead(*command, recipe, home=tmp_path / "home")
        assert outcome.code == 0, outcome.err
        assert (outcome.out + outcome.err).count("Products are computed in bf16") == times
    home = tmp_path / "home"
    for stage in ("sft", "policies.dpo"):
        weights = load_file(folder_of(home, artifacts(home)[stage]) / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}, stage


def test_ppo_refuses_bf16(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", {"policies": {"ppo": BF16}})
    outcome = fairlead("train", recipe, home=tmp_path / "home")
    assert outcome.code != 0
    assert "training.precision=bf16 is not used by ppo" in outcome.err
