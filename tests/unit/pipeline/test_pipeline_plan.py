"""From a recipe to nodes: order, inputs, what a target stands on, rules across sections."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError
from fairlead.pipeline.alerts import check_alerts
from fairlead.pipeline.plan import ALL_POLICIES, BASE_MODEL, build_plan, select
from fairlead.pipeline.recipe import Recipe, evals_of, load
from fairlead.policies.online_config import OnlineConfig

FULL: dict[str, Any] = {
    "name": "full",
    "prompts": {"sources": ["prompts.jsonl"]},
    "gold": {"type": "lexicon", "path": "lexicon.json"},
    "sft": {"data": [{"path": "demos.jsonl"}]},
    "completions": {},
    "feedback": {},
    "preferences": {},
    "rewards": {},
    "policies": {"ppo": {"algorithm": "ppo"}, "dpo": {"algorithm": "dpo"}, "soft": {"algorithm": "ipo"}},
    "evals": {},
    "releases": {},
}
ENDS = {"components": {"ends": {"type": "rule", "rule": {"kind": "missing_eos"}}}}
RAISES: dict[str, Any] = {"alerts": {"rules": {"kl_high": {"actions": [{"kind": "raise_kl", "factor": 1.5}]}}}}


def _recipe(tmp_path: Path, **changes: Any) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in {**FULL, **changes}.items() if v is not None}), encoding="utf-8")
    return load(path)


def test_every_node_comes_after_its_inputs(tmp_path: Path) -> None:
    seen = {BASE_MODEL}
    for node in build_plan(_recipe(tmp_path)):
        assert set(node.inputs.values()) <= seen, node.name
        seen.add(node.name)
    assert len(seen) == 14


def test_criteria_come_before_anything_is_trained(tmp_path: Path) -> None:
    names = [node.name for node in build_plan(_recipe(tmp_path))]
    assert names.index("criteria") < names.index("sft")


def test_without_sft_stages_read_the_base_model(tmp_path: Path) -> None:
    nodes = {n.name: n for n in build_plan(_recipe(tmp_path, sft=None))}
    for name in ("completions", "rewards", "policies.ppo", "policies.dpo"):
        assert nodes[name].inputs["policy"] == BASE_MODEL
    assert nodes["evals"].inputs["before"] == BASE_MODEL


def test_without_policies_sft_is_measured_against_the_model_that_it_started_from(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("policies", "rewards", "preferences", "feedback", "completions", "gold", "releases"))
    (node,) = (n for n in build_plan(_recipe(tmp_path, **nothing)) if n.name == "evals")
    assert node.inputs == {"criteria": "criteria", "before": BASE_MODEL, "prompts": "prompts", "policy.sft": "sft"}


def test_preferences_from_a_file_need_no_votes(tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, feedback=None, gold=None, preferences={"path": "pairs.jsonl"})
    nodes = {n.name: n for n in build_plan(recipe)}
    assert nodes["preferences"].inputs == {"prompts": "prompts"}  # whose split it follows
    assert "feedback" not in nodes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": {"ppo": {"algorithm": "ppo", "max_new_tokens": 512}}, "releases": None},
         r"policies\.ppo\.max_new_tokens=512 leaves no room for a prompt; expected < text.max_length \(512\)"),
        ({"policies": {"g": {"algorithm": "grpo", "max_new_tokens": 300, "rewards": ENDS,
                             "tools": {"environments": [{"kind": "calculator"}], "max_observation_tokens": 128, "max_turns": 3}}},
          "releases": None, "evals": None},
         r"policies\.g\.max_new_tokens=300 leaves no room for a prompt; expected < text.max_length \(512, of which observations take 256\)\. "
         r"Lower max_new_tokens to 64 or tools\.max_observation_tokens to 10, or raise text.max_length if the model can"),
        ({"policies": {"g": {"algorithm": "grpo", "max_new_tokens": 400, "rewards": ENDS,
                             "tools": {"environments": [{"kind": "calculator"}], "max_observation_tokens": 200, "max_turns": 3}}},
          "releases": None, "evals": None},
         r"observations take 400\)\. Lower max_new_tokens to 160 and tools\.max_observation_tokens to 80, or raise"),
        ({"policies": {"g": {"algorithm": "grpo", "max_new_tokens": 64, "rewards": ENDS,
                             "tools": {"environments": [{"kind": "calculator"}], "max_observation_tokens": 64, "max_turns": 9}}},
          "releases": None},
         r"evals\.max_new_tokens=128 leaves no room for a prompt.*Lower tools\.max_observation_tokens to 24 or tools\.max_turns to 4"),
        ({"completions": {"max_new_tokens": 600}}, r"completions\.max_new_tokens=600 leaves no room for a prompt"),
        ({"evals": {"max_new_tokens": 600}}, r"evals\.max_new_tokens=600 leaves no room for a prompt"),
        ({"policies": {"ppo": ["algorithm"], "dpo": {"algorithm": ["dpo"]}}}, r"policies\.dpo\.algorithm=\['dpo'\] is not an algorithm"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_before_anything_does(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _recipe(tmp_path, **changes)


def test_tools_at_all_defaults_leave_three_eighths_of_the_text_for_a_prompt(tmp_path: Path) -> None:
    """128 tokens of the policy and three observations of 64 in 512 leave 192, for policies and for evaluations with their tools."""
    tools = {"environments": [{"kind": "calculator"}]}
    recipe = _recipe(tmp_path, policies={"g": {"algorithm": "grpo", "rewards": ENDS, "tools": tools}}, releases=None)
    policy, evals = recipe.policies["g"], evals_of(recipe)
    assert isinstance(policy, OnlineConfig) and evals is not None
    assert recipe.text.max_length - policy.max_reply_tokens == 192
    assert recipe.text.max_length - evals.max_new_tokens - evals.max_added_tokens == 192


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("prompts", {"prompts"}),
        ("completions", {"prompts", "criteria", "sft", "completions"}),
        ("preferences", {"prompts", "criteria", "gold", "sft", "completions", "feedback", "preferences"}),
        ("policies.dpo", {"prompts", "criteria", "gold", "sft", "completions", "feedback", "preferences", "policies.dpo"}),
    ],
)  # fmt: skip
def test_target_takes_what_it_stands_on_and_the_criteria_with_any_training(
    tmp_path: Path, target: str, expected: set[str]
) -> None:
    assert {n.name for n in select(build_plan(_recipe(tmp_path)), target)} == expected


def test_prefix_takes_all_policies(tmp_path: Path) -> None:
    chosen = {n.name for n in select(build_plan(_recipe(tmp_path)), "policies")}
    assert {"policies.ppo", "policies.dpo", "policies.soft", "rewards"} <= chosen
    assert "evals" not in chosen


def test_training_is_whatever_trains_a_policy(tmp_path: Path) -> None:
    """A recipe of SFT alone has no policies section and is trained all the same."""
    everything = {n.name for n in select(build_plan(_recipe(tmp_path)), ALL_POLICIES)}
    assert everything == {n.name for n in select(build_plan(_recipe(tmp_path)), "policies")}
    alone = build_plan(_recipe(tmp_path, policies={}, rewards=None, releases=None, evals=None))
    assert [n.name for n in select(alone, ALL_POLICIES)] == ["sft"]
    with pytest.raises(ConfigError, match="is not part of this recipe"):
        select([n for n in alone if n.name == "prompts"], ALL_POLICIES)


def test_unknown_target_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean policies\.dpo"):
        select(build_plan(_recipe(tmp_path)), "policies.dop")


def test_named_release_needs_its_policy_and_best_takes_any(tmp_path: Path) -> None:
    nodes = {n.name: n for n in build_plan(_recipe(tmp_path, releases={"policy": "dpo"}))}
    assert "policy.dpo" not in nodes["releases"].optional
    assert "policy.ppo" in nodes["releases"].optional
    best = {n.name: n for n in build_plan(_recipe(tmp_path))}["releases"]
    assert best.optional == {"policy.ppo", "policy.dpo", "policy.soft"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": None}, "prompts"),
        ({"completions": None, "feedback": None, "preferences": {"path": "a.jsonl"}}, "completions"),
        ({"gold": None}, "gold"),
        ({"feedback": None}, r"preferences\.path"),
        ({"rewards": None}, r"policies\.ppo\.algorithm=ppo needs rewards"),
        ({"evals": None}, "evals"),
        ({"releases": {"policy": "other"}}, r"releases\.policy=other"),
        ({"policies": {"dpo": {"algorithm": "dpo", "betta": 1}}}, r"policies\.dpo\.betta=1 .*did you mean beta"),
        ({"policies": {"dpo": {}}}, r"policies\.dpo\.algorithm is not an algorithm"),
        ({"policies": {"x": {"algorithm": "dppo"}}}, r"policies\.x\.algorithm=dppo"),
        ({"policies": ["dpo"]}, "policies"),
    ],
)
def test_sections_that_do_not_fit_together_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        _recipe(tmp_path, **changes)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"gold": {"type": "lexcon", "path": "x"}}, "gold.type=lexcon is not known (did you mean lexicon?); expected one of lexicon, rule,"),
        ({"gold": {"path": "x"}}, "gold.type is missing;"),
        ({"gold": {"type": "lexicon"}}, "gold.path is missing;"),
        ({"gold": {"type": "rule", "path": "x"}}, "gold.path=x is not a known key; expected one of rule, type."),
        ({"policies": {"ppo": {"algorithm": "ppo", "kl": {"kl_cof": 1}}}}, "policies.ppo.kl.kl_cof=1 is not a known key (did you mean kl_coef?)"),
        ({"model": 5}, "model=5 has a wrong value; expected a valid string."),
        ({"prompts": {"sources": [{"path": "x"}], "mix": {"a": "b"}}}, "prompts.mix.a=b has a wrong value;"),
        ({"evals": {"criteria": {"behaviours": [{"id": "a", "direction": "up", "metric": "score", "min_effect": 0.1}]}}},
         "evals.criteria.behaviours.0.metric=score needs a scorer; expected a section gold."),
    ],
)  # fmt: skip
def test_faults_are_located_by_the_keys_of_the_recipe(section: dict[str, Any], message: str) -> None:
    """Pydantic's locations name members of unions as well; a recipe has no such keys."""
    with pytest.raises(ConfigError) as caught:
        parse_config(Recipe, {"name": "x", **section})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"sft": {"data": [{"path": "demos.jsonl"}], "training": RAISES}}, "sft.training.alerts.rules.kl_high.actions=raise_kl can do nothing"),
        ({"policies": {"dpo": {"algorithm": "dpo", "training": RAISES}}}, "policies.dpo.training.alerts.rules.kl_high.actions=raise_kl"),
        ({"policies": {"bare": {"algorithm": "dr_grpo", "training": RAISES}}}, "the KL coefficient is 0, and a factor leaves it there"),
    ],
)  # fmt: skip
def test_alerts_on_a_kl_coefficient_are_for_methods_that_have_one(
    tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_alerts(_recipe(tmp_path, **changes))
    assert where in str(caught.value)
    for policy in ({"algorithm": "ppo"}, {"algorithm": "grpo"}, {"algorithm": "dr_grpo", "kl": {"kl_coef": 0.1}}):
        assert "alert.kl_high" in check_alerts(_recipe(tmp_path, policies={"p": {**policy, "training": RAISES}}))
