"""Preflight through real stages: every one passes on a sound model, and a fault planted in real files is named before anything is trained."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from micro import BUNDLED, MicroRun, Outcome, artifacts, fairlead, folder_of, leftovers, write_recipe
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

COMMON = {
    "masks are not empty", "exactly one BOS", "prompts are not learned", "forward is repeatable", "packed equals unpacked",
    "shared prefix equals plain", "what trains gets gradients", "trained weights are fp32", "tied weights are one", "tokens have embeddings",
    "rows fit the model", "most rows fit", "few rows are cut", "the learning rate is usual",
}  # fmt: skip
OFFLINE = {*COMMON, "the template appends", "terminators are trained"}
EXPECTED = {
    "sft": OFFLINE,
    "rewards": {*OFFLINE, "reward is free of padding and batch mates", "the head gets a gradient"},
    "policies.dpo": {*OFFLINE, "policy equals reference"},
    "policies.kto": {*OFFLINE, "policy equals reference"},
    "policies.ppo": {
        *COMMON, "reward is free of padding and batch mates", "engine and trainer logprobs agree", "importance ratio is 1", "policy equals reference",
    },
}  # fmt: skip
FORGETFUL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>"
    "{% else %}<|user|>{{ m.content if add_generation_prompt else m.content[:9] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DEAF = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}<|end|>{% endif %}{% endfor %}"
)


def checks_of(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Check -> its row."""
    return {row["check"]: row for row in json.loads(outcome.out)["checks"]}


def preflight(recipe: Path, home: Path, *options: object) -> tuple[Outcome, dict[str, dict[str, Any]]]:
    """The command with its checks."""
    outcome = fairlead("preflight", recipe, "--json", *options, home=home)
    return outcome, checks_of(outcome)


def failed(checks: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, row in checks.items() if row["result"] == "failed"}


