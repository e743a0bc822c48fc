"""Texts in and votes out: what cannot be used is counted, nothing of a quality is kept, and the pipeline reads what comes out."""

import json

import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import read_rows, write_jsonl
from fairlead.core.records import Message, Prompt
from fairlead.core.services import Services
from fairlead.feedback.collected import read_collected, write_collected
from fairlead.feedback.stage import FeedbackConfig
from fairlead.feedback.stage import run as run_feedback
from fairlead.preferences import votes as tables
from fairlead.preferences.stage import PreferencesConfig
from fairlead.preferences.stage import run as run_preferences
from fairlead.store.annotation.schema import Completion, Item
from fairlead.web import exporting, importing, projects, reading, verdicts
from fairlead.web.frames import is_swapped


def rate_all(database, project, join, names=("ann", "bob")):
    """Everybody prefers the reply that says good, whatever the side; the last one skips the last item."""
    good = {}
    with database.read() as rows:
        for item in rows.scalars(sa.select(Item)):
            a = rows.get(Completion, (project.id, item.completions[0])).record["text"]
            good[item.id] = "a" if a.startswith("good") else "b"
    for name in names:
        actor = join(name)
        for i in range(12):
            assignment = take(database, actor, project)
            is_left = (good[assignment.item_id] == "a") != is_swapped(assignment.shown)
            sent = vote("left" if is_left else "right", rationale="it says good", active_ms=4000)
            verdicts.submit(database, actor, assignment.id, vote("skip") if (name, i) == (names[-1], 11) else sent)


def test_votes_flow_into_the_pipeline(database, project, join, tmp_path):
    rate_all(database, project, join)
    done = exporting.export_project(database, project, tmp_path / "out")
    assert (done.num_comparisons, done.num_votes, done.num_skips, done.num_raters) == (12, 23, 1, 2)
    services = Services(work=tmp_path, extras={"find_file": lambda path: tmp_path / path, "scope": "toy"})
    feedback, preferences = tmp_path / "feedback", tmp_path / "preferences"
    feedback.mkdir()
    preferences.mkdir()
    summary = run_feedback(FeedbackConfig(path="out/comparisons.jsonl"), inputs={}, out=feedback, services=services)
    assert summary.facts["rater_kind"] == "human" and summary.facts["num_judgments"] == 24
    given = {"feedback": feedback, "prompts": feedback, "completions": feedback}
    result = run_preferences(PreferencesConfig(heldout=0.0), inputs=given, out=preferences, services=services)
    rows = list(read_rows(preferences / "preferences.jsonl"))
    assert len(rows) == 12 and all(row.values["chosen"].startswith("good") for row in rows)
    assert any("human raters" in note for note in result.notes)


def test_the_tables_are_read_by_fairlead_votes(database, project, join, tmp_path):
    rate_all(database, project, join)
    exporting.export_project(database, project, tmp_path)
    assert "23 votes by 2 raters" in tables.agreement_of(without_skips(tmp_path), num_resamples=100).headline
    tables.aggregate_votes(
        tmp_path / "votes.jsonl", tmp_path / "p.jsonl", method="one_coin_side_bias", items=tmp_path / "items.jsonl"
    )
    found = list(read_rows(tmp_path / "p.jsonl"))
    assert len(found) == 12 and all(row.values["chosen"].startswith("good") for row in found)


def without_skips(folder):
    rows = [row.values for row in read_rows(folder / "votes.jsonl") if row.values["label"] != "skip"]
    write_jsonl(folder / "decided.jsonl", rows)
    return folder / "decided.jsonl"


def test_an_export_names_no_rater_and_no_account(database, project, join, tmp_path):
    rate_all(database, project, join, names=("Ann Real-Name", "Bob Real-Name"))
    exporting.export_project(database, project, tmp_path)
    text = "".join(file.read_text() for file in tmp_path.glob("*.json*"))
    assert "Real-Name" not in text and '"rater": "rater-001"' in text


