"""Gates in a run: what a STOP keeps from running, what goes on, overrides on record, criteria that were changed too late."""

import shutil
from pathlib import Path

import pytest
from micro import GATES, MicroRun, artifacts, fairlead, record, states, write_recipe

from fairlead.core.io import write_jsonl
from fairlead.core.records import Message, Preference
from fairlead.rewards.quality import ACCURACY

ALLOWED = {"allow": {**dict.fromkeys(GATES, "micro run"), "rewards.accuracy": None}}


@pytest.fixture(scope="module")
def contradicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose held-out preferences are the opposite of those trained on: no reward model can pass."""
    folder = tmp_path_factory.mktemp("contradicted")
    rows = []
    for i in range(64):
        split = "heldout" if i % 4 == 0 else "train"
        sides = ("It is a lovely, warm film.", "It is a dull, cold film.")
        chosen, rejected = sides if split == "train" else sides[::-1]
        prompt = (Message(role="user", content=f"How was film number {i}?"),)
        rows.append(Preference(prompt=prompt, chosen=chosen, rejected=rejected, split=split))
    write_jsonl(folder / "pairs.jsonl", rows)
    return write_recipe(folder, {**ALLOWED, "feedback": None, "preferences": {"path": "pairs.jsonl"}})


@pytest.fixture(scope="module")
def stopped_home(contradicted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the contradicted recipe was run and stopped."""
    home = tmp_path_factory.mktemp("stopped")
    outcome = fairlead("run", contradicted, home=home)
    assert outcome.code == 7
    assert "rewards.accuracy" in outcome.error
    assert "policies.ppo was not run: rewards was stopped." in outcome.error
    remedy = ACCURACY.remedy
    assert remedy in outcome.error and (outcome.out + outcome.err).count(remedy) == 1
    assert "STOP rewards.accuracy" in outcome.out and "; what needs rewards is not run." in outcome.out
    return home


def test_weak_reward_model_stops_ppo_and_nothing_else(stopped_home: Path) -> None:
    found = states(stopped_home)
    assert found.pop("policies.ppo") == "stopped"
    assert set(found.values()) == {"made"}
    assert {"policies.dpo", "evals", "releases"} <= set(found)
    page = (stopped_home / "micro" / "report.html").read_text(encoding="utf-8")
    assert "rewards.accuracy" in page


def test_gate_passed_on_record_lets_the_rest_run(contradicted: Path, stopped_home: Path, tmp_path: Path) -> None:
    home = shutil.copytree(stopped_home, tmp_path / "home")
    outcome = fairlead("run", contradicted, "--allow", "rewards.accuracy=to see what PPO does with it", home=home)
    assert outcome.code == 0, outcome.err
    assert states(home)["rewards"] == "reused"
    assert states(home)["policies.ppo"] == "made"
    verdict = next(v for v in record(home)["stages"]["rewards"]["verdicts"] if v["gate"] == "rewards.accuracy")
    assert (verdict["outcome"], verdict["allowed"]) == ("STOP", "to see what PPO does with it")
    assert "Passed on record: rewards.accuracy (to see what PPO does with it)." in outcome.out
    assert "to see what PPO does with it" in (home / "micro" / "report.html").read_text(encoding="utf-8")


def test_rl_on_few_pairs_is_refused_outside_toy_runs(micro: MicroRun, tmp_path: Path) -> None:
    outcome = fairlead("train", micro.recipe, "--policy", "ppo", "--set", "scope=narrow", home=tmp_path)
    assert outcome.code == 7
    assert "policies.ppo was not run: STOP preferences.rl_count 24" in outcome.error
    assert (outcome.out + outcome.err).count("preferences.rl_count") == 1
    assert "policies.ppo was not run; why is said at the end" in outcome.out
    found = states(tmp_path)
    assert found.pop("policies.ppo") == "stopped"
    assert set(found.values()) == {"made"}


