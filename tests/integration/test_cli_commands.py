"""Commands over what a run left: overview, lineage, registry, report, doctor, votes, and JSON for all of them."""

import json
import shutil
from pathlib import Path

import pytest
from micro import MicroRun, artifacts, fairlead, write_recipe

from fairlead.models.arithmetic import has_low_precision
from fairlead.models.memory import keep_freed_memory
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.work import work_alone


@pytest.fixture
def home(micro: MicroRun, tmp_path: Path) -> Path:
    """A copy of the micro run's home that a test may change."""
    return shutil.copytree(micro.home, tmp_path / "home")


def test_overview_of_an_empty_home_says_what_to_type(tmp_path: Path) -> None:
    outcome = fairlead(home=tmp_path)
    assert outcome.code == 0
    assert "fairlead quickstart" in outcome.out


def test_overview_shows_each_stage_of_the_newest_run(micro: MicroRun) -> None:
    outcome = fairlead(home=micro.home)
    assert outcome.code == 0
    for artifact_id in (artifacts(micro.home)[s] for s in ("prompts", "sft", "rewards", "policies.dpo", "releases")):
        assert artifact_id in outcome.out
    assert not [line for line in outcome.out.splitlines() if "STOP" in line and "(allowed)" not in line]


def test_version_and_help(tmp_path: Path) -> None:
    assert fairlead("--version", home=tmp_path).out.startswith("fairlead ")
    for command in ("run", "quickstart", "train", "lineage", "registry", "votes"):
        outcome = fairlead(command, "--help", home=tmp_path)
        assert outcome.code == 0
        assert command in outcome.out


def test_lineage_reaches_prompts_and_feedback(micro: MicroRun) -> None:
    outcome = fairlead("lineage", "micro", home=micro.home)
    assert outcome.code == 0
    made = artifacts(micro.home)
    lines = outcome.out.splitlines()
    assert lines[0].split()[:2] == ["releases", made["releases"]]
    for stage in ("prompts", "feedback", "gold", "sft", "preferences"):
        assert made[stage] in outcome.out, stage
    roles = {line.strip().removesuffix(" (above)") for line in lines}
    assert f"reward model: rewards  {made['rewards']}" in roles
    assert f"start and reference: sft  {made['sft']}" in roles and f"reference: sft  {made['sft']}" in roles
    assert f"policy dpo: policies.dpo  {made['policies.dpo']}" in roles
    assert f"votes: feedback  {made['feedback']}" in roles
    chain = json.loads(fairlead("lineage", "micro", "--json", home=micro.home).out)
    assert {row["id"] for row in chain} == set(made.values())


def test_run_as_json_is_the_record_and_nothing_else(micro: MicroRun) -> None:
    outcome = fairlead("run", micro.recipe, "--json", home=micro.home)
    assert outcome.code == 0
    assert {k: row["artifact"] for k, row in json.loads(outcome.out)["stages"].items()} == artifacts(micro.home)


def test_fresh_run_as_json_prints_nothing_but_json(micro: MicroRun, tmp_path: Path) -> None:
    outcome = fairlead("train", micro.recipe, "--policy", "dpo", "--json", home=tmp_path)
    assert outcome.code == 0
    assert json.loads(outcome.out)["stages"]["policies.dpo"]["artifact"]


def test_plan_names_everything_that_is_missing_at_once(tmp_path: Path) -> None:
    changes = {
        "model": str(tmp_path / "no-model"), "sft": {"data": [{"path": "gone.jsonl"}]}, "evals": {"heldout_text": "lost.jsonl"},
        "text": {"template": "away.jinja"},
    }  # fmt: skip
    recipe = write_recipe(tmp_path / "project", changes)
    outcome = fairlead("plan", recipe, home=tmp_path / "home")
    assert outcome.code != 0 and "policies.ppo" in outcome.out and "Next:" not in outcome.out
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 4
    for line, words in zip(
        lines, ("no-model", "away.jinja", "sft.data.0.path=gone.jsonl", "evals.heldout_text=lost.jsonl"), strict=True
    ):
        assert words in line
    data = json.loads(fairlead("plan", recipe, "--json", home=tmp_path / "home").out)
    assert len(data["missing"]) == 4 and data["stages"][0]["stage"] == "prompts"
    assert not (tmp_path / "home").exists()


def test_plan_of_a_finished_run_names_its_artifacts_and_the_command(micro: MicroRun) -> None:
    outcome = fairlead("plan", micro.recipe, home=micro.home)
    assert outcome.code == 0 and f"Next: fairlead run {micro.recipe}" in outcome.out
    assert all(f"done ({artifact})" in outcome.out for artifact in artifacts(micro.home).values())


