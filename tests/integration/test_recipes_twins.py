"""The large recipes, each with everything in it made tiny, run from start to end; the small ones run as they are, cut short."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from micro import BUNDLED, GATES, artifacts, fairlead, folder_of, states

from fairlead.telemetry.sinks import read_metrics

RECIPES = Path(__file__).parents[2] / "recipes"
QUICKSTART = BUNDLED / "quickstart"
SMALL: dict[str, Any] = {
    "batch_size": 8, "minibatch_size": 8, "group_size": 4, "num_epochs": 1, "num_iterations": 2, "max_new_tokens": 12, "num_samples": 2,
    "max_prompts": 12, "max_tokens_per_microbatch": 2048, "max_length": 96, "heldout": 4, "learning_rate": 1e-4, "num_resamples": 50,
}  # fmt: skip
OUT = ("format", "template", "minimal_pairs", "slice_field")


def twin(value: Any, *, key: str = "") -> Any:
    """A section with small numbers in the place of its own and without what names other people's files."""
    if isinstance(value, dict):
        found = {name: twin(part, key=name) for name, part in value.items() if name not in OUT}
        return found | ({"minibatch_size": 8} if key in ("ppo", "grpo") else {})
    if isinstance(value, list):
        return [twin(part) for part in value]
    return SMALL.get(key, value)


def project(folder: Path, name: str) -> Path:
    """The twin of a recipe beside the files that it names."""
    data = folder / "data"
    data.mkdir(parents=True)
    pairs = [
        {"prompt": f"Was the film {i} good?", "chosen": "It was warm and kind.", "rejected": "Maybe, I guess."}
        for i in range(24)
    ]
    (data / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    lines = (QUICKSTART / "demonstrations.jsonl").read_text(encoding="utf-8").splitlines()[:48]
    (data / "demos.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = twin(yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8")))
    thumbs = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs
        for side in ("chosen", "rejected")
    ]
    (data / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in thumbs), encoding="utf-8")
    files = {"sft": data / "demos.jsonl", "preferences": data / "pairs.jsonl"}
    prompts = RECIPES / "arithmetic" / "prompts.jsonl" if name == "qwen_05b_grpo" else QUICKSTART / "prompts.jsonl"
    shutil.copy(prompts, data / "prompts.jsonl")
    recipe |= {"model": "bundled", "device": "cpu", "scope": "toy", "allow": dict.fromkeys(GATES, "a tiny twin")}
    recipe["prompts"]["sources"] = [{"path": str(data / "prompts.jsonl"), "take": 16}]
    for section, path in files.items():
        if section in recipe:
            recipe[section] |= (
                {"path": str(path), "heldout": 0.25} if section == "preferences" else {"data": [{"path": str(path)}]}
            )
    for policy in recipe.get("policies", {}).values():
        if "data" in policy:
            policy |= {"data": [{"path": str(data / "thumbs.jsonl")}], "heldout": 0.25}
        if "mix" in policy:
            policy["mix"]["data"] = [{"path": str(files["sft"])}]
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


NOT_RUN = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.read_text("utf-8").startswith("# Not run here"))
RUN = {"grpo_tiny", "grpo_arithmetic", "grpo_calculator", "harmless_hh", "imdb_sentiment", "tiny_cpu"}
"""What the pages give figures of."""


def test_a_recipe_was_run_or_says_first_that_it_was_not() -> None:
    assert {*NOT_RUN, *RUN} == {path.stem for path in RECIPES.glob("*.yaml")} and not RUN & {*NOT_RUN}


@pytest.mark.parametrize("name", NOT_RUN)
def test_the_tiny_twin_of_a_large_recipe_runs(name: str, tmp_path: Path) -> None:
    recipe = project(tmp_path, name)
    outcome = fairlead("run", recipe, home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    run = yaml.safe_load(recipe.read_text(encoding="utf-8"))["name"]
    assert set(states(tmp_path / "home", run).values()) == {"made"}
    for stage, artifact in artifacts(tmp_path / "home", run).items():
        if stage.startswith("policies."):
            found = read_metrics(folder_of(tmp_path / "home", artifact) / "metrics.jsonl")
            assert all(math.isfinite(value) for _, value in found["loss"])
            assert ("sft/loss" in found) == (name == "instructgpt")


@pytest.mark.parametrize("name", ["grpo_tiny", "grpo_arithmetic", "grpo_calculator"])
def test_a_small_recipe_runs_cut_short(name: str, tmp_path: Path) -> None:
    sets = ("policies.grpo.num_iterations=2", "sft.training.num_epochs=1", "policies.grpo.batch_size=16")
    outcome = fairlead("run", RECIPES / f"{name}.yaml", *(x for item in sets for x in ("--set", item)), home=tmp_path)
    assert outcome.code == 0, outcome.err
    (policy,) = (a for s, a in artifacts(tmp_path, name.replace("_", "-")).items() if s == "policies.grpo")
    assert len(read_metrics(folder_of(tmp_path, policy) / "metrics.jsonl")["rl/score"]) == 2


def test_a_policy_with_tools_is_evaluated_with_them(tmp_path: Path) -> None:
    """Before and after: replies of several turns, of which lengths and phrases count the policy's own words."""
    recipe = yaml.safe_load((RECIPES / "grpo_calculator.yaml").read_text(encoding="utf-8"))
    recipe["sft"] |= {"data": [{"path": str(RECIPES / "calculator" / "demonstrations.jsonl")}]}
    recipe["sft"]["training"]["num_epochs"] = 3
    recipe["prompts"] = {
        "sources": [{"path": str(RECIPES / "calculator" / "prompts.jsonl"), "take": 80}],
        "heldout": 24,
    }
    recipe["policies"]["grpo"] |= {"num_iterations": 1, "batch_size": 16}
    behaviour = {"id": "length", "direction": "up", "metric": "tokens", "min_effect": 0.1}
    recipe["evals"] = {
        "max_prompts": 12,
        "num_samples": 4,
        "max_new_tokens": 40,
        "criteria": {"behaviours": [behaviour]},
    }
    recipe["allow"] = dict.fromkeys(GATES, "cut short")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    outcome = fairlead("run", path, home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    folder = folder_of(tmp_path / "home", artifacts(tmp_path / "home", recipe["name"])["evals"])
    for side in ("before", "grpo"):
        rows = [json.loads(line) for line in (folder / f"answers-{side}.jsonl").read_text("utf-8").splitlines()]
        assert len(rows) == 48
        asked = [row for row in rows if "turns" in row["meta"]]
        assert asked, "no reply called the calculator"
        for row in asked:
            call, answer = row["meta"]["turns"]
            number = row["text"].removeprefix(call).removesuffix(answer).strip()
            assert "<calculator>" in call and number and row["meta"]["num_written_tokens"] < len(row["token_ids"])
            assert row["finish_reason"] in ("stop", "length")


@pytest.mark.slow
def test_the_calculator_recipe_learns_to_call_it(tmp_path: Path) -> None:
    outcome = fairlead(
        "run", RECIPES / "grpo_calculator.yaml", "--set", "policies.grpo.num_iterations=12", home=tmp_path
    )
    assert outcome.code == 0, outcome.err
    (policy,) = (a for s, a in artifacts(tmp_path, "grpo-calculator").items() if s == "policies.grpo")
    found = read_metrics(folder_of(tmp_path, policy) / "metrics.jsonl")
    score, calls = ([value for _, value in found[name]] for name in ("rl/score", "rl/tool_calls"))
    assert score[0] < 0.75 and sum(score[-3:]) / 3 > 0.9
    assert calls[0] < 0.8 and sum(calls[-3:]) / 3 > 0.95
