"""A model with state through the pipeline: SFT trains it and says how; the stage that samples from it refuses in one line."""

import json
from pathlib import Path

from micro import artifacts, fairlead, folder_of, write_recipe

import tiny_models


def test_a_mamba_is_fine_tuned_and_writes_no_completions(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", {"model": str(tiny_models.folder("mamba"))})
    outcome = fairlead("complete", recipe, home=tmp_path / "home")
    said = outcome.out + outcome.err
    folder = folder_of(tmp_path / "home", artifacts(tmp_path / "home")["sft"])
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "mamba"
    assert said.count("mamba keeps state across a row, so it is trained on padded rows: slower, same results") == 1
    assert outcome.code != 0 and "Traceback" not in said
    assert "cannot write completions here: it keeps state across a row" in outcome.err
    assert "SFT, reward models, DPO and KTO train it" in outcome.err
