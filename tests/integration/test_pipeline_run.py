"""The whole loop at micro size: artifacts, record, report, release, reuse, determinism, and the stage commands on one store."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from micro import BUNDLED, MicroRun, artifacts, fairlead, folder_of, leftovers, record, states, write_recipe

from fairlead.core.config import parse_config
from fairlead.pipeline.recipe import Recipe, load
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.registry import Registry
from fairlead.telemetry import METRICS, read_metrics

STAGES = ["prompts", "criteria", "gold", "sft", "completions", "feedback", "preferences", "rewards", "policies.ppo", "policies.dpo", "evals",
          "releases"]  # fmt: skip


def test_micro_run_finishes_every_stage_and_leaves_whole_artifacts(micro: MicroRun) -> None:
    assert micro.outcome.code == 0, micro.outcome.err
    assert list(micro.first_states.items()) == [(stage, "made") for stage in STAGES]
    store = ArtifactStore(micro.home)
    for artifact_id in artifacts(micro.home).values():
        store.verify(artifact_id)
    assert len(store.ids()) == len(STAGES)
    assert leftovers(micro.home) == []
    assert not list((micro.home / "work").iterdir())


def test_metrics_files_hold_the_catalogue_and_summaries_the_pace(micro: MicroRun) -> None:
    """Every method logs its metrics, all of them declared; what the clock decides is in the summaries alone."""
    trained = [
        folder_of(micro.home, artifacts(micro.home)[s]) for s in ("sft", "rewards", "policies.ppo", "policies.dpo")
    ]
    logged = {name for folder in trained for name in read_metrics(folder / "metrics.jsonl")}
    assert logged <= {metric.name for metric in METRICS if not metric.is_live}
    areas = {name.partition("/")[0] for name in logged}
    assert areas >= {"loss", "grad_norm", "learning_rate", "sft", "reward", "rl", "dpo"}
    for folder in trained:
        facts = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["facts"]
        assert facts["tokens_per_s"] > 0 and facts["step_s"] > 0
    assert "tokens/s, " in (micro.home / "micro" / "report.html").read_text(encoding="utf-8")


def test_trained_models_are_registered_and_the_released_policy_is_current(micro: MicroRun) -> None:
    made, store = artifacts(micro.home), ArtifactStore(micro.home)
    policies = Registry(store, "policies")
    released = json.loads((folder_of(micro.home, made["releases"]) / "release.json").read_text(encoding="utf-8"))[
        "artifact"
    ]
    states_by_id = {e.artifact_id: e.state for e in policies.entries()}
    assert states_by_id == {
        made[s]: "released" if made[s] == released else "candidate" for s in ("sft", "policies.ppo", "policies.dpo")
    }
    current = policies.current()
    assert current is not None
    assert current.artifact_id == released
    assert [e.artifact_id for e in Registry(store, "reward_models").entries()] == [made["rewards"]]


def test_record_holds_seed_command_seconds_and_reasons_of_overrides(micro: MicroRun) -> None:
    written = record(micro.home)
    assert (written["seed"], written["scope"], written["command"]) == (0, "toy", f"fairlead run {micro.recipe}")
    reasons = {v["gate"]: v["allowed"] for row in written["stages"].values() for v in row["verdicts"] if v["allowed"]}
    assert reasons
    assert set(reasons.values()) == {"micro run"}
    for gate in reasons:
        assert f"Passed on record: {gate} (micro run)." in micro.outcome.out
        assert gate in (micro.home / "micro" / "report.html").read_text(encoding="utf-8")


def test_kept_recipe_differs_from_the_original_in_paths_alone(micro: MicroRun) -> None:
    text = (micro.home / "micro" / "recipe.json").read_text(encoding="utf-8")
    assert parse_config(Recipe, json.loads(text.replace(f"{BUNDLED}/", ""))) == load(micro.recipe)


def test_kept_recipe_runs_from_where_it_lies_and_reuses_everything(micro: MicroRun, tmp_path: Path) -> None:
    """Files beside the recipe, found only from there, and a gate that was passed on the command line."""
    home = tmp_path / "home"
    shutil.copytree(micro.home, home)
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(BUNDLED / "quickstart" / "demonstrations.jsonl", project / "mine.jsonl")
    (project / "t.jinja").write_text(
        "{% for m in messages %}{{ m['content'] }}{{ eos_token }}\n{% endfor %}", encoding="utf-8"
    )
    changes = {"sft": {"data": [{"path": "mine.jsonl", "take": 64}]}, "text": {"template": "t.jinja"}}
    recipe = write_recipe(project, changes, keep=("sft",))
    first = fairlead("run", recipe, "--allow", "sft.count=few", home=home)
    assert first.code == 0, first.err
    kept = home / "micro" / "recipe.json"
    again = fairlead("run", kept, home=home)
    assert again.code == 0, again.err
    assert states(home) == {"sft": "reused"}
    assert record(home)["stages"]["sft"]["verdicts"][0]["allowed"] == "few"
    moved = tmp_path / "other" / "recipe.json"
    moved.parent.mkdir()
    shutil.copy(kept, moved)
    assert fairlead("run", moved, home=tmp_path / "fresh").code == 0


def test_report_stands_alone(micro: MicroRun) -> None:
    page = (micro.home / "micro" / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!#|data:)[^"'\s>]+""", page)
    assert not re.findall(r"@import|url\((?!['\"]?(?:data:|#))", page)
    for title in ("Reward model", "Evaluation", "Policy dpo (DPO)", "Policy ppo (PPO)"):
        assert title in page


def test_evaluation_compares_both_policies(micro: MicroRun) -> None:
    evaluation = json.loads((folder_of(micro.home, artifacts(micro.home)["evals"]) / "evaluation.json").read_text())
    assert sorted(row["policy"] for row in evaluation["ranking"]) == ["dpo", "ppo"]
    assert evaluation["num_prompts"] == 12