@pytest.mark.parametrize("stage", EXPECTED)
def test_every_stage_makes_its_checks_and_passes_them(micro: MicroRun, tmp_path: Path, stage: str) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    kto = {"algorithm": "kto", "training": {"learning_rate": 2e-4, "batch_size": 8}}
    recipe = write_recipe(tmp_path / "project", {"policies": {"kto": kto}})
    before = sorted(home.glob("artifacts/*/*"))
    outcome, checks = preflight(recipe, home, "--stage", stage)
    assert outcome.code == 0, outcome.err
    assert set(checks) == EXPECTED[stage]
    assert {row["result"] for row in checks.values()} == {"passed"}
    assert sorted(home.glob("artifacts/*/*")) == before and leftovers(home) == [] and not list(home.glob("work/*"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the bundled model that a test may break."""
    return shutil.copytree(BUNDLED / "model", tmp_path / "project" / "model")


def _template(text: str) -> Callable[[Path], dict[str, Any]]:
    def plant(model: Path) -> dict[str, Any]:
        (model / "chat_template.jinja").write_text(text, encoding="utf-8")
        return {}

    return plant


def _small_embedding(model: Path) -> dict[str, Any]:
    """The tokenizer has tokens that the model lacks, as when they were added to one alone."""
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:1500].clone()
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 1500}), encoding="utf-8")
    return {}


def _set(**changes: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda _model: changes


FAULTS: list[tuple[str, Callable[[Path], dict[str, Any]], str]] = [
    ("template that drops what is asked", _template(DEAF), "prompts are not learned"),
    ("template that writes prompts otherwise in the history", _template(FORGETFUL), "the template appends"),
    ("tokenizer that outgrew its model", _small_embedding, "tokens have embeddings"),
    ("length that most rows exceed", _set(text={"max_length": 24}), "most rows fit"),
    ("rate of a slipped exponent", _set(sft={"training": {"learning_rate": 5.0}}), "the learning rate is usual"),
]


@pytest.mark.parametrize(("plant", "name"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_a_planted_fault_is_named_and_nothing_is_trained(
    model: Path, tmp_path: Path, plant: Callable[[Path], dict[str, Any]], name: str
) -> None:
    recipe = write_recipe(tmp_path / "project", {"model": str(model), **plant(model)}, keep=("sft",))
    outcome, checks = preflight(recipe, tmp_path / "home")
    assert failed(checks) == {name}
    assert outcome.code == 5 and "preflight" in outcome.error
    ran = fairlead("run", recipe, home=tmp_path / "run")
    assert ran.code == 5 and ran.error == outcome.error
    assert not list((tmp_path / "run").glob("artifacts/*/*")) and leftovers(tmp_path / "run") == []


@pytest.mark.parametrize("template", [None, "chatml"])
def test_all_tokens_may_be_learned_where_the_recipe_says_so(model: Path, tmp_path: Path, template: str | None) -> None:
    changes = {"model": str(model), "sft": {"learn": "all"}, "text": {"template": template}}
    outcome, checks = preflight(write_recipe(tmp_path / "project", changes, keep=("sft",)), tmp_path / "home")
    assert outcome.code == 0, outcome.err
    assert "prompts are not learned" not in checks


def test_texts_that_ask_nothing_are_learned_whole(model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"Once upon a time there were {i} friends."} for i in range(24)]
    (tmp_path / "project" / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    changes = {"model": str(model), "text": {"template": "plain"}, "sft": {"data": [{"path": "texts.jsonl"}]}}
    outcome, checks = preflight(write_recipe(tmp_path / "project", changes, keep=("sft",)), tmp_path / "home")
    assert outcome.code == 0, outcome.err
    assert checks["prompts are not learned"]["result"] == "passed"


def test_a_rate_far_out_of_its_band_can_be_allowed_on_record_and_one_that_is_near_warns(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", {"sft": {"training": {"learning_rate": 2e-2}}}, keep=("sft",))
    outcome, checks = preflight(recipe, tmp_path / "home")
    assert outcome.code == 0 and checks["the learning rate is usual"]["result"] == "warned"
    assert checks["the learning rate is usual"]["found"] == pytest.approx(4)
    far = ("--set", "sft.training.learning_rate=0.6")
    outcome, _ = preflight(recipe, tmp_path / "home", *far)
    assert outcome.code == 5 and "--allow sft.learning_rate=REASON" in outcome.error
    outcome, _ = preflight(recipe, tmp_path / "home", *far, "--allow", "sft.learning_rate=a test")
    assert outcome.code == 0, outcome.err
    ran = fairlead("run", recipe, home=tmp_path / "home")
    assert ran.code == 0, ran.err
    assert ran.out.count("WARN sft.learning_rate 4") == 1 and "learning_rate=0.02 is above the usual band" in ran.out
    summary = json.loads(
        (folder_of(tmp_path / "home", artifacts(tmp_path / "home")["sft"]) / "summary.json").read_text(encoding="utf-8")
    )
    assert "sft.learning_rate" in {v["gate"] for v in summary["verdicts"]}


def test_rows_that_are_cut_or_above_the_token_budget_are_told_and_training_goes_on(tmp_path: Path) -> None:
    changes = {"text": {"max_length": 48}, "sft": {"training": {"max_tokens_per_microbatch": 20}}}
    recipe = write_recipe(tmp_path / "project", changes, keep=("sft",))
    outcome, checks = preflight(recipe, tmp_path / "home")
    assert outcome.code == 0, outcome.err
    assert {name for name, row in checks.items() if row["result"] == "warned"} == {"few rows are cut", "rows fit the token budget"}  # fmt: skip
    assert "the longest has 48" in checks["rows fit the token budget"]["limit"]
    ran = fairlead("run", recipe, home=tmp_path / "home")
    assert ran.code == 0, ran.err
    for name in ("few rows are cut", "rows fit the token budget"):
        assert ran.out.count(f"sft: preflight: {name}") == 1


def test_a_reference_that_is_not_the_start_is_refused(micro: MicroRun, tmp_path: Path) -> None:
    """Its logprobs on disk are other numbers than the model's own."""
    home = shutil.copytree(micro.home, tmp_path / "home")
    shards = list((home / "cache" / "logprobs").glob("*.safetensors"))
    assert shards
    for shard in shards:
        save_numpy({"logprobs": load_numpy(shard)["logprobs"] + np.float32(0.01)}, shard)
    outcome, checks = preflight(micro.recipe, home, "--stage", "policies.dpo")
    assert failed(checks) == {"policy equals reference"}
    assert checks["policy equals reference"]["found"] == pytest.approx(0.01, rel=0.05)
    assert outcome.code == 5 and "dpo: preflight: policy equals reference" in outcome.error


def test_a_half_precision_checkpoint_is_trained_in_fp32(model: Path, tmp_path: Path) -> None:
    tensors = {name: t.to(torch.float16) for name, t in load_file(model / "model.safetensors").items()}
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    outcome, checks = preflight(
        write_recipe(tmp_path / "project", {"model": str(model)}, keep=("sft",)), tmp_path / "home"
    )
    assert outcome.code == 0, outcome.err
    assert checks["trained weights are fp32"]["result"] == "passed"


def test_a_head_saved_apart_from_the_embeddings_that_the_config_ties_is_noticed(model: Path, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 0.5
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    recipe = write_recipe(tmp_path / "project", {"model": str(model)}, keep=("sft",))
    outcome = fairlead("preflight", recipe, home=tmp_path / "home")
    assert outcome.code in (4, 5)
    assert "lm_head" in outcome.error or "tied weights are one" in outcome.error


def test_the_screen_names_every_check_and_what_is_next(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", keep=("sft",))
    outcome = fairlead("preflight", recipe, home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    for name in EXPECTED["sft"]:
        assert name in outcome.out
    assert outcome.out.splitlines()[-1] == f"sft would train. Next: fairlead run {recipe}"


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("rewards", ("stage=rewards waits for completions, preferences, prompts, sft",)),
        ("policies.dop", ("is no stage that trains", "did you mean policies.dpo?")),
        ("prompts", ("is no stage that trains", "sft, rewards, policies.ppo, policies.dpo")),
    ],
)
def test_a_stage_that_cannot_be_checked_is_one_line(tmp_path: Path, stage: str, words: tuple[str, ...]) -> None:
    outcome = fairlead("preflight", write_recipe(tmp_path / "project"), "--stage", stage, home=tmp_path / "home")
    assert outcome.code == 2
    for word in words:
        assert word in outcome.error
