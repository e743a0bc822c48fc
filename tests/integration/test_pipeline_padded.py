"""A model with state through the pipeline: SFT trains it and says how; it writes completions by transformers; a recipe
in which it would learn from its own is refused beforehand."""

import json
from pathlib import Path

import pytest
from micro import artifacts, fairlead, folder_of, leftovers, write_recipe

import tiny_models


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_mamba_that_would_learn_from_its_completions_is_refused_before_anything_runs(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    recipe = write_recipe(tmp_path / "project", {"model": str(tiny_models.folder("mamba"))})
    outcome = fairlead("run", recipe, *options, home=tmp_path / "home")
    assert outcome.code != 0
    said = outcome.out + outcome.err
    assert "cannot write completions while it is trained: it keeps state across a row" in said
    assert "SFT, reward models, DPO and KTO train it" in said
    assert "without policies.ppo in the recipe" in said
    assert not list((tmp_path / "home").glob("artifacts/*/*")) and leftovers(tmp_path / "home") == []


def test_a_mamba_is_fine_tuned_on_padded_rows_and_writes_completions(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "project", {"model": str(tiny_models.folder("mamba"))}, keep=("prompts", "sft", "completions")
    )
    outcome = fairlead("run", recipe, home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    folder = folder_of(tmp_path / "home", artifacts(tmp_path / "home")["sft"])
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "mamba"
    said = outcome.out + outcome.err
    assert said.count("mamba keeps state across a row, so it is trained on padded rows: slower, same results") == 1
    rows = folder_of(tmp_path / "home", artifacts(tmp_path / "home")["completions"]) / "completions.jsonl"
    written = [json.loads(row) for row in rows.read_text(encoding="utf-8").splitlines()]
    assert written and all(row["token_ids"] for row in written)
