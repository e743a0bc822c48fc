"""Whatever a user can get wrong ends with one line that names the place, and leaves nothing half-written."""

import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from micro import BUNDLED, Outcome, artifacts, fairlead, folder_of, leftovers, write_recipe
from safetensors.torch import load_file, save_file

ROWS = [{"prompt": f"Question {i}?", "completion": f"Answer {i * 7}."} for i in range(24)]
PAIRS = [{"prompt": f"Question {i}?", "chosen": f"Yes, {i}.", "rejected": f"No, {i * 3}."} for i in range(24)]


def _lines(rows: list[Any]) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def _refused(
    tmp_path: Path, *command: object, code: int, words: tuple[str, ...], env: Mapping[str, str] | None = None
) -> Outcome:
    """The command fails with this code in one line that holds these words, and the home holds no trace of a stage."""
    home = tmp_path / "home"
    outcome = fairlead(*command, home=home, env=env)
    assert outcome.code == code, (outcome.code, outcome.err, outcome.out)
    for word in words:
        assert word in outcome.error
    assert "expected" in outcome.error
    assert leftovers(home) == []
    assert not list(home.glob("artifacts/*/*"))
    assert not (home / "errors").exists()
    return outcome


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sft": {"traning": {}}}, ("sft.traning", "did you mean training?")),
        ({"polcies": {}}, ("polcies", "did you mean policies?")),
        ({"sft": {"training": {"learning_rate": "fast"}}}, ("sft.training.learning_rate=fast", "number")),
        ({"sft": {"training": {"batch_size": 0}}}, ("sft.training.batch_size=0", "greater than or equal to 1")),
        ({"completions": {"num_samples": 2.5}}, ("completions.num_samples=2.5", "integer")),
        ({"name": "../escape"}, ("name=../escape",)),
        ({"seed": -1}, ("seed=-1",)),
        ({"device": "cuda"}, ("device=cuda", "not available")),
        ({"text": {"max_length": 512}}, ("text.max_length=512", "expected <= 256")),
        ({"device": "tpu"}, ("device=tpu", "'cuda'")),
        ({"policies": {"ppo": {"algorithm": "pppo"}}}, ("policies.ppo.algorithm=pppo", "did you mean ppo?")),
        ({"policies": {"ppo": {"kl": {"kl_cof": 1}}}}, ("policies.ppo.kl.kl_cof=1", "did you mean kl_coef?")),
        ({"releases": {"policy": "grpo"}}, ("releases.policy=grpo", "ppo, dpo")),
        ({"completions": None}, ("feedback", "completions")),
        ({"gold": {"type": "oracle"}}, ("gold", "oracle", "lexicon")),
    ],
)  # fmt: skip
def test_faulty_recipe(tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    _refused(tmp_path, "run", write_recipe(tmp_path / "project", changes), code=2, words=words)
    assert not (tmp_path / "home").exists()


def test_null_model(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("model: bundled", "model:"), encoding="utf-8")
    _refused(tmp_path, "run", recipe, code=2, words=("model",))


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (bytes(range(256)), 2, ("not UTF-8",)),
        (b"\x00\x01\x02\x03", 2, ("is not YAML",)),
        (b"name: [unclosed\nsft: }", 2, ("recipe.yaml:2",)),
        (b"name: a\nname: b\n", 2, ("recipe.yaml:2", "given twice")),
        (b"- a\n- b\n", 2, ("is not a mapping",)),
        (b"", 2, ("name", "is missing")),
    ],
)
def test_file_that_is_no_recipe(tmp_path: Path, content: bytes, code: int, words: tuple[str, ...]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    _refused(tmp_path, "run", recipe, code=code, words=words)


def test_recipe_that_is_a_folder_or_missing(tmp_path: Path) -> None:
    write_recipe(tmp_path / "project")
    _refused(tmp_path, "run", tmp_path / "project", code=3, words=("project is a folder",))
    _refused(tmp_path, "run", tmp_path / "project" / "recip.yaml", code=3, words=("did you mean recipe.yaml?",))


@pytest.mark.parametrize("option", ["seed", "=1", "seed.deep=1", "sft.training.learning_rate=fast", "sed=1"])
def test_faulty_set(tmp_path: Path, option: str) -> None:
    _refused(
        tmp_path,
        "run",
        write_recipe(tmp_path / "project"),
        "--set",
        option,
        code=2,
        words=(option.split("=")[0].split(".")[0],),
    )


def test_recipe_without_a_stage(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: nothing\n", encoding="utf-8")
    outcome = fairlead("run", path, home=tmp_path / "home")
    assert outcome.code == 2 and "recipe=nothing has no stage" in outcome.error
    assert not (tmp_path / "home").exists()


def test_stage_that_the_recipe_lacks(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "project", keep=("sft",))
    _refused(tmp_path, "reward", "train", recipe, code=2, words=("stage=rewards", "not part of this recipe", "sft"))
    _refused(
        tmp_path,
        "train",
        write_recipe(tmp_path / "other"),
        "--policy",
        "dop",
        code=2,
        words=("policies.dop", "did you mean policies.dpo?"),
    )


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"sft": {"data": [{"path": "demnstrations.jsonl"}]}}, "sft.data.0.path=demnstrations.jsonl"),
        ({"prompts": {"sources": [{"path": "gone.jsonl"}]}}, "prompts.sources.0.path=gone.jsonl"),
        ({"evals": {"minimal_pairs": "gone.jsonl"}}, "evals.minimal_pairs=gone.jsonl"),
        ({"gold": {"type": "lexicon", "path": "gone.json"}}, "gold.path=gone.json"),
        ({"text": {"template": "gone.jinja"}}, "text.template=gone.jinja"),
    ],
)
def test_missing_file_is_noticed_before_anything_runs(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    _refused(tmp_path, "run", write_recipe(tmp_path / "project", changes), code=2, words=(key, "is not found"))
    assert not (tmp_path / "home").exists()


def _truncated_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(_lines(ROWS).encode())[:-20])