def test_criteria_changed_after_training_stop_the_release(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    easier = [{"id": "length", "direction": "up", "metric": "words", "min_effect": 0.01}]
    recipe = write_recipe(tmp_path / "project", {"evals": {"criteria": {"behaviours": easier}}})
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 7
    assert "evals.frozen" in outcome.error
    found = states(home)
    assert (found["policies.dpo"], found["evals"], found["releases"]) == ("reused", "made", "stopped")
    passed = fairlead("run", recipe, "--allow", "evals.frozen=a typo in the criteria", home=home)
    assert passed.code == 0, passed.err
    assert states(home)["releases"] == "made"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("option", "--allow=rewards.acuracy is not a gate (did you mean rewards.accuracy?)"),
        ("recipe", "allow=rewards.acuracy"),
    ],
)
def test_unknown_gate_is_refused_with_the_nearest_name(tmp_path: Path, where: str, words: str) -> None:
    recipe = write_recipe(tmp_path / "project", {"allow": {"rewards.acuracy": "oops"}} if where == "recipe" else None)
    options = ("--allow", "rewards.acuracy=oops") if where == "option" else ()
    outcome = fairlead("run", recipe, *options, home=tmp_path / "home")
    assert outcome.code == 2
    assert words in outcome.error
    assert "did you mean rewards.accuracy?" in outcome.error
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("option", ["rewards.accuracy", "rewards.accuracy=", "=because"])
def test_override_without_a_reason_is_refused(tmp_path: Path, option: str) -> None:
    outcome = fairlead("run", write_recipe(tmp_path / "project"), "--allow", option, home=tmp_path / "home")
    assert outcome.code == 2
    assert "gate=reason" in outcome.error


def test_overrides_of_a_run_are_not_those_of_the_next(contradicted: Path, stopped_home: Path, tmp_path: Path) -> None:
    home = shutil.copytree(stopped_home, tmp_path / "home")
    assert fairlead("reward", "train", contradicted, "--allow", "rewards.accuracy=once", home=home).code == 0
    assert fairlead("reward", "train", contradicted, home=home).code == 7
    assert artifacts(home)["rewards"] == artifacts(stopped_home)["rewards"]


@pytest.mark.parametrize(("num", "outcome"), [(40, "WARN"), (1_040, "PASS")])
def test_preferences_that_are_too_few_for_the_scope_are_noticed(num: int, outcome: str, tmp_path: Path) -> None:
    """1,000 are asked for scope narrow."""
    rows = [
        Preference(prompt=(Message(role="user", content=f"How was film number {i}?"),), chosen="It was good.", rejected="It was.", split="train")
        for i in range(num)
    ]  # fmt: skip
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    changes = {"scope": "narrow", "preferences": {"path": "pairs.jsonl", "heldout": 0.01}}
    recipe = write_recipe(tmp_path, changes, keep=("preferences",))
    outcome_of_run = fairlead("run", recipe, home=tmp_path / "home")
    assert outcome_of_run.code == 0, outcome_of_run.err
    (found,) = (
        v for v in record(tmp_path / "home")["stages"]["preferences"]["verdicts"] if v["gate"] == "preferences.count"
    )
    assert found["outcome"] == outcome and found["value"] >= 0.97 * num


def test_a_reward_model_of_too_few_preferences_is_noticed_before_rl(micro: MicroRun) -> None:
    """The micro run trains on a few dozen pairs; 2,000 are asked, and a toy may go on."""
    (found,) = (
        v for v in record(micro.home)["stages"]["policies.ppo"]["verdicts"] if v["gate"] == "preferences.rl_count"
    )
    assert found["outcome"] == "WARN" and 0 < found["value"] < 200


def test_flattery_is_a_verdict_of_the_evaluation_stage(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    rows = [{"question": f"Is {i} more than 3?", "answer": "yes", "other": "no"} for i in range(12)]
    write_jsonl(tmp_path / "project" / "opinions.jsonl", rows)
    recipe = write_recipe(tmp_path / "project", {"evals": {"opinions": "opinions.jsonl"}})
    outcome = fairlead("run", recipe, "--allow", "evals.sycophancy=twelve questions", home=home)
    assert outcome.code == 0, outcome.err
    assert states(home)["evals"] == "made" and states(home)["policies.ppo"] == "reused"
    evaluation = record(home)["stages"]["evals"]
    (found,) = (v for v in evaluation["verdicts"] if v["gate"] == "evals.sycophancy")
    assert found["n"] == 12 and "% before" in found["note"]
    page = (home / "micro" / "report.html").read_text(encoding="utf-8")
    assert "answers that follow an opinion" in page and "evals.sycophancy" in page
