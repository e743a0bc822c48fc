"""Items of more than two completions: the order on the screen, what may be sent, what is derived, exported and imported."""

import json

import pytest
import sqlalchemy as sa
from web_example import pairs, sets, take, vote

from fairlead.core.io import read_rows, write_jsonl
from fairlead.core.services import Services
from fairlead.feedback.collected import read_collected
from fairlead.feedback.stage import FeedbackConfig
from fairlead.feedback.stage import run as run_feedback
from fairlead.preferences.stage import PreferencesConfig
from fairlead.preferences.stage import run as run_preferences
from fairlead.store.annotation.schema import Assignment, Item, Verdict
from fairlead.web import exporting, importing, projects, reading, verdicts
from fairlead.web.answers import Edit, Span, texts_on_screen
from fairlead.web.errors import Refused
from fairlead.web.frames import as_stored, pairs_of, stands_after, verdict_on

ASKS = projects.Rules(
    ties="allowed", both_bad=True, spans=True, edits=True,
    criteria=(projects.Criterion(name="correct", question="Is it right?"), projects.Criterion(name="brief", question="Is it short?", points=3)),
)  # fmt: skip


@pytest.fixture
def ranked(database):
    """Six prompts with four replies, two votes each."""
    made = projects.create_project(database, "ranked", votes_per_item=2, calibration_items=0)
    importing.add_items(database, made.id, sets(6))
    return made


def ranking(**changes):
    return vote("ranked", **{"strength": 0, "ranking": ((0,), (1,), (2,), (3,)), **changes})


def by_quality(database, assignment):
    """Places from the best text to the worst."""
    with database.read() as rows:
        texts = texts_on_screen(rows, assignment)
    return tuple((place,) for place in sorted(range(len(texts)), key=lambda place: texts[place].split()[1]))


def test_a_ranking_by_hand():
    """Screen, from the left: completions 2, 0, 3, 1. The second place is best (completion 0), then the first and last (2 and 1), then 3."""
    content = {
        "choice": "ranked", "strength": 0, "ranking": [[1], [0, 3], [2]], "criteria": {"x": [10, 20, 30, 40]},
        "spans": [{"place": 2, "start": 0, "end": 4, "label": "bad", "note": ""}], "edit": {"place": 1, "text": "t"},
        "rationale": "clear", "skip_reason": "", "guideline_version": 2, "active_ms": 5,
    }  # fmt: skip
    said = as_stored(content, shown="2031")
    assert said["ranking"] == [[0], [1, 2], [3]] and said["verdict"] == "a" and said["strength"] == 0
    assert said["criteria"] == {"x": [20, 40, 10, 30]}
    assert said["spans"] == [{"completion": 3, "start": 0, "end": 4, "label": "bad", "note": ""}]
    assert (said["edited"], said["edited_text"]) == (0, "t")
    assert (said["rationale"], said["skip_reason"], said["guideline_version"], said["active_ms"]) == ("clear", "", 2, 5)
    assert [verdict_on(said["ranking"], i, j) for i, j in pairs_of(4)] == ["a", "a", "a", "tie", "a", "a"]
    assert [stands_after("2031", i, j) for i, j in pairs_of(4)] == [False, True, False, True, True, False]


def test_what_is_stored_is_in_canonical_order(database, ranked, join):
    actor = join("ann")
    for _ in range(6):
        assignment = take(database, actor, ranked)
        verdicts.submit(database, actor, assignment.id, ranking(ranking=by_quality(database, assignment)))
        with database.read() as rows:
            found, item = rows.get(Verdict, assignment.id), rows.get(Item, assignment.item_id)
            texts = [c.text for c in importing.texts_of(rows, item).completions]
        assert [texts[tied[0]].split()[1] for tied in found.ranking] == ["0", "1", "2", "3"]
        assert found.verdict == ("a" if texts[0] < texts[1] else "b")