FAULTY_FILES: list[tuple[str, str, Callable[[Path], object], tuple[str, ...]]] = [
    ("truncated gzip", "demos.jsonl.gz", _truncated_gzip, ("demos.jsonl.gz", "truncated gzip")),
    ("no gzip at all", "demos.jsonl.gz", lambda p: p.write_text(_lines(ROWS)), ("demos.jsonl.gz", "not a valid gzip file")),
    ("line that is not JSON", "demos.jsonl", lambda p: p.write_text(_lines([*ROWS[:2], "{oops", *ROWS[3:]])), ("demos.jsonl:3", "is not JSON")),
    ("row that is a list", "demos.jsonl", lambda p: p.write_text(_lines([*ROWS[:1], [1, 2]])), ("demos.jsonl:2", "is not an object")),
    ("not UTF-8", "demos.jsonl", lambda p: p.write_bytes(_lines(ROWS[:3]).encode() + b'{"prompt": "\xff"}\n'), ("demos.jsonl:4", "is not UTF-8")),
    ("empty", "demos.jsonl", lambda p: p.write_text(""), ("demos.jsonl", "is empty")),
    ("fields of no format", "demos.jsonl", lambda p: p.write_text(_lines([{"q": "a", "r": "b"}] * 3)), ("demos.jsonl", "q, r")),
    ("unknown file type", "demos.docx", lambda p: p.write_text("x"), ("demos.docx", "unknown file type")),
    ("folder", "demos.jsonl", lambda p: p.mkdir(), ("demos.jsonl", "is a folder")),
    ("damaged Parquet", "demos.parquet", lambda p: p.write_bytes(b"PAR1" + bytes(100)), ("demos.parquet", "not a readable Parquet file")),
    ("preferences of no demonstrations", "demos.csv", lambda p: p.write_text("item,rater,label\ni1,r1,a\n"), ("demos.csv", "votes")),
    ("one row", "demos.jsonl", lambda p: p.write_text(_lines(ROWS[:1])), ("sft.data", "two different demonstrations")),
    ("one row many times", "demos.jsonl", lambda p: p.write_text(_lines(ROWS[:1] * 9)), ("sft.data", "two different demonstrations")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make", "words"), [row[1:] for row in FAULTY_FILES], ids=[row[0] for row in FAULTY_FILES]
)
def test_faulty_demonstrations(
    tmp_path: Path, name: str, make: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    recipe = write_recipe(tmp_path / "project", {"sft": {"data": [{"path": name}]}}, keep=("sft",))
    make(tmp_path / "project" / name)
    _refused(tmp_path, "run", recipe, code=3, words=words)


def test_demonstrations_with_nothing_left_to_learn_are_dropped_counted_and_said_once(tmp_path: Path) -> None:
    """Three questions that fill the context by themselves, and two replies that do not fit behind theirs."""
    long = "so what did you say " * 60
    rows = [*ROWS, *({"prompt": long + str(i), "completion": "Yes."} for i in range(3)),
            *({"prompt": f"Why {i}?", "completion": long + str(i)} for i in range(2))]  # fmt: skip
    recipe = write_recipe(tmp_path / "project", {"sft": {"data": [{"path": "demos.jsonl"}]}}, keep=("sft",))
    (tmp_path / "project" / "demos.jsonl").write_text(_lines(rows), encoding="utf-8")
    outcome = fairlead("run", recipe, home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    notes = [line for line in outcome.out.splitlines() if "cut at the maximum length" in line]
    counts = [[int(word) for word in line.split() if word.isdigit()] for line in notes]
    assert [sum(column) for column in zip(*counts, strict=True)] == [5, 3], notes


def _preferences(tmp_path: Path, rows: list[Any]) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pairs.jsonl").write_text(_lines(rows), encoding="utf-8")
    return write_recipe(
        tmp_path / "project", {"feedback": None, "preferences": {"path": "pairs.jsonl"}}, keep=("preferences",)
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (PAIRS[:1] * 9, ("pairs.jsonl", "holds one pair 9 times")),
        ([{**row, "rejected": row["chosen"]} for row in PAIRS], ("pairs.jsonl", "only identical pairs")),
        ([{"prompt": "a", "chosen": "b"}] * 4, ("pairs.jsonl", "chosen")),
        ([{**row, "chosen": ""} for row in PAIRS], ("pairs.jsonl", "empty chosen")),
    ],
    ids=["one pair repeated", "chosen equals rejected", "no rejected", "empty chosen"],
)
def test_useless_preferences(tmp_path: Path, rows: list[Any], words: tuple[str, ...]) -> None:
    _refused(tmp_path, "prefer", _preferences(tmp_path, rows), code=3, words=words)


def test_some_equal_pairs_are_rejected_and_counted(tmp_path: Path) -> None:
    rows = [*PAIRS[:20], {**PAIRS[20], "rejected": PAIRS[20]["chosen"]}]
    outcome = fairlead("prefer", _preferences(tmp_path, rows), home=tmp_path / "home")
    assert outcome.code == 0, outcome.err
    folder = folder_of(tmp_path / "home", artifacts(tmp_path / "home")["preferences"])
    rejected = [json.loads(line) for line in (folder / "rejects.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["where"].endswith("pairs.jsonl:21") for row in rejected] == [True]
    assert len((folder / "preferences.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    assert "1 rejected" in outcome.out


def test_prompt_longer_than_the_context_is_named(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    rows = [{"prompt": f"Question {i}?"} for i in range(6)]
    rows[3]["prompt"] = "so " * 400
    (tmp_path / "project" / "mine.jsonl").write_text(_lines(rows), encoding="utf-8")
    prompts = {"sources": [{"path": "mine.jsonl"}], "heldout_sources": [], "heldout": 2}
    recipe = write_recipe(tmp_path / "project", {"prompts": prompts, "gold": None}, keep=("completions",))
    outcome = fairlead("complete", recipe, home=tmp_path / "home")
    assert outcome.code == 3
    assert "prompt p-" in outcome.error
    assert "mine" in outcome.error
    assert (
        "does not fit the context (1 of 6 prompts are too long; this is the longest); expected <= 80" in outcome.error
    )
    assert "prompts.max_words" in outcome.error
    assert leftovers(tmp_path / "home") == []
    assert not list((tmp_path / "home").glob("artifacts/completions/*"))


# Models


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the bundled model that a test may break."""
    return shutil.copytree(BUNDLED / "model", tmp_path / "project" / "model")


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def _no_template(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    _edit(model / "tokenizer_config.json", lambda d: d.pop("chat_template", None))


def _no_eos(model: Path) -> None:
    _edit(model / "tokenizer_config.json", lambda d: d.pop("eos_token"))
    for name in ("special_tokens_map.json",):
        (model / name).unlink(missing_ok=True)


def _lost_shard(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(shards), encoding="utf-8")


def _pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _truncated(model: Path) -> None:
    content = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(content[: len(content) // 2])


def _garbage(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 4096)


def _lost_weight(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(n for n in tensors if "layers.0" in n)
    save_file({k: v for k, v in tensors.items() if k != name}, model / "model.safetensors", metadata={"format": "pt"})


def _other_shape(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(n for n in tensors if "layers.0" in n and tensors[n].ndim == 2)
    save_file({**tensors, name: tensors[name][:-1].clone()}, model / "model.safetensors", metadata={"format": "pt"})


def _garbage_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}", encoding="utf-8")


def _garbage_config(model: Path) -> None:
    (model / "config.json").write_text("{not json", encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_no_template, ("no chat template", "text.template")),
        (_no_eos, ("eos_token", "is not set")),
        (_lost_shard, ("lacks 1 of 2 weight shards (first: model-00002-of-00002.safetensors)",)),
        (_pickled, ("pytorch_model.bin, a pickle, which is never loaded",)),
        (_truncated, ("model.safetensors is damaged",)),
        (_garbage, ("model.safetensors is damaged",)),
        (_lost_weight, ("lacks 1 weights",)),
        (_other_shape, ("model",)),
        (_garbage_tokenizer, ("tokenizer.json is damaged",)),
        (_garbage_config, ("config.json is damaged",)),
        (lambda model: (model / "config.json").unlink(), ("no config.json",)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_model(tmp_path: Path, model: Path, damage: Callable[[Path], object], words: tuple[str, ...]) -> None:
    damage(model)
    recipe = write_recipe(tmp_path / "project", {"model": str(model)}, keep=("sft",))
    _refused(tmp_path, "run", recipe, code=4, words=(*words, "model"))


def test_model_without_template_works_when_the_recipe_names_one(tmp_path: Path, model: Path) -> None:
    _no_template(model)
    recipe = write_recipe(tmp_path / "project", {"model": str(model), "text": {"template": "chatml"}}, keep=("sft",))
    assert fairlead("run", recipe, home=tmp_path / "home").code == 0


@pytest.mark.parametrize(
    "name",
    ["/no-such-model", "./no-such-model", "~/no-such-model", "no-such-model", "no/such/model", "no-such/model"],
)
def test_model_that_is_not_there(tmp_path: Path, name: str) -> None:
    recipe = write_recipe(tmp_path / "project", {"model": name}, keep=("sft",))
    _refused(tmp_path, "run", recipe, code=4, words=("model", "such"))


def test_weights_that_are_not_numbers_are_named_before_the_first_step(tmp_path: Path, model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    name = next(n for n in tensors if "layers.0" in n and tensors[n].ndim == 2)
    tensors[name][0, 0] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    recipe = write_recipe(tmp_path / "project", {"model": str(model)}, keep=("sft",))
    _refused(tmp_path, "run", recipe, code=4, words=("holds NaN or infinity in", name))


def test_loss_that_explodes_names_the_step_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "project",
        {
            "sft": {"training": {"learning_rate": 1e30, "max_grad_norm": 1e30, "warmup_share": 0.0}},
            "allow": {"sft.learning_rate": "a test"},
        },
        keep=("sft",),
    )
    outcome = _refused(
        tmp_path, "run", recipe, code=5, words=("sft: step", "is not finite"), env={"FAIRLEAD_CHECKPOINT_S": "0"}
    )
    assert "learning_rate" in outcome.error
    again = _refused(tmp_path, "run", recipe, code=5, words=("sft: step", "is not finite"))
    assert again.error == outcome.error