def test_the_command_that_makes_it_again_holds_every_option_that_was_typed(micro: MicroRun) -> None:
    typed = ("--policy", "sft", "--set", "seed=3", "--allow", "sft.learning_rate=a first look")
    planned = fairlead("train", micro.recipe, *typed, "--dry-run", home=micro.home)
    expected = (
        f"Next: fairlead train {micro.recipe} --policy sft --set seed=3 --allow 'sft.learning_rate=a first look'."
    )
    assert planned.code == 0 and expected in planned.out
    model = artifacts(micro.home)["rewards"]
    updated = fairlead(
        "reward", "update", micro.recipe, "--from", model, "--replay", "0.5", "--dry-run", home=micro.home
    )
    assert f"Next: fairlead reward update {micro.recipe} --from {model} --replay 0.5. " in updated.out
    (row,) = (line for line in updated.out.splitlines() if line.strip().startswith("rewards "))
    assert "preferences" in row and model in row
    planned = fairlead(
        "reward", "update", micro.recipe, "--from", model, "--replay", "0.5", "--dry-run", "--json", home=micro.home
    )
    (found,) = (stage for stage in json.loads(planned.out)["stages"] if stage["stage"] == "rewards")
    assert found["inputs"]["start"] == model


def test_an_artifact_is_shown_with_its_figures(micro: MicroRun) -> None:
    shown = fairlead("registry", "show", artifacts(micro.home)["rewards"], home=micro.home).out
    assert "held-out accuracy" in shown and " %" in shown and '"center_coef"' in shown


@pytest.mark.parametrize(
    "content",
    ["[1]", '{"name": "micro"}', '{"name": "m", "scope": "toy", "seed": 0, "command": "", "stages": {"sft": {}}}'],
)
@pytest.mark.parametrize("command", [(), ("report",), ("lineage", "micro")])
def test_a_record_that_is_none_is_named(home: Path, command: tuple[str, ...], content: str) -> None:
    (home / "micro" / "run.json").write_text(content, encoding="utf-8")
    outcome = fairlead(*command, home=home)
    assert outcome.code == 3 and "micro/run.json is not the record of a run" in outcome.error


def test_a_kept_recipe_of_another_version_is_named_with_its_file(home: Path) -> None:
    kept = home / "micro" / "recipe.json"
    kept.write_text(kept.read_text(encoding="utf-8").replace('"seed": 0', '"sead": 0', 1), encoding="utf-8")
    assert "recipe.json.sead=0 is not a known key (did you mean seed?)" in fairlead("report", home=home).error


def test_a_mistyped_run_is_named_with_the_nearest(micro: MicroRun) -> None:
    outcome = fairlead("lineage", "mirco", home=micro.home)
    assert outcome.code == 8
    assert "no run has this name (did you mean micro?)" in outcome.error


def test_report_is_drawn_again_from_artifacts(home: Path, tmp_path: Path) -> None:
    (home / "micro" / "report.html").unlink()
    outcome = fairlead("report", "--out", tmp_path / "page.html", home=home)
    assert outcome.code == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Reward model" in page
    assert artifacts(home)["releases"] in page


def test_report_of_a_run_on_another_device_is_drawn_here(home: Path, tmp_path: Path) -> None:
    recipe = home / "micro" / "recipe.json"
    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace('"device": "cpu"', '"device": "mps"'), encoding="utf-8"
    )
    assert fairlead("report", "micro", "--out", tmp_path / "page.html", home=home).code == 0


def test_report_of_an_unknown_run_names_the_known_ones(micro: MicroRun, tmp_path: Path) -> None:
    outcome = fairlead("report", "mirco", home=micro.home)
    assert outcome.code == 8
    assert "micro" in outcome.error
    assert fairlead("report", home=tmp_path / "none").code == 8


def test_registry_lists_shows_promotes_and_rolls_back(home: Path) -> None:
    made = artifacts(home)
    rows = json.loads(fairlead("registry", "ls", "--json", home=home).out)
    assert {row["artifact_id"] for row in rows} == {made[s] for s in ("sft", "rewards", "policies.ppo", "policies.dpo")}
    shown = fairlead("registry", "show", made["rewards"], home=home)
    assert shown.code == 0
    assert made["preferences"] in shown.out
    first = next(row["artifact_id"] for row in rows if row["is_current"])
    second = next(made[s] for s in ("policies.ppo", "policies.dpo") if made[s] != first)
    early = fairlead("registry", "promote", second, "--to", "released", "--reason", "too early", home=home)
    assert early.code == 8
    assert "approved" in early.error
    for state in ("approved", "released"):
        outcome = fairlead("registry", "promote", second, "--to", state, "--reason", "test", home=home)
        assert outcome.code == 0, outcome.err
    assert f"{second}  " in fairlead("registry", "ls", home=home).out
    back = fairlead("registry", "rollback", "--reason", "worse in use", home=home)
    assert back.code == 0
    assert first in back.out
    assert fairlead("registry", "rollback", home=home).code == 8