def test_orders_differ_between_raters_and_every_side_is_even(database, join):
    made = projects.create_project(database, "many", votes_per_item=4, calibration_items=0)
    importing.add_items(database, made.id, sets(5))
    for name in ("ann", "bob", "cem", "dan"):
        actor = join(name)
        for _ in range(5):
            verdicts.submit(database, actor, take(database, actor, made).id, ranking())
    repeats = 0
    with database.read() as rows:
        for item in rows.scalars(sa.select(Item)):
            orders = rows.scalars(sa.select(Assignment.shown).where(Assignment.item_id == item.id)).all()
            assert all(sorted(order) == list("0123") for order in orders)
            repeats += sum(a == b for i, j in pairs_of(4) for a, b in zip(orders[i], orders[j], strict=True))
    assert repeats <= 12  # six pairs of random orders share six places on average, 30 on five items; these about 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ranking": ((0,), (1,), (2,))}, "each of the 4 replies once"),
        ({"ranking": ((0,), (1,), (2,), (2,), (3,))}, "once"),
        ({"ranking": ((0,), (1,), (2,), (3,), ())}, "once"),
        ({"ranking": ((0,), (1,), (2,), (4,))}, "once"),
        ({"ranking": ()}, "once"),
        ({"ranking": ((0, 1), (2,), (3,))}, "may share a place"),
        ({"choice": "left", "strength": 2}, "no verdict on 4 replies"),
        ({"strength": 1}, "strength"),
        ({"choice": "tie"}, "no verdict on 4 replies"),
        ({"criteria": {"x": (1, 1, 1, 1)}}, "do not fit"),
        ({"spans": (Span(place=0, start=0, end=2, label="good"),)}, "does not ask for marked"),
        ({"edit": Edit(place=0, text="new")}, "does not ask for edits"),
    ],
)
def test_what_cannot_be_is_refused(database, ranked, join, changes, words):
    actor, sent = join("ann"), {"choice": "ranked", "strength": 0, "ranking": ((0,), (1,), (2,), (3,)), **changes}
    with pytest.raises(Refused, match=words):
        verdicts.submit(database, actor, take(database, actor, ranked).id, vote(**sent))


def test_a_pair_has_no_ranking(database, project, join):
    actor = join("ann")
    for sent in (vote("ranked", strength=0, ranking=((0,), (1,))), vote("left", ranking=((0,), (1,)))):
        with pytest.raises(Refused):
            verdicts.submit(database, actor, take(database, actor, project).id, sent)


RATED = {"correct": (5, 1), "brief": (3, 3)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"criteria": {}}, "brief, correct"),
        ({"criteria": {"correct": (5, 1)}}, "brief"),
        ({"criteria": {**RATED, "kind": (1, 1)}}, "kind"),
        ({"criteria": {**RATED, "brief": (4, 1)}}, "from 1 to 3"),
        ({"criteria": {**RATED, "brief": (0, 1)}}, "from 1 to 3"),
        ({"criteria": {**RATED, "brief": (3,)}}, "each of the 2"),
        ({"spans": (Span(place=2, start=0, end=1, label="good"),)}, "outside"),
        ({"spans": (Span(place=0, start=3, end=3, label="good"),)}, "outside"),
        ({"spans": (Span(place=0, start=0, end=1000, label="good"),)}, "outside"),
        ({"spans": (Span(place=0, start=0, end=1, label="odd"),)}, "outside"),
        ({"spans": (Span(place=0, start=0, end=1, label="bad", note="x" * 2001),)}, "too long"),
        ({"spans": (Span(place=0, start=0, end=1, label="good"),) * 101}, "101 passages"),
        ({"edit": Edit(place=1, text="better")}, "put first"),
        ({"edit": Edit(place=0, text="  ")}, "as it was"),
        ({"edit": Edit(place=0, text="a\0b")}, "too long"),
        ({"edit": Edit(place=0, text="x" * 50_001)}, "too long"),
        ({"choice": "skip", "strength": 0, "skip_reason": "unclear"}, "says nothing of the texts"),
    ],
)
def test_answers_that_the_guideline_does_not_allow(database, project, join, changes, words):
    version = projects.publish_guideline(database, project.id, text="# All", rules=ASKS, by=None)
    actor, sent = join("ann"), {"choice": "left", "guideline_version": version, "criteria": RATED, **changes}
    with pytest.raises(Refused, match=words):
        verdicts.submit(database, actor, take(database, actor, project).id, vote(**sent))


