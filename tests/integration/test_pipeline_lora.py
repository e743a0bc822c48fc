"""Adapters through the whole pipeline: SFT, reward model, DPO and PPO train one, and what is saved is merged and loads alone."""

import json
import shutil
from pathlib import Path

import torch
from micro import MicroRun, artifacts, fairlead, folder_of, write_recipe
from safetensors.torch import load_file

LORA = {"training": {"lora": {"rank": 4, "alpha": 8}, "learning_rate": 2e-3}}


def test_dpo_and_ppo_with_adapters_save_merged_policies(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    recipe = write_recipe(tmp_path / "project", {"policies": {"ppo": LORA, "dpo": LORA}})
    outcome = fairlead("train", recipe, home=home)
    assert outcome.code == 0, outcome.err
    before = load_file(folder_of(home, artifacts(home)["sft"]) / "model.safetensors")
    for name in ("policies.ppo", "policies.dpo"):
        folder = folder_of(home, artifacts(home)[name])
        assert not list(folder.glob("adapter*"))
        after = load_file(folder / "model.safetensors")
        assert after.keys() == before.keys()
        moved = {k for k in before if not torch.equal(before[k], after[k])}
        assert moved, name
        assert all(before[k].ndim == 2 and "embed" not in k for k in moved), "only linear layers have adapters"
        assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"]


def test_sft_and_reward_model_with_adapters(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", {"sft": LORA, "rewards": LORA})
    outcome = fairlead("reward", "train", recipe, home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    for stage in ("sft", "rewards"):
        assert not list(folder_of(tmp_path / "home", artifacts(tmp_path / "home")[stage]).glob("adapter*"))