def test_cached_release_does_not_undo_a_rollback(micro: MicroRun, home: Path) -> None:
    rows = json.loads(fairlead("registry", "ls", "--json", home=home).out)
    first = next(row["artifact_id"] for row in rows if row["is_current"])
    second = next(r["artifact_id"] for r in rows if r["registry"] == "policies" and r["artifact_id"] != first)
    for state in ("approved", "released"):
        assert fairlead("registry", "promote", second, "--to", state, "--reason", "test", home=home).code == 0
    assert fairlead("run", micro.recipe, home=home).code == 0
    rows = json.loads(fairlead("registry", "ls", "--json", home=home).out)
    assert [row["artifact_id"] for row in rows if row["is_current"]] == [second]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("promote", "policy-ffff"), 8, "is not in"),
        (("promote", "prompts", "--to", "sold"), 2, "approved or released"),
        (("rollback", "--kind", "models"), 2, "reward_models or policies"),
        (("show", "nothing-like-it"), 8, "is not in"),
    ],
)
def test_registry_refuses_what_is_not_there(micro: MicroRun, arguments: tuple[str, ...], code: int, words: str) -> None:
    outcome = fairlead("registry", *arguments, home=micro.home)
    assert outcome.code == code
    assert words in outcome.error


def test_promoting_what_is_no_model_is_refused(home: Path) -> None:
    outcome = fairlead("registry", "promote", artifacts(home)["prompts"], "--reason", "by mistake", home=home)
    assert outcome.code == 8
    assert "prompts" in outcome.error


def test_gc_keeps_what_the_release_needs(micro: MicroRun, home: Path) -> None:
    released = artifacts(home)
    assert fairlead("train", micro.recipe, "--policy", "dpo", "--set", "policies.dpo.beta=0.7", home=home).code == 0
    extra = artifacts(home)["policies.dpo"]
    assert extra != released["policies.dpo"]
    before = set(ArtifactStore(home).ids())
    dry = json.loads(fairlead("registry", "gc", "--keep-last", "0", "--json", home=home).out)
    assert set(ArtifactStore(home).ids()) == before
    assert extra in dry["delete"]
    assert not set(released.values()) & set(dry["delete"])
    assert fairlead("registry", "gc", "--keep-last", "0", "--apply", home=home).code == 0
    left = set(ArtifactStore(home).ids())
    assert set(released.values()) <= left
    assert left == before - set(dry["delete"])
    assert fairlead("lineage", released["releases"], home=home).code == 0


