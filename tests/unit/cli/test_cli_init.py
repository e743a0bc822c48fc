"""`fairlead init`: the rule table, the recipe with a comment on every key, the starter projects, and what is refused."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.cli.choosing import HARDWARE, RULES, Situation, choose, flip_rate, learning_rate, uses_lora
from fairlead.cli.init import Answers, num_parameters, write_project
from fairlead.cli.recipe_text import Key, Section, flow, render
from fairlead.cli.starters import STARTERS
from fairlead.core.config import parse_config, parse_yaml
from fairlead.core.errors import ConfigError
from fairlead.core.io import Rejects, read_rows
from fairlead.core.sections import Training, learning_rate_note
from fairlead.core.services import Services
from fairlead.formats import read_demonstrations, read_preferences
from fairlead.pipeline.plan import build_plan
from fairlead.pipeline.recipe import Recipe, load
from fairlead.policies.dpo import DpoConfig
from fairlead.policies.online_config import OnlineConfig
from fairlead.preferences import votes
from fairlead.prompts import stage as prompts_stage


def situation(**keys: Any) -> Situation:
    return Situation(**{"pairs": 10_000, "hardware": HARDWARE["node"], "num_parameters": 1.5e9, **keys})


@pytest.mark.parametrize(
    ("keys", "rule", "method"),
    [
        ({"pairs": 1_999, "needs": frozenset({"online"})}, "few-pairs", "dpo"),
        ({"pairs": 100, "needs": frozenset({"online"}), "scope": "toy"}, "online", "ppo"),
        ({"agreement": 0.64, "needs": frozenset({"verifiable"})}, "low-agreement", "dpo"),
        ({"agreement": 0.65, "needs": frozenset({"verifiable"})}, "verifiable", "ppo"),
        ({"needs": frozenset({"reranking"})}, "reranking", "ppo"),
        ({"needs": frozenset({"dimensions"})}, "dimensions", "ppo"),
        ({"needs": frozenset({"online"}), "hardware": HARDWARE["laptop"]}, "memory", "dpo"),
        ({"needs": frozenset({"online"}), "hardware": HARDWARE["laptop"], "num_parameters": 1.6e8}, "online", "ppo"),
        ({"hardware": HARDWARE["one-gpu"]}, "few-gpus", "dpo"),
        ({"agreement": 0.9}, "clean-pairs", "dpo"),
        ({}, "default", "dpo"),
    ],
)
def test_the_first_rule_that_applies_decides(keys: dict[str, Any], rule: str, method: str) -> None:
    choice = choose(situation(**keys))
    assert (choice.rule.name, choice.method) == (rule, method)


def test_every_rule_can_decide() -> None:
    """No rule is hidden behind an earlier one: the cases above name each of them."""
    named = {
        mark.args[1][i][1]
        for mark in test_the_first_rule_that_applies_decides.pytestmark
        for i in range(len(mark.args[1]))
    }  # pyright: ignore
    assert named == {rule.name for rule in RULES}


@given(rate=st.floats(0.0, 0.49))
@settings(deadline=None, max_examples=25)
def test_flip_rate_inverts_the_agreement_of_two_raters_who_err(rate: float) -> None:
    agreement = (1 - rate) ** 2 + rate**2
    assert flip_rate(agreement) == pytest.approx(rate, abs=6e-4)


def test_low_agreement_takes_the_robust_link_and_asks_for_a_better_guideline() -> None:
    """A = 0.68: (1 - sqrt(0.36)) / 2 = 0.2."""
    assert (choose(situation(agreement=0.68)).link, choose(situation(agreement=0.68)).flip_rate) == ("robust", 0.2)
    assert not any("guideline" in line for line in choose(situation(agreement=0.68)).advice)
    assert "Fix the guideline first" in choose(situation(agreement=0.64)).advice[0]
    assert choose(situation(agreement=0.70)).link == "dpo"
    with pytest.raises(ConfigError, match="no better than a coin"):
        situation(agreement=0.5)


def test_full_ppo_of_7b_needs_280_gb_and_lora_where_it_does_not_fit() -> None:
    big = situation(num_parameters=7e9)
    assert big.memory_gb("ppo", is_lora=False) == 280
    assert uses_lora(big, "dpo")
    assert not uses_lora(situation(num_parameters=3e9), "dpo")
    assert any(
        "Take a smaller model" in line
        for line in choose(situation(num_parameters=7e9, needs=frozenset({"online"}))).advice
    )


@pytest.mark.parametrize(
    ("stage", "training"), [("sft", "sft"), ("rewards", "reward"), ("dpo", "preference"), ("ppo", "policy_gradient")]
)
@pytest.mark.parametrize("size", [1.6e6, 1.6e8, 5e8, 1.5e9, 7e9])
@pytest.mark.parametrize("is_lora", [False, True])
def test_rates_lie_in_the_bands_that_the_package_itself_warns_about(
    stage: str, training: Training, size: float, is_lora: bool
) -> None:
    rate = learning_rate(stage, num_parameters=size, is_lora=is_lora)
    assert learning_rate_note(rate.value, training=training, num_parameters=int(size), is_lora=is_lora) == ""


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", 5e8),
        ("EleutherAI/pythia-160m", 1.6e8),
        ("models/llama_7b_chat", 7e9),
        ("gpt2", 1e9),
        ("org/b7-net", 1e9),
    ],
)
def test_size_is_read_from_the_name_or_assumed(model: str, size: float) -> None:
    assert num_parameters(model)[0] == size


def test_size_is_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"dtype": "float32"}')
    (tmp_path / "model.safetensors").write_bytes(bytes(4000))
    assert num_parameters(str(tmp_path))[0] == 1000


def _written(tmp_path: Path, **keys: Any) -> tuple[Recipe, str, list[str]]:
    out = tmp_path / "recipe.yaml"
    lines = write_project(Answers(**keys), out, force=False, ask=None)
    return load(out), out.read_text(), lines


def test_a_recipe_is_written_with_the_rule_and_the_next_command(tmp_path: Path) -> None:
    recipe, text, lines = _written(tmp_path, goal="Kinder support mails!", pairs=1500, agreement=0.72)
    assert recipe.name == "kinder-support-mails"
    assert isinstance(recipe.policies["dpo"], DpoConfig)
    assert recipe.rewards is None
    assert lines[0].startswith("DPO. Rule few-pairs: ")
    assert "# DPO. Rule few-pairs: " in text
    assert lines[-1] == f"Next: fairlead run {tmp_path / 'recipe.yaml'} --dry-run"
    assert any("hardware (laptop)" in line for line in lines)


def test_ppo_is_written_with_its_reward_model(tmp_path: Path) -> None:
    recipe, _, lines = _written(tmp_path, model="org/net-1.5b", hardware="node", pairs=8000, needs="online, reranking")
    assert isinstance(recipe.policies["ppo"], OnlineConfig)
    assert recipe.rewards is not None
    assert recipe.sft is not None
    assert recipe.policies["ppo"].minibatch_size == 4
    assert lines[0].startswith("PPO. Rule online: ")


def test_robust_dpo_is_written_for_low_agreement(tmp_path: Path) -> None:
    recipe, _, lines = _written(tmp_path, pairs=3000, agreement=0.62)
    policy = recipe.policies["dpo"]
    assert isinstance(policy, DpoConfig)
    assert (policy.algorithm, policy.flip_rate, policy.use_soft_labels) == ("robust", 0.255, False)
    assert any(line.startswith("Fix the guideline first") for line in lines)


@pytest.mark.parametrize("keys", [{}, {"hardware": "node", "model": "org/net-7b", "needs": "online", "pairs": 5000}, {"model": "bundled"},
                                  {"agreement": 0.6}, {"narrow": "tone"}, {"model": "org/net-7b", "needs": "reranking"}])  # fmt: skip
def test_every_key_has_a_comment_and_the_recipe_a_plan(tmp_path: Path, keys: dict[str, Any]) -> None:
    out = tmp_path / "project"
    write_project(Answers(**keys), out, force=False, ask=None)
    path = out / "recipe.yaml" if out.is_dir() else out
    assert build_plan(load(path))
    previous, continued = "", False
    for line in path.read_text().splitlines():
        text = line.strip()
        if text and not text.startswith("#") and not continued:
            assert "  # " in line or previous.startswith("#"), line
            continued = line.count("{") > line.count("}")
        elif continued:
            continued = not text.endswith("}")
        previous = text


def test_questions_are_asked_only_for_what_was_not_said(tmp_path: Path) -> None:
    asked: dict[str, str] = {}

    def ask(question: str, default: str) -> str:
        asked[question] = default
        return {"Hardware": "one-gpu", "Preference": "4000"}.get(question.split()[0], "")

    lines = write_project(Answers(goal="g", agreement=0.9), tmp_path / "r.yaml", force=False, ask=ask)
    assert [q.split()[0] for q in asked] == ["Hardware", "Model", "Preference", "Needs"]
    assert asked["Model (folder or hub id)?"] == "Qwen/Qwen2.5-1.5B-Instruct"
    assert "4,000 pairs" in lines[1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hardware": "gpu"}, "--hardware=gpu is not known"),
        ({"needs": "onlin"}, "did you mean online"),
        ({"narrow": "summarize"}, "did you mean summarise"),
        ({"agreement": 0.3}, "no better than a coin"),
    ],
)
def test_wrong_answers_are_one_line_and_write_nothing(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        write_project(Answers(**keys), tmp_path / "out", force=False, ask=None)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_is_not_understood_is_asked_for_again_with_the_reason(tmp_path: Path) -> None:
    """Two wrong answers to each question that can be answered wrong; what was typed counts as stated."""
    given = {"Hardware": ["gpu", "cloud", "node"], "Preference": ["many", "-3", "2500"], "Share": ["often", "0.5", "72%"],
             "Needs": ["onlin", "fast", "none"]}  # fmt: skip
    asked: list[str] = []

    def ask(question: str, default: str) -> str:
        asked.append(question)
        return next(
            (answers.pop(0) for word, answers in given.items() if question.splitlines()[-1].startswith(word)), ""
        )

    lines = write_project(Answers(), tmp_path / "r.yaml", force=False, ask=ask)
    assert not any(given.values())
    assert "hardware=gpu is not known" in asked[2] and asked[2].endswith("\nHardware (laptop, one-gpu, node, cluster)?")
    reasons = [question for question in asked if "\n" in question]
    assert (
        len(reasons) == 8
        and any("did you mean online" in q for q in reasons)
        and any("than a coin" in q for q in reasons)
    )
    assert "2,500 pairs" in lines[1] and not any("Not stated" in line for line in lines)


def test_nobody_is_asked_when_the_recipe_could_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("mine")

    def ask(question: str, default: str) -> str:
        raise AssertionError(question)

    with pytest.raises(ConfigError, match="exists already"):
        write_project(Answers(), tmp_path / "r.yaml", force=False, ask=ask)


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_project(Answers(), out, force=False, ask=None)
    assert out.read_text() == "mine"
    write_project(Answers(), out, force=True, ask=None)
    assert load(out)
    with pytest.raises(ConfigError, match="in the way"):
        write_project(Answers(), tmp_path, force=True, ask=None)
    with pytest.raises(ConfigError, match="in the way"):
        write_project(Answers(narrow="tone"), out, force=True, ask=None)


def test_one_file_in_the_way_leaves_a_whole_project_unwritten(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"votes\.csv exists already"):
        write_project(Answers(narrow="tone"), tmp_path, force=False, ask=None)
    assert [p.name for p in tmp_path.iterdir()] == ["votes.csv"]


@pytest.mark.parametrize("name", STARTERS)
def test_a_starter_holds_together(tmp_path: Path, name: str) -> None:
    """Its prompts survive the prompts stage (none is near another), its slices are as declared, its demonstrations are read."""
    write_project(Answers(narrow=name), tmp_path / name, force=False, ask=None)
    recipe = load(tmp_path / name / "recipe.yaml")
    assert recipe.prompts is not None
    services = Services(work=tmp_path / "work", extras={"folders": (tmp_path / name,)})
    out = tmp_path / "prompts"
    out.mkdir()
    summary = prompts_stage.run(recipe.prompts, inputs={}, out=out, services=services)
    assert summary.facts["num_train"] + summary.facts["num_heldout"] >= 20
    assert summary.facts["num_heldout"] == 6
    assert not (out / "rejects.jsonl").exists()
    counts = dict.fromkeys(recipe.prompts.mix, 0)
    for row in read_rows(tmp_path / name / "prompts.jsonl"):
        counts[row.values["slice"]] += 1
    assert {
        s: math.isclose(n / sum(counts.values()), recipe.prompts.mix[s], abs_tol=0.01) for s, n in counts.items()
    } == dict.fromkeys(counts, True)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        found = list(read_demonstrations(tmp_path / name / "demonstrations.jsonl", rejects=rejects))
    assert (len(found), rejects.total) == (12, 0)
    guideline = (tmp_path / name / "guideline.md").read_text()
    for part in ("## Two criteria", "## Borderline examples", "## Ties and bad pairs", "both are bad"):
        assert part in guideline


@pytest.mark.parametrize("name", STARTERS)
def test_behaviours_of_a_starter_tell_its_demonstrations_from_their_opposite(tmp_path: Path, name: str) -> None:
    """The demonstrations have what the aims want, and lack what they do not want."""
    import re

    for key in STARTERS[name].behaviours:
        if key.value["metric"] not in ("phrases", "regex"):
            continue
        pattern = key.value.get("pattern") or r"(?i)\b(" + "|".join(key.value["phrases"]) + r")\b"
        hits = [bool(re.search(pattern, row.values["completion"])) for row in _demonstrations(name, tmp_path)]
        share = sum(hits) / len(hits)
        assert share >= 0.6 if key.value["direction"] == "up" else share <= 0.1, (key.value["id"], share)


def _demonstrations(name: str, tmp_path: Path) -> list[Any]:
    path = tmp_path / "demonstrations.jsonl"
    path.write_text(STARTERS[name].files()["demonstrations.jsonl"])
    return list(read_rows(path))


def test_votes_filled_into_the_templates_become_preferences(tmp_path: Path) -> None:
    """The way of the README: items.csv and votes.csv with rows become preferences.jsonl."""
    write_project(Answers(narrow="tone"), tmp_path / "tone", force=False, ask=None)
    items, table = tmp_path / "tone" / "items.csv", tmp_path / "tone" / "votes.csv"
    with items.open("a") as file:
        file.writelines(f'p{i},"question {i}","kind {i}","curt {i}"\n' for i in range(6))
    with table.open("a") as file:
        file.writelines(
            f"p{i},{rater},{'b' if (i, rater) == (0, 'ben') else 'a'}\n"
            for i in range(6)
            for rater in ("anna", "ben", "cem")
        )
    votes.import_votes(table, tmp_path / "votes.jsonl")
    votes.aggregate_votes(tmp_path / "votes.jsonl", tmp_path / "preferences.jsonl", method="one_coin", items=items)
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        preferences = list(read_preferences(tmp_path / "preferences.jsonl", rejects=rejects))
    assert len(preferences) == 6
    assert all(p.chosen.startswith("kind") for p in preferences)


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=30),
)
_VALUES = st.one_of(
    _SCALARS, st.lists(_SCALARS, max_size=4), st.dictionaries(st.text(max_size=8), _SCALARS, max_size=3)
)


@given(value=_VALUES)
@settings(deadline=None, max_examples=25)
def test_any_value_reads_back_as_itself(value: Any) -> None:
    assert parse_yaml(flow(value), where="test") == value


@given(
    words=st.lists(st.text(alphabet="ab \\\"'#:,{}[]", max_size=60), min_size=1, max_size=8), why=st.text(max_size=200)
)
@settings(deadline=None, max_examples=25)
def test_long_lines_are_broken_where_nothing_changes(words: list[str], why: str) -> None:
    tree = {"a": Section(why, {"b": Key(words, why), "c": Key([Key({"d": words}, why)], why)})}
    assert parse_yaml(render(tree, head=[why], tail=[why]), where="test") == {"a": {"b": words, "c": [{"d": words}]}}


def test_numbers_are_written_as_people_write_them() -> None:
    assert [flow(x) for x in (2e-5, 1.41e-5, 0.1, 1e16, 32.0, 5)] == [
        "2.0e-5",
        "1.41e-5",
        "0.1",
        "1.0e+16",
        "32.0",
        "5",
    ]


def test_the_command_line_writes_and_plans_a_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from fairlead.cli.main import app

    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["init", "--narrow", "corpus-qa", "--model", "bundled"]).exit_code == 0
    planned = CliRunner().invoke(app, ["run", "corpus-qa/recipe.yaml", "--dry-run"])
    assert "policies.dpo" in planned.stdout and planned.exit_code == 2
    faults = planned.stderr.strip().splitlines()
    assert len(faults) == 1 and "preferences.path=preferences.jsonl is not found" in faults[0]
    (tmp_path / "corpus-qa" / "preferences.jsonl").write_text("{}")
    planned = CliRunner().invoke(app, ["run", "corpus-qa/recipe.yaml", "--dry-run"])
    assert planned.exit_code == 0 and "Next: fairlead run corpus-qa/recipe.yaml" in planned.stdout
    shutil.rmtree(tmp_path / "corpus-qa")
    parse_config(Recipe, {"name": "x"})