def test_release_loads_and_writes_without_fairlead(micro: MicroRun) -> None:
    script = """
import sys
sys.modules["fairlead"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
ids = tokenizer.apply_chat_template([{"role": "user", "content": "Is it a good film?"}], add_generation_prompt=True, return_tensors="pt",
                                    return_dict=False)
out = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.eos_token_id)
assert out.shape[1] > ids.shape[1]
print(sorted(p for p in __import__("os").listdir(sys.argv[1])))
"""
    folder = folder_of(micro.home, artifacts(micro.home)["releases"])
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for name in ("RELEASE.md", "release.json", "model.safetensors", "tokenizer.json"):
        assert name in done.stdout


def test_second_run_reuses_every_stage(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    again = fairlead("run", micro.recipe, home=home)
    assert again.code == 0
    assert set(states(home).values()) == {"reused"}
    assert artifacts(home) == artifacts(micro.home)
    assert again.out.count("  reused  ") == len(STAGES)


def test_changed_key_reruns_only_what_depends_on_it(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    assert fairlead("run", micro.recipe, "--set", "policies.dpo.beta=0.3", home=home).code == 0
    assert {s for s, state in states(home).items() if state == "made"} == {"policies.dpo", "evals", "releases"}


def test_changed_seed_reruns_what_is_random(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    assert fairlead("train", micro.recipe, "--policy", "sft", "--set", "seed=1", home=home).code == 0
    assert artifacts(home)["sft"] != artifacts(micro.home)["sft"]


def test_same_seed_in_another_home_gives_the_same_ids(micro: MicroRun, tmp_path: Path) -> None:
    """Ids are hashes of content: equal ids are equal weights, equal evaluation.json, equal votes. One stage at a time, too."""
    commands = (
        ("prompts",), ("complete",), ("judge",), ("prefer",), ("reward", "train"), ("train", "--policy", "dpo"),
        ("train", "--policy", "ppo"), ("eval",), ("release",),
    )  # fmt: skip
    seen: set[str] = set()
    for command in commands:
        outcome = fairlead(*command, micro.recipe, home=tmp_path)
        assert outcome.code == 0, (command, outcome.err)
        now = states(tmp_path)
        assert all(now[stage] == "reused" for stage in seen & set(now)), (command, now)
        seen |= set(now)
    assert artifacts(tmp_path) == artifacts(micro.home)


def test_stage_command_keeps_the_record_of_later_stages(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    assert fairlead("prompts", micro.recipe, home=home).code == 0
    assert artifacts(home) == artifacts(micro.home)


def test_changed_file_content_reruns_the_stage(tmp_path: Path) -> None:
    project = tmp_path / "project"
    recipe = write_recipe(project, {"sft": {"data": [{"path": "demos.jsonl"}]}}, keep=("prompts",))
    rows = [{"prompt": f"Question {i}?", "completion": f"Answer {i * 7}."} for i in range(40)]
    demos = project / "demos.jsonl"
    demos.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert fairlead("run", recipe, home=tmp_path / "home").code == 0
    first = artifacts(tmp_path / "home")
    demos.write_text(demos.read_text(encoding="utf-8").replace("Answer 7.", "Answer eight."), encoding="utf-8")
    assert fairlead("run", recipe, home=tmp_path / "home").code == 0
    assert states(tmp_path / "home") == {"prompts": "reused", "sft": "made"}
    assert artifacts(tmp_path / "home")["sft"] != first["sft"]


def test_changed_template_file_reruns_the_stage(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    template = project / "chat.jinja"
    text = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    template.write_text(text, encoding="utf-8")
    recipe = write_recipe(project, {"text": {"template": "chat.jinja"}}, keep=("sft",))
    assert fairlead("run", recipe, home=tmp_path / "home").code == 0
    template.write_text(text.replace(": ", " - "), encoding="utf-8")
    assert fairlead("run", recipe, home=tmp_path / "home").code == 0
    assert states(tmp_path / "home") == {"sft": "made"}


def test_damaged_artifact_is_made_again(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    path = folder_of(home, artifacts(home)["prompts"]) / "prompts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("film", "movie", 1), encoding="utf-8")
    assert fairlead("prompts", micro.recipe, home=home).code == 0
    assert states(home)["prompts"] == "made"
    assert artifacts(home) == artifacts(micro.home)


@pytest.mark.parametrize("command", [("run", "--dry-run"), ("plan",)])
def test_plan_computes_nothing(tmp_path: Path, command: tuple[str, ...]) -> None:
    recipe = write_recipe(tmp_path / "project")
    outcome = fairlead(command[0], recipe, *command[1:], home=tmp_path / "home")
    assert outcome.code == 0
    for stage in STAGES:
        assert re.search(rf"^\s*{re.escape(stage)}\b.*to do", outcome.out, re.MULTILINE), stage
    assert not (tmp_path / "home").exists()


def test_plan_names_what_would_be_reused(micro: MicroRun) -> None:
    outcome = fairlead("run", micro.recipe, "--dry-run", "--set", "policies.ppo.num_iterations=3", home=micro.home)
    made = artifacts(micro.home)
    assert f"done ({made['policies.dpo']})" in outcome.out
    assert len(re.findall("to do", outcome.out)) == 3  # ppo, evals, releases


def test_stages_without_models_run_where_the_model_is_not(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", {"model": "/on/another/machine", "text": {"max_length": 4096}})
    assert fairlead("prompts", recipe, home=tmp_path / "home").code == 0
    assert fairlead("train", recipe, "--policy", "sft", home=tmp_path / "home").code == 4