def test_a_conversation_survives_the_tables(tmp_path, database, join):
    turns = tuple(
        Message(role=role, content=text)
        for role, text in (("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "How?"))
    )
    pair = pairs(1)[0]
    prompt = Prompt(messages=turns)
    import dataclasses

    a, b = (dataclasses.replace(c, prompt_id=prompt.id, id="") for c in pair.completions)
    made = projects.create_project(database, "talk", votes_per_item=1, calibration_items=0)
    importing.add_items(database, made.id, [importing.NewItem.of(prompt, (a, b))])
    actor = join("ann")
    verdicts.submit(database, actor, take(database, actor, made).id, vote())
    exporting.export_project(database, made, tmp_path)
    tables.aggregate_votes(
        tmp_path / "votes.jsonl", tmp_path / "p.jsonl", method="majority", items=tmp_path / "items.jsonl"
    )
    row = next(iter(read_rows(tmp_path / "p.jsonl"))).values
    assert [(m["role"], m["content"]) for m in row["prompt"]] == [(m.role, m.content) for m in turns]


def test_a_file_of_pairs_is_read_blind_and_faults_are_counted(tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(20)]
    rows += [{"prompt": "same", "chosen": "x", "rejected": "x"}, {"prompt": "empty", "chosen": "", "rejected": "y"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = reading.read_source(tmp_path / "pairs.jsonl", pairs_per_prompt=1, seed=0, rejects_file=tmp_path / "r.jsonl")
    assert len(found.items) == 20 and sum(found.left_out.values()) == 2
    first_is_good = sum(pair.completions[0].text.startswith("good") for pair in found.items)
    assert 3 <= first_is_good <= 17  # the order of hashes: 20 fair draws fall outside once in 2,500
    assert {completion.model for pair in found.items for completion in pair.completions} == {"unknown"}


@pytest.mark.parametrize(
    ("text", "reason"), [("x\0y", "NUL"), ("x" * 400_001, "beyond 400,000"), ("  ", "empty"), ("bad 0", "equal")]
)
def test_texts_that_cannot_be_shown_are_left_out(tmp_path, text, reason):
    import dataclasses

    pair = pairs(1)[0]
    texts = zip(pair.completions, (text, "bad 0"), strict=True)
    bad = dataclasses.replace(pair, completions=tuple(dataclasses.replace(c, text=new, id="") for c, new in texts))
    assert reason in reading._fault(bad)


def test_a_folder_of_a_run_is_read(tmp_path):
    made = pairs(3)
    write_jsonl(tmp_path / "prompts.jsonl", [pair.prompt for pair in made])
    write_jsonl(tmp_path / "completions.jsonl", [c for pair in made for c in pair.completions][:5])
    found = reading.read_source(tmp_path, pairs_per_prompt=1, seed=0, rejects_file=tmp_path / "r.jsonl")
    assert len(found.items) == 2 and found.left_out == {"prompts with fewer than two completions": 1}
    (tmp_path / "completions.jsonl").unlink()
    with pytest.raises(DataError, match=r"completions\.jsonl"):
        reading.read_source(tmp_path, pairs_per_prompt=1, seed=0, rejects_file=tmp_path / "r.jsonl")


def test_the_same_import_twice_adds_nothing(database, project):
    added = importing.add_items(database, project.id, pairs(13))
    assert (added.num_items, added.num_known) == (1, 12)


def test_nothing_voted_is_no_export(database, project, tmp_path):
    with pytest.raises(DataError, match="no votes yet"):
        exporting.export_project(database, project, tmp_path)


def test_the_manifest_names_what_is_there(database, project, join, tmp_path):
    import hashlib

    rate_all(database, project, join)
    exporting.export_project(database, project, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["votes"] == 23 and set(manifest["sha256"]) == {
        "comparisons.jsonl",
        "votes.jsonl",
        "decisions.jsonl",
        "items.jsonl",
        "guideline-1.md",
    }
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def broken(change):
    def apply(row):
        change(row)
        return row

    return apply


@pytest.mark.parametrize(("change", "words"), [
    (lambda row: row.pop("a"), "a is missing"), (lambda row: row.update(judgments={}), "not a list"),
    (lambda row: row["task"].update(prompt_id="p-other"), "another comparison"),
    (lambda row: row["judgments"][0].update(task_id="t-x"), "another comparison"),
    (lambda row: row["judgments"].append(row["judgments"][0]), "voted twice"), (lambda row: row["judgments"][0].update(verdict="c"), "verdict"),
])  # fmt: skip
def test_an_export_that_was_touched_is_refused_with_its_place(database, project, join, tmp_path, change, words):
    rate_all(database, project, join)
    exporting.export_project(database, project, tmp_path)
    rows = [row.values for row in read_rows(tmp_path / "comparisons.jsonl")]
    change(rows[3])
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=words) as refused:
        list(read_collected(tmp_path / "x.jsonl"))
    assert "x.jsonl:4" in str(refused.value)


def test_collected_comparisons_round_trip(database, project, join, tmp_path):
    rate_all(database, project, join)
    exporting.export_project(database, project, tmp_path)
    first = list(read_collected(tmp_path / "comparisons.jsonl"))
    write_collected(tmp_path / "again.jsonl", first)
    assert list(read_collected(tmp_path / "again.jsonl")) == first
    vote_ = next(v for c in first for v in c.judgments if v.verdict != "skip")
    assert (
        vote_.meta == {"rationale": "it says good", "active_ms": 4000}
        and vote_.guideline_version == "1"
        and abs(vote_.strength) == 2
    )


def test_votes_of_people_and_simulated_raters_are_one_or_the_other():
    from fairlead.core.config import parse_config

    with pytest.raises(ConfigError, match="num_raters=5 says how raters are simulated"):
        parse_config(FeedbackConfig, {"path": "x.jsonl", "num_raters": 5}, where="feedback")