def test_gc_lists_work_of_other_versions_and_takes_it_when_asked(tmp_path: Path) -> None:
    work = tmp_path / "work" / "0123"
    with work_alone(work, stage="policies.dpo", code="0.0.1+abc"):
        (work / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    told = fairlead("registry", "gc", home=tmp_path).out
    assert "1 work folders of other versions of Fairlead" in told and "are kept; --work takes them too" in told
    assert "0123: policies.dpo, 0.0.1+abc" in told
    assert json.loads(fairlead("registry", "gc", "--json", home=tmp_path).out)["work"][0]["stage"] == "policies.dpo"
    assert "would be deleted" in fairlead("registry", "gc", "--work", home=tmp_path).out and work.exists()
    assert fairlead("registry", "gc", "--apply", home=tmp_path).code == 0 and work.exists()
    assert fairlead("registry", "gc", "--work", "--apply", home=tmp_path).code == 0 and not work.exists()


def test_doctor_names_versions_and_home(tmp_path: Path) -> None:
    facts = json.loads(fairlead("doctor", "--json", home=tmp_path / "new").out)
    assert facts["torch"][0].isdigit()
    assert str(tmp_path) in facts["home"]
    assert "device" in fairlead("doctor", home=tmp_path).out


def test_doctor_says_what_training_takes_here(tmp_path: Path) -> None:
    facts = json.loads(fairlead("doctor", "--json", home=tmp_path / "new", env={"OMP_NUM_THREADS": "1"}).out)
    assert facts["precision"].partition(" ")[0].rstrip(":") in ("fp32", "bf16")
    if facts["device"] == "cpu":
        assert ("bf16 instructions" in facts["precision"]) and has_low_precision() == ("has bf16" in facts["precision"])
    assert facts["threads"].endswith("by OMP_NUM_THREADS=1")
    assert ("mallopt" in facts["allocator"]) == keep_freed_memory()
    assert facts["torchao"][0].isdigit() or "pip install 'fairlead[eight-bit]'" in facts["torchao"]
    assert not (tmp_path / "new").exists(), "looking leaves nothing behind"


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    """Five raters on twelve items; r5 clicks at random."""
    lines = ["item,rater,label"]
    for item in range(12):
        truth = "a" if item % 3 else "b"
        for rater in range(1, 5):
            is_wrong = (item * rater) % 11 == 3
            lines.append(f"i{item},r{rater},{truth if not is_wrong else 'ab'.replace(truth, '')}")
        lines.append(f"i{item},r5,{'a' if item % 2 else 'b'}")
    path = tmp_path / "votes.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_votes_are_imported_measured_and_aggregated(votes: Path, tmp_path: Path) -> None:
    imported = fairlead("votes", "import", votes, "--out", tmp_path / "votes.jsonl", home=tmp_path)
    assert imported.code == 0, imported.err
    assert "60 votes by 5 raters on 12 items" in imported.out
    for file in (votes, tmp_path / "votes.jsonl"):
        summary = json.loads(fairlead("votes", "agreement", file, "--json", home=tmp_path).out)
        assert any("alpha" in str(f) for f in summary["figures"])
    assert fairlead("votes", "agreement", votes, home=tmp_path).code == 0
    out = tmp_path / "labels.jsonl"
    assert fairlead("votes", "aggregate", votes, "--out", out, home=tmp_path).code == 0
    labels = {row["item"]: row["label"] for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    assert labels == {f"i{item}": "a" if item % 3 else "b" for item in range(12)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("item,rater\ni1,r1\n", "label"),
        ("item,rater,label\n", "empty"),
        ("item,rater,label\ni1,r1,a,b\n", "votes.csv:2"),
    ],
)
def test_bad_votes_are_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(content, encoding="utf-8")
    for command in ("import", "agreement", "aggregate"):
        outcome = fairlead("votes", command, path, home=tmp_path)
        assert outcome.code == 3
        assert words in outcome.error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["votes.csv"]


def test_a_round_anchors_and_batches_are_read_from_tables(votes: Path, tmp_path: Path) -> None:
    gate = json.loads(fairlead("votes", "gate", votes, "--json", home=tmp_path).out)
    assert set(gate["facts"]["decisions"].values()) <= {"pass", "fail", "continue", "undecided"}
    assert fairlead("votes", "gate", votes, home=tmp_path).code == 0
    assert "The newest 12 items" in fairlead("votes", "rolling", votes, home=tmp_path).out
    (tmp_path / "anchors.csv").write_text("rater,correct\n" + "ann,false\n" * 40, encoding="utf-8")
    assert (
        "1 of 1 rater raises an alarm: ann" in fairlead("votes", "drift", tmp_path / "anchors.csv", home=tmp_path).out
    )
    (tmp_path / "pool.csv").write_text(
        "item,p_first\n" + "".join(f"p{i},0.{i + 10}\n" for i in range(30)), encoding="utf-8"
    )
    chosen = fairlead(
        "votes", "choose", tmp_path / "pool.csv", "--pairs", 10, "--out", tmp_path / "batch.jsonl", home=tmp_path
    )
    assert "10 of 30 pairs chosen, 2 of them at random" in chosen.out


def test_items_are_converted_and_a_strict_conversion_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(
        "q,x,y,who,pick\nHi,Hello,Go,ann,A\nHo,Yes,No,ann,B\nHm,,No,ann,B\n", encoding="utf-8"
    )
    mapping = "prompt: q\nreplies: [x, y]\nratings: [{rater: who, verdict: pick}]\nverdicts: {A: a, B: b}\n"
    (tmp_path / "m.yaml").write_text(mapping, encoding="utf-8")
    command = (
        "votes",
        "convert",
        tmp_path / "v.csv",
        "--mapping",
        tmp_path / "m.yaml",
        "--to",
        "trl",
        "--out",
        tmp_path / "out.jsonl",
    )
    done = fairlead(*command, home=tmp_path)
    assert done.code == 0
    assert "2 rows of trl from 2 items with 2 ratings" in done.out
    strict = fairlead(*command, "--strict", home=tmp_path)
    assert strict.code == 3
    assert "v.csv:4: empty x" in strict.error