def test_an_edit_to_what_stands_there_already_is_none(database, project, join):
    version = projects.publish_guideline(database, project.id, text="# All", rules=ASKS, by=None)
    actor = join("ann")
    assignment = take(database, actor, project)
    with database.read() as rows:
        texts = texts_on_screen(rows, assignment)
    for text in texts:
        with pytest.raises(Refused, match="as it was"):
            sent = vote("left", guideline_version=version, criteria=RATED, edit=Edit(place=0, text=f"{text}\n"))
            verdicts.submit(database, actor, assignment.id, sent)


def test_everything_is_derived_again_from_the_events(database, project, join):
    from test_web_database import derived

    version = projects.publish_guideline(database, project.id, text="# All", rules=ASKS, by=None)
    importing.add_items(database, project.id, sets(4))
    actor = join("ann")
    for i in range(16):
        assignment = take(database, actor, project)
        num = len(assignment.shown)
        first = ranking(ranking=by_quality(database, assignment)) if num == 4 else vote("left")
        sent = {name: getattr(first, name) for name in ("choice", "strength", "ranking")}
        best = sent["ranking"][0][0] if num == 4 else 0
        verdicts.submit(database, actor, assignment.id, vote(**sent, guideline_version=version, criteria={"correct": (3,) * num, "brief": (1,) * num},
                        spans=(Span(place=1, start=2, end=5, label="bad", note="here"),), edit=Edit(place=best, text=f"better {i}")))  # fmt: skip
    before = derived(database)
    verdicts.rebuild(database)
    assert derived(database) == before
    with database.read() as rows:
        assert all(v.edited == v.ranking[0][0] and v.edited_text for v in rows.scalars(sa.select(Verdict)))


def test_a_ranking_is_exported_as_its_pairs_and_becomes_preferences(database, ranked, join, tmp_path):
    for name in ("ann", "bob"):
        actor = join(name)
        for _ in range(6):
            assignment = take(database, actor, ranked)
            verdicts.submit(database, actor, assignment.id, ranking(ranking=by_quality(database, assignment)))
    done = exporting.export_project(database, ranked, tmp_path / "out")
    assert (done.num_comparisons, done.num_votes, done.num_raters) == (36, 12, 2)
    for comparison in read_collected(tmp_path / "out" / "comparisons.jsonl"):
        expected = "a" if comparison.a.text < comparison.b.text else "b"
        assert [vote.verdict for vote in comparison.judgments] == [expected] * 2
        assert comparison.task.meta["item"].startswith("i-")
    services = Services(work=tmp_path, extras={"find_file": lambda path: tmp_path / path, "scope": "toy"})
    for name in ("feedback", "preferences"):
        (tmp_path / name).mkdir()
    run_feedback(FeedbackConfig(path="out/comparisons.jsonl"), inputs={}, out=tmp_path / "feedback", services=services)
    given = dict.fromkeys(("feedback", "prompts", "completions"), tmp_path / "feedback")
    run_preferences(PreferencesConfig(heldout=0.0), inputs=given, out=tmp_path / "preferences", services=services)
    rows = [row.values for row in read_rows(tmp_path / "preferences" / "preferences.jsonl")]
    assert len(rows) == 36 and all(row["chosen"] < row["rejected"] for row in rows)


def test_a_pair_that_stands_in_a_ranking_too_is_exported_once(database, join, tmp_path):
    made = projects.create_project(database, "both", votes_per_item=1, calibration_items=0)
    whole = sets(1, size=3)[0]
    importing.add_items(database, made.id, [whole, importing.NewItem.of(whole.prompt, whole.completions[:2])])
    actor = join("ann")
    for _ in range(2):
        assignment = take(database, actor, made)
        verdicts.submit(
            database,
            actor,
            assignment.id,
            vote() if len(assignment.shown) == 2 else ranking(ranking=((0,), (1,), (2,))),
        )
    exporting.export_project(database, made, tmp_path)
    found = list(read_collected(tmp_path / "comparisons.jsonl"))
    assert len(found) == 3 and all(len(comparison.judgments) == 1 for comparison in found)


