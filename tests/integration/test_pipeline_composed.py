"""Composed rewards through the pipeline: from the recipe to scored samples, with lineage; what a section lacks is said before anything runs."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import micro as micro_run
import pytest
from micro import MicroRun, fairlead, folder_of

from fairlead.core.io import write_jsonl
from fairlead.core.records import Message, StepLabels
from fairlead.rewards.scored import SCORED_FILE, read_scored
from fairlead.telemetry.sinks import read_metrics
from openai_server import chat_server

RULES = {
    "short": {"type": "rule", "rule": {"kind": "length", "max_words": 6}, "weight": 2.0},
    "ends": {"type": "rule", "rule": {"kind": "missing_eos"}},
}
OFF = {"missing_eos_penalty": 0}


def ppo(rewards: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return {"policies": {"dpo": None, "ppo": {"rewards": rewards, **OFF, **more}}, "evals": None, "releases": None}


def test_a_policy_learns_from_everything_that_is_composed(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    reward_model = micro_run.artifacts(home)["rewards"]
    components = {**RULES, "kind": {"type": "model"}, "again": {"type": "model", "model": reward_model, "weight": 0, "swaps": {1: reward_model}},
                  "won": {"type": "judge", "num_opponents": 1, "weight": 0.5}}  # fmt: skip
    recipe = micro_run.write_recipe(tmp_path / "project", ppo({"components": components}, group_size=2))
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 0, outcome.err
    policy = folder_of(home, micro_run.artifacts(home)["policies.ppo"])
    rows = list(read_scored(policy / SCORED_FILE))
    assert [row.step for row in rows] == [0] * 8 + [1] * 8
    for row in rows:
        said = row.components
        assert row.total == pytest.approx(said["kind"] + 2 * said["short"] + said["ends"] + 0.5 * said["won"], abs=1e-6)
        assert said["again"] == pytest.approx(said["kind"], abs=1e-9) and said["won"] in (0, 0.5, 1)
        assert row.active == {"kind": reward_model, "again": reward_model}
    metrics = read_metrics(policy / "metrics.jsonl")
    assert [value for _, value in metrics["reward/again_swaps"]] == [0, 1]
    assert [value for _, value in metrics["reward/dropped"]] == [0, 0]
    assert metrics["reward/total_mean"][0][1] == pytest.approx(sum(row.total for row in rows[:8]) / 8)
    manifest = json.loads((policy / "manifest.json").read_text())
    assert {manifest["inputs"][role] for role in ("rewards", "rewards.again", "rewards.again.1")} == {reward_model}


def test_a_policy_without_a_reward_model_learns_from_rules_alone(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    changes = ppo({"components": RULES, "normalise_by": "running"}) | {
        "rewards": None,
        "preferences": None,
        "feedback": None,
    }
    recipe = micro_run.write_recipe(tmp_path / "project", changes)
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 0, outcome.err
    policy = folder_of(home, micro_run.artifacts(home)["policies.ppo"])
    rows = list(read_scored(policy / SCORED_FILE))
    assert sum(row.total for row in rows[:8]) == pytest.approx(0, abs=1e-6)  # of the first round all were kept
    assert all(math.isfinite(row.total) and not row.active for row in rows)


PAIR = {"group_size": 2}


@pytest.mark.parametrize(("rewards", "more", "message"), [
    ({"components": {"a": {"type": "judge", "judge": "gpt"}}}, PAIR, "policies.ppo.rewards.components.a.judge=gpt is not there"),
    ({"components": {"a": {"type": "judge"}}}, {}, "a.type=judge compares completions of one prompt, and ppo has one completion a prompt"),
    ({"components": {"a": {"type": "judge", "endpoint": {"url": "host/v1", "model": "m"}}}}, PAIR, "a.endpoint.url=host/v1 is no address of"),
    ({"components": {"a": {"type": "judge", "endpoint": {"url": "http://h/v1", "model": "m", "key_env": "K"}}}}, PAIR, "would send the key"),
    ({"components": {"a": {"type": "rule", "rule": {"kind": "lengt"}}}}, {}, "components.a.rule.kind=lengt is not known (did you mean length?)"),
    ({"components": {"a": {"type": "model", "model": "reward_model-0000"}}}, {}, "is neither an artifact nor the folder of a reward model"),
    ({"components": {"a": {"type": "modl"}}}, {}, "type=modl is not known (did you mean model?)"),
    ({"components": RULES}, {"missing_eos_penalty": 1.0}, "missing_eos_penalty=1.0 is paid a second time by a component of kind missing_eos"),
    ({"components": RULES, "combine": "normalise_then_sum"}, {}, "group_size=1 leaves nothing to normalise a reward within"),
    ({"components": RULES}, {"uncertainty_coef": 0.5}, "uncertainty_coef=0.5 is not read with rewards"),
    ({"components": {"a": {"type": "rule", "rule": {"kind": "missing_eos"}, "weight": ".nan"}}}, {}, "rewards.components.a.weight=.nan has a wrong"),
    ({"components": {"a": {"type": "rule", "rule": {"kind": "lexicon", "path": "gone.json"}}}}, {}, "a.rule.path=gone.json is not found"),
    ({"components": {"a": {"type": "rule", "rule": {"kind": "lexicon"}}}}, {}, "a.rule.path is missing; expected a lexicon.json"),
    ({"components": {"a": {"type": "verifier", "verifier": {"kind": "custom", "build": "gone:f"}}}}, {},
     "policies.ppo.rewards.components.a.verifier.build=gone:f cannot be imported"),
    ({"components": {"a": {"type": "verifier", "verifier": {"kind": "json_schema", "json_schema": {"type": "text"}}}}}, {},
     "policies.ppo.rewards.components.a.verifier.json_schema is no schema"),
    ({"components": {"a": {"type": "verifier", "verifier": {"kind": "math", "extract": ["box"]}}}}, {}, "a.verifier.extract.0=box has a wrong value"),
    ({"components": {"a": {"type": "model", "attributes": {"humour": 1.0}}}}, {}, "a.attributes.humour is none of the recipe's reward model"),
    ({"components": {"a": {"type": "model", "aggregate": "min"}}}, {}, "a.aggregate=min has no members to aggregate"),
])  # fmt: skip
def test_what_does_not_fit_is_said_before_anything_runs(
    rewards: dict[str, Any], more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe = micro_run.write_recipe(tmp_path / "project", ppo(rewards, **more))
    assert message in fairlead("run", recipe, home=tmp_path / "home").error
    assert not list((tmp_path / "home").glob("artifacts/*/*"))


def test_a_judge_model_behind_a_server_trains_a_policy_and_costs_once(micro: MicroRun, tmp_path: Path) -> None:
    """It prefers the longer reply and favours the first side at ties; two runs with one cache are equal, and the second asks nothing."""

    def say(body: dict[str, Any]) -> str:
        first, second = (part.split("\n")[2] for part in body["messages"][1]["content"].split("Reply ")[1:])
        return "A" if len(first) >= len(second) else "B"

    home = shutil.copytree(micro.home, tmp_path / "home")
    with chat_server(say) as server:
        endpoint = {
            "url": server.url,
            "model": "judge",
            "key_env": "JUDGE_KEY",
            "num_parallel": 3,
            "dollars_per_million_prompt_tokens": 100.0,
        }
        components = {"won": {"type": "judge", "num_opponents": 3, "endpoint": endpoint}}
        recipe = micro_run.write_recipe(tmp_path / "project", {
            "policies": {"dpo": None, "ppo": None, "grpo": {
                "algorithm": "grpo", "num_iterations": 2, "batch_size": 8, "group_size": 4, "minibatch_size": 8, "max_new_tokens": 16,
                "rewards": {"components": components}, "training": {"learning_rate": 2e-4},
            }},
            "gold": None, "completions": None, "feedback": None, "preferences": None, "rewards": None, "evals": None, "releases": None,
        })  # fmt: skip
        missing = fairlead("run", recipe, home=home)
        assert "rewards.components.won.endpoint.key_env=JUDGE_KEY is not set" in missing.error
        assert server.asked == []
        key = {"JUDGE_KEY": "s3cret"}
        outcome = fairlead("run", recipe, home=home, env=key)
        assert outcome.code == 0, outcome.err
        num_asked = len(server.asked)
        assert 0 < num_asked <= 2 * 2 * 2 * 6 and {body["authorization"] for body in server.asked} == {"Bearer s3cret"}
        again = fairlead("run", recipe, "--set", "policies.grpo.rewards.log_samples=15", home=home, env=key)
        assert again.code == 0 and len(server.asked) == num_asked
    policy = folder_of(home, micro_run.artifacts(home)["policies.grpo"])
    for row in read_scored(policy / SCORED_FILE):
        assert row.total == row.components["won"] and 0 <= row.total <= 1
    assert not any("judge_tokens" in line for line in (policy / "metrics.jsonl").read_text().splitlines())
    spent = [
        json.loads(path.read_text())["cost_dollars"]
        for path in home.glob("artifacts/policy/*/summary.json")
        if "grpo" in path.read_text()
    ]
    assert sorted(spent) == [0.0, pytest.approx(num_asked * 10 * 100 / 1e6)]
    assert not [path for path in home.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


@pytest.mark.parametrize(("own", "message"), [
    ({"slices": ["maths"]}, "policies.ppo.rewards.components.maths.slices=maths is a slice without prompts"),
    ({"except_slices": ["maths"]}, "policies.ppo.rewards.components.maths.except_slices=maths is a slice without prompts"),
    ({"where": {"level": 3}}, "policies.ppo.rewards.components.maths scores none of the"),
])  # fmt: skip
@pytest.mark.parametrize("is_made", [True, False])
def test_a_slice_without_prompts_is_said_before_the_first_stage(
    micro: MicroRun, tmp_path: Path, own: dict[str, Any], message: str, is_made: bool
) -> None:
    """From the prompts of before, where they were made, else from the rows of the sources; nothing has run."""
    home = shutil.copytree(micro.home, tmp_path / "home") if is_made else tmp_path / "home"
    before = set(home.glob("artifacts/*/*"))
    components = {**RULES, "maths": {"type": "rule", "rule": {"kind": "repetition"}, **own}}
    recipe = micro_run.write_recipe(tmp_path / "project", ppo({"components": components}))
    error = fairlead("run", recipe, home=home).error
    assert message in error and "slices" in error
    assert set(home.glob("artifacts/*/*")) == before
    dry = fairlead("run", recipe, "--dry-run", home=home)
    assert message in dry.out + dry.err


def test_a_slice_that_nothing_scores_is_said_before_the_first_stage(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "project" / "two.jsonl",
        [{"prompt": f"{i} and {i}", "part": "maths" if i % 2 else "chat"} for i in range(8)],
    )
    source = {"path": "two.jsonl", "slice_field": "part", "take": None}
    changes = ppo({"components": {"short": {**RULES["short"], "slices": ["chat"]}}, "normalise_by": "running"})
    changes |= {
        "prompts": {"sources": [source], "heldout_sources": None},
        "rewards": None,
        "preferences": None,
        "feedback": None,
    }
    error = fairlead("run", micro_run.write_recipe(tmp_path / "project", changes), home=tmp_path / "home").error
    assert "is scored by no component of policies.ppo.rewards (4 of 8 prompts; its slice is maths)" in error
    assert not list((tmp_path / "home").glob("artifacts/*/*"))


def test_a_reward_model_is_updated_swapped_in_and_asked_again(micro: MicroRun, tmp_path: Path) -> None:
    """Round two: other votes and half of the old ones; then a policy that changes its reward model at step 1."""
    home = shutil.copytree(micro.home, tmp_path / "home")
    first = micro_run.artifacts(home)["rewards"]
    votes = micro_run.artifacts(home)["preferences"]
    changes = {"name": "second", "feedback": {"num_raters": 7}, "policies": None, "evals": None, "releases": None}
    recipe = micro_run.write_recipe(tmp_path / "project", changes)
    outcome = fairlead("reward", "update", recipe, "--from", first, "--replay", "0.5", home=home)
    assert outcome.code == 0, outcome.err
    second = micro_run.artifacts(home, "second")["rewards"]
    inputs = json.loads((folder_of(home, second) / "manifest.json").read_text())["inputs"]
    assert (inputs["start"], inputs["replay"]) == (first, votes) and inputs["preferences"] not in ("", votes)
    assert "accuracy before the update" in (folder_of(home, second) / "summary.json").read_text()

    components = {**RULES, "kind": {"type": "model", "model": first, "swaps": {1: second}}}
    policy = micro_run.write_recipe(
        tmp_path / "third", ppo({"components": components}) | {"name": "third", "rewards": None}
    )
    outcome = fairlead("run", policy, home=home)
    assert outcome.code == 0, outcome.err
    rows = list(read_scored(folder_of(home, micro_run.artifacts(home, "third")["policies.ppo"]) / SCORED_FILE))
    assert {row.step: row.active["kind"] for row in rows} == {0: first, 1: second}

    again = fairlead("reward", "score", "third", "--policy", "ppo", "--json", home=home)
    assert again.code == 0, again.err
    found = json.loads(again.out)
    assert len(found) == 16 * 3 and all(row["is_same"] for row in found)
    assert {(row["step"], row["model"]) for row in found if row["component"] == "kind"} == {(0, first), (1, second)}
    one = fairlead("reward", "score", "third", "--policy", "ppo", "--step", "1", home=home)
    assert "24 scores of ppo are what they were." in one.out
    assert (
        "has no logged samples; expected one of 0, 1"
        in fairlead("reward", "score", "third", "--policy", "ppo", "--step", "7", home=home).error
    )


def test_a_process_reward_model_pays_ppo_at_the_ends_of_steps(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    project = tmp_path / "project"
    steps = {"type": "process", "is_dense": True, "aggregate": "mean", "weight": 0.5}
    changes = ppo({"components": {**RULES, "steps": steps}}) | {"process": {
        "data": [{"path": "steps.jsonl"}], "separator": " ", "heldout": 0.3, "training": {"learning_rate": 1e-3, "batch_size": 8},
    }}  # fmt: skip
    recipe = micro_run.write_recipe(project, changes | {"rewards": None})
    write_jsonl(project / "steps.jsonl", [
        StepLabels(prompt=(Message(role="user", content=f"Say {word}."),), steps=(word, "well", end), labels=(1.0, 0.5, float(end == "done")))
        for word in ("hello", "thanks", "yes", "no", "please", "maybe", "later", "now") for end in ("done", "never")
    ])  # fmt: skip
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 0, outcome.err
    made = micro_run.artifacts(home)
    policy = folder_of(home, made["policies.ppo"])
    rows = list(read_scored(policy / SCORED_FILE))
    assert {row.active["steps"] for row in rows} == {made["process"]}
    assert all(0 <= row.components["steps"] <= 1 for row in rows if math.isfinite(row.components["steps"]))
    for row in rows:  # what is paid at steps is no part of the total
        assert row.total == pytest.approx(2 * row.components["short"] + row.components["ends"], abs=1e-6)
    assert json.loads((policy / "manifest.json").read_text())["inputs"]["process"] == made["process"]
    assert micro_run.states(home)["process"] == "made"
    preflight = fairlead("preflight", recipe, "--stage", "process", home=home)
    assert preflight.code == 0, preflight.err
