"""Every shipped recipe parses, has a plan, is short on surprises, and says why its numbers are what they are."""

import re
from pathlib import Path

import pytest

from fairlead.core.config import load_recipe
from fairlead.pipeline.files import FileFinder
from fairlead.pipeline.plan import build_plan
from fairlead.pipeline.recipe import Recipe, load

RECIPES = Path(__file__).parents[3] / "recipes"
NAMES = sorted(path.name for path in RECIPES.glob("*.yaml"))
COMMENTED = (
    "dpo_7b_lora.yaml",
    "llama3_8b_ppo_lora.yaml",
    "instructgpt.yaml",
    "ppo_7b.yaml",
    "sft_only.yaml",
    "tiny_cpu.yaml",
    "zephyr.yaml",
)


def test_the_recipes_are_there() -> None:
    assert set(COMMENTED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_parses_and_has_a_plan(name: str) -> None:
    recipe = load(RECIPES / name)
    assert build_plan(recipe)
    assert recipe.name == name.removesuffix(".yaml").replace("_", "-")


@pytest.mark.parametrize("name", COMMENTED)
def test_learning_rates_and_batches_are_explained(name: str) -> None:
    """A number that somebody will want to change says its unit or its source on the same line, once a recipe at least."""
    lines = (RECIPES / name).read_text().splitlines()
    assert lines[0].startswith("# ")
    for key in ("learning_rate", "batch_size", "num_epochs", "max_length", "scope"):
        first = next(line for line in lines if re.match(rf"\s*(text: \{{)?{key}:", line))
        assert "# " in first, first


@pytest.mark.parametrize("name", COMMENTED)
def test_a_recipe_declares_success_before_training(name: str) -> None:
    recipe = load(RECIPES / name)
    assert recipe.evals is not None
    assert any(not b.guard for b in recipe.evals.criteria.behaviours)
    assert any(b.guard for b in recipe.evals.criteria.behaviours)


def test_the_tiny_recipe_has_every_section_and_every_file() -> None:
    data = load_recipe(RECIPES / "tiny_cpu.yaml")
    assert set(Recipe.model_fields) - set(data) <= {"allow", "process", "telemetry"}  # no labelled steps are bundled
    finder = FileFinder(RECIPES)
    for path in re.findall(r"quickstart/[\w.]+", (RECIPES / "tiny_cpu.yaml").read_text()):
        assert finder.find(path).is_file()