def test_all_completions_of_a_prompt_become_one_item(tmp_path):
    made = sets(3, size=5)
    write_jsonl(tmp_path / "prompts.jsonl", [item.prompt for item in made])
    write_jsonl(tmp_path / "completions.jsonl", [c for item in made for c in item.completions])
    found = reading.read_source(tmp_path, group_size=9, seed=0, rejects_file=tmp_path / "r.jsonl")
    assert found.items == made
    four = reading.read_source(tmp_path, group_size=4, seed=0, rejects_file=tmp_path / "r.jsonl").items
    assert all(
        len(item.completions) == 4 and {c.id for c in item.completions} < {c.id for c in whole.completions}
        for item, whole in zip(four, made, strict=True)
    )
    assert four == reading.read_source(tmp_path, group_size=4, seed=0, rejects_file=tmp_path / "r.jsonl").items


def test_pairs_of_one_prompt_are_put_together(tmp_path):
    rows = [
        {"prompt": f"q{i}", "chosen": f"{i} good", "rejected": f"{i} {word}"}
        for i in range(4)
        for word in ("fair", "bad")
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = reading.read_source(tmp_path / "pairs.jsonl", group_size=5, seed=0, rejects_file=tmp_path / "r.jsonl")
    assert [sorted(c.text for c in item.completions) for item in found.items] == [
        [f"{i} bad", f"{i} fair", f"{i} good"] for i in range(4)
    ]


def test_items_of_another_tool_come_in_whole_and_blind(tmp_path):
    rows = [{"schema": 1, "prompt": [{"role": "user", "content": f"q{i}"}], "ratings": [],
             "replies": [{"id": str(n), "text": f"reply {n} to {i}", "model": f"m{n}"} for n in range(3)]} for i in range(2)]  # fmt: skip
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = reading.read_source(tmp_path / "items.jsonl", seed=0, rejects_file=tmp_path / "r.jsonl")
    assert [len(item.completions) for item in found.items] == [3, 3]
    assert {c.model for item in found.items for c in item.completions} == {"unknown"}


def test_a_pair_keeps_the_id_of_its_comparison():
    item = pairs(1)[0]
    from fairlead.core.records import Task

    a, b = item.completions
    assert item.content_id == Task(prompt_id=item.prompt.id, completion_a=a.id, completion_b=b.id).id


def test_ratings_passages_and_edits_reach_the_preferences(database, project, join, tmp_path):
    """edited > chosen > rejected, and of every pair the mean ratings by which reward models with attributes are trained."""
    version = projects.publish_guideline(database, project.id, text="# All", rules=ASKS, by=None)
    actor = join("ann")
    assignment = take(database, actor, project)
    with database.read() as rows:
        chosen, rejected = texts_on_screen(rows, assignment)
    sent = vote("left", guideline_version=version, criteria={"correct": (5, 2), "brief": (3, 1)},
                spans=(Span(place=1, start=0, end=3, label="bad", note="no"),), edit=Edit(place=0, text="the best of all"))  # fmt: skip
    verdicts.submit(database, actor, assignment.id, sent)
    exporting.export_project(database, project, tmp_path / "out")
    services = Services(work=tmp_path, extras={"find_file": lambda path: tmp_path / path, "scope": "toy"})
    for name in ("feedback", "preferences"):
        (tmp_path / name).mkdir()
    run_feedback(FeedbackConfig(path="out/comparisons.jsonl"), inputs={}, out=tmp_path / "feedback", services=services)
    given = dict.fromkeys(("feedback", "prompts", "completions"), tmp_path / "feedback")
    run_preferences(PreferencesConfig(heldout=0.0), inputs=given, out=tmp_path / "preferences", services=services)
    found = {
        (row.values["chosen"], row.values["rejected"]): row.values["meta"]
        for row in read_rows(tmp_path / "preferences" / "preferences.jsonl")
    }
    assert set(found) == {(chosen, rejected), ("the best of all", chosen), ("the best of all", rejected)}
    rated = {name: value for name, value in found[chosen, rejected].items() if name != "task_id"}
    assert rated == {"chosen_correct": 5.0, "rejected_correct": 2.0, "chosen_brief": 3.0, "rejected_brief": 1.0}
    spans = [
        j.meta["spans"]
        for c in read_collected(tmp_path / "out" / "comparisons.jsonl")
        for j in c.judgments
        if "spans" in j.meta
    ]
    assert [(span["start"], span["end"], span["label"], span["note"]) for (span,) in spans] == [(0, 3, "bad", "no")]
