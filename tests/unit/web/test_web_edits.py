"""Edited replies: edited > chosen > rejected as preferences under any number of votes, and demonstrations with what stayed of the reply."""

import json

from web_example import pairs, take, vote

from fairlead.core.io import Rejects, read_rows
from fairlead.core.services import Services
from fairlead.feedback.collected import read_collected
from fairlead.feedback.round import left_share
from fairlead.feedback.stage import FeedbackConfig
from fairlead.feedback.stage import run as run_feedback
from fairlead.formats import read_demonstrations
from fairlead.preferences.stage import PreferencesConfig
from fairlead.preferences.stage import run as run_preferences
from fairlead.store.annotation.schema import Item
from fairlead.web import adjudication, cases, exporting, importing, projects, verdicts
from fairlead.web.answers import Edit, texts_on_screen


def rate(database, actor, project, *, text=""):
    """The good reply wins; with a text it is written better. Returns the item."""
    assignment = take(database, actor, project)
    with database.read() as rows:
        texts = texts_on_screen(rows, assignment)
    place = next(i for i, each in enumerate(texts) if each.startswith("good"))
    edit = Edit(place=place, text=text) if text else None
    verdicts.submit(database, actor, assignment.id, vote(("left", "right")[place], edit=edit))
    return assignment


def test_edits_become_preferences_and_demonstrations(database, join, tmp_path):
    """Of one pair two raters vote and write the same better reply; of another one rater edits what an adjudicator overrules."""
    made = projects.create_project(
        database, "edits", votes_per_item=2, calibration_items=0, rules=projects.Rules(edits=True)
    )
    importing.add_items(database, made.id, pairs(1))
    ann, bob, eve = join("ann"), join("bob"), join("eve", "adjudicator")
    for actor in (ann, bob):
        rate(database, actor, made, text="good reply to 0, and why it is so")
    importing.add_items(database, made.id, pairs(2))
    overruled = rate(database, ann, made, text="good reply to 1 but longer")
    with database.read() as rows:
        texts = importing.texts_of(rows, rows.get(Item, overruled.item_id)).completions
    shown = cases.order_for(overruled.item_id, eve.person_id, 2)
    choice = "left" if texts[int(shown[0])].text.startswith("bad") else "right"
    ruling = adjudication.Ruling(key="k" * 16, choice=choice, reason="It is wrong.", guideline_version=1)
    adjudication.decide(database, eve, made.id, overruled.item_id, ruling)

    done = exporting.export_project(database, made, tmp_path / "out")
    assert (done.num_demonstrations, done.num_overruled) == (1, 1)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["demonstrations"] == 1 and "demonstrations.jsonl" in manifest["sha256"]
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        (found,) = read_demonstrations(tmp_path / "out" / "demonstrations.jsonl", rejects=rejects)
    assert [message.content for message in found.messages] == ["question 0", "good reply to 0, and why it is so"]
    # "good reply to" is a run of three of the nine words; of the reply's four words it is three
    assert found.meta["draft"]["from_draft"] == 0.3333 and found.meta["draft"]["draft_kept"] == 3 / 4
    assert (found.meta["author"], found.meta["draft"]["model"], found.meta["is_drafted"]) == ("rater-001", "m1", True)

    said = [row.values for row in read_rows(tmp_path / "out" / "votes.jsonl")]
    edits = [
        row for row in said if row.get("edited")
    ]  # two raters who wrote the same on two pairs, one who wrote on two
    assert len(edits) == 6 and {row["side"] for row in edits} == {"none"}  # a pair that nobody was shown
    assert len(said) == 9 and not any("side" in row for row in said if not row.get("edited"))
    judged = [vote for found in read_collected(tmp_path / "out" / "comparisons.jsonl") for vote in found.judgments]
    assert sum(not vote.has_side for vote in judged) == 6 and left_share(judged).n == 3

    services = Services(work=tmp_path, extras={"find_file": lambda path: tmp_path / path, "scope": "toy"})
    for name in ("feedback", "preferences"):
        (tmp_path / name).mkdir()
    run_feedback(FeedbackConfig(path="out/comparisons.jsonl"), inputs={}, out=tmp_path / "feedback", services=services)
    given = dict.fromkeys(("feedback", "prompts", "completions"), tmp_path / "feedback")
    run_preferences(
        PreferencesConfig(heldout=0.0, min_votes=2), inputs=given, out=tmp_path / "preferences", services=services
    )
    rows = [row.values for row in read_rows(tmp_path / "preferences" / "preferences.jsonl")]
    first = {
        (row["chosen"], row["rejected"]): row["num_votes"]
        for row in rows
        if row["chosen"].startswith("good reply to 0")
    }
    best = "good reply to 0, and why it is so"
    assert first == {
        (best, "good reply to 0"): 2,
        (best, "bad reply to 0"): 2,
        ("good reply to 0", "bad reply to 0"): 2,
    }
    assert {(row["chosen"], row["num_votes"]) for row in rows} >= {
        ("good reply to 1 but longer", 1)
    }  # one vote by its nature
    assert ("good reply to 1", "bad reply to 1") not in {(row["chosen"], row["rejected"]) for row in rows}
