"""Options of training through the whole pipeline: what is frozen stays, and what is saved is the moving average."""

import json
from pathlib import Path

import pytest
import torch
from micro import BUNDLED, artifacts, fairlead, folder_of, write_recipe
from safetensors.torch import load_file

FROZEN = r"model\.(embed_tokens|layers\.0)\..*"
TRAINING = {"freeze": [FROZEN], "ema_decay": 0.9, "optimizer": "muon", "learning_rate": 1e-3}


def test_frozen_layers_stay_through_sft_and_reward_model(tmp_path: Path) -> None:
    sft = {"training": TRAINING, "neftune_alpha": 5, "learn": "last_reply"}
    recipe = write_recipe(
        tmp_path / "project", {"sft": sft, "rewards": {"training": {**TRAINING, "optimizer": "adafactor"}}}
    )
    home = tmp_path / "home"
    outcome = fairlead("reward", "train", recipe, home=home)
    assert outcome.code == 0, outcome.err
    (bundled,) = BUNDLED.rglob("model.safetensors")
    start = {name: tensor.float() for name, tensor in load_file(bundled).items()}
    for stage in ("sft", "rewards"):
        after = load_file(folder_of(home, artifacts(home)[stage]) / "model.safetensors")
        frozen = {k for k in after if k.startswith(("model.embed_tokens", "model.layers.0."))}
        moved = {k for k in after if not torch.equal(after[k].float(), start[k])}
        assert frozen and moved and not frozen & moved, stage


@pytest.mark.parametrize("pattern", ["model.nosuch.*", ".*"])
def test_a_pattern_that_cannot_be_meant_is_one_line(tmp_path: Path, pattern: str) -> None:
    recipe = write_recipe(tmp_path / "project", {"sft": {"training": {"freeze": [pattern]}}})
    outcome = fairlead("reward", "train", recipe, home=tmp_path / "home")
    assert "training.freeze" in outcome.error


def test_sft_that_made_everything_worse_says_so_of_the_weights_that_it_saved(tmp_path: Path) -> None:
    """Headline, gate and facts are those of the last step, for no measurement was better than the start."""
    training = {"learning_rate": 0.05, "schedule": "constant", "ema_decay": 0.5}
    allow = {"sft.learning_rate": "to spoil it"}
    recipe = write_recipe(tmp_path / "project", {"sft": {"training": training}, "allow": allow}, keep=("sft",))
    home = tmp_path / "home"
    assert fairlead("run", recipe, home=home).code == 0
    summary = json.loads((folder_of(home, artifacts(home)["sft"]) / "summary.json").read_text(encoding="utf-8"))
    (curve,) = summary["charts"][0]["series"]
    start, last = curve["points"][0][1], curve["points"][-1][1]
    assert summary["facts"]["heldout_perplexity"] == pytest.approx(last)
    assert last > 1.02 * start
    assert f"from {start:.2f} to {last:.2f}" in summary["headline"]
    (gate,) = (v for v in summary["verdicts"] if v["gate"] == "sft.perplexity")
    assert gate["value"] == pytest.approx(last / start)
    assert any("these are the weights of the last step" in note for note in summary["notes"])
    assert any("moving average over the steps (training.ema_decay=0.5)" in note for note in summary["notes"])
