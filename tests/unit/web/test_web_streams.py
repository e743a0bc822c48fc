"""Exports that are written while they are read: equal to reading the whole project at once, in memory that does not grow, complete or not there."""

import random
import tracemalloc

import pytest
import sqlalchemy as sa
from web_example import pairs, sets, take, vote

from fairlead.core.errors import DataError
from fairlead.core.io import read_rows
from fairlead.core.records import to_dict
from fairlead.feedback.collected import as_row
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Verdict
from fairlead.web import adjudication, cases, edits, exporting, given, importing, projects, verdicts
from fairlead.web.answers import Edit, Submission
from fairlead.web.decisions import decisions_of
from fairlead.web.verdicts import new_key


@pytest.fixture
def filled(database, join):
    """Pairs and rankings that share prompts and pairs, skips, edits that two raters write alike, decisions; three raters on every item."""
    rules = projects.Rules(ties="allowed", both_bad=True, edits=True)
    project = projects.create_project(database, "filled", votes_per_item=3, calibration_items=0, rules=rules)
    ranked = sets(4, size=3)
    parts = [importing.NewItem.of(item.prompt, item.completions[:2]) for item in ranked[:3]]
    importing.add_items(database, project.id, [*pairs(7), *ranked, *parts])
    draw = random.Random(5)
    for name in ("ann", "bob", "cas"):
        actor = join(name)
        for _ in range(14):
            assignment = take(database, actor, project)
            verdicts.submit(database, actor, assignment.id, said(assignment, draw))
    ada = join("ada", "adjudicator")
    with database.read() as rows:
        edited = dict(rows.execute(sa.select(Verdict.item_id, Verdict.edited).where(Verdict.edited.is_not(None))).all())
        items = rows.scalars(sa.select(Item).order_by(Item.content_id)).all()
    for number, item in enumerate(sorted(items, key=lambda item: item.id not in edited)[:6]):
        size = len(item.completions)
        order = cases.order_for(item.id, ada.person_id, size)
        places = draw.sample(range(size), size)
        if number == 0 and int(order[places[0]]) == edited[item.id]:  # at least one edit is not of the best reply
            places.reverse()
        ranking = tuple((place,) for place in places) if size > 2 else ()
        choice = "ranked" if ranking else ("left", "right")[places[0]]
        ruling = adjudication.Ruling(key=new_key(), choice=choice, reason=order, guideline_version=1, ranking=ranking)
        adjudication.decide(database, ada, project.id, item.id, ruling)
    return project


def said(assignment, draw):
    size = len(assignment.shown)
    if draw.random() < 0.1:
        return vote("skip")
    edit = Edit(place=0, text=f"better {draw.randrange(2)}") if draw.random() < 0.5 else None
    if size == 2:
        return vote(draw.choice(["left", "left", "right", "tie"]) if edit is None else "left", edit=edit)
    rest = draw.sample(range(1, size), size - 1)
    return Submission(key=new_key(), choice="ranked", guideline_version=1, ranking=((0,), *((place,) for place in rest)), edit=edit)  # fmt: skip


def all_at_once(database, project):
    """Everything in memory, in one query."""
    with database.read() as rows:
        decided = decisions_of(rows, project.id)
        found = rows.execute(
            sa.select(Item, Verdict, Assignment, Person.pseudonym, Event.at).join(Verdict, Verdict.item_id == Item.id)
            .join(Assignment, Assignment.id == Verdict.assignment_id).join(Person, Person.id == Verdict.person_id)
            .join(Event, Event.number == Verdict.event_number).where(Item.use != "anchor").order_by(Item.content_id, Person.pseudonym)
        ).all()  # fmt: skip
        grouped = {}
        for item, *rest in found:
            grouped.setdefault(item.id, (item, []))[1].append(rest)
        return [
            given.Given(item=item, texts=importing.texts_of(rows, item), votes=tuple((v, a, who) for v, a, who, _ in votes),
                        times=tuple(at for *_, at in votes), decision=decided.get(item.id))
            for item, votes in grouped.values()
        ]  # fmt: skip


def plain(path):
    return [row.values for row in read_rows(path)]


@pytest.mark.parametrize("num_a_piece", [1, 3, 250])
def test_an_export_in_pieces_holds_what_reading_all_at_once_gives(database, filled, tmp_path, monkeypatch, num_a_piece):
    whole = all_at_once(database, filled)
    comparisons = exporting.comparisons_of(whole, included={})
    found = edits.edited_demonstrations(whole, project=filled.name)
    assert found.demonstrations and found.num_overruled and any(len(c.judgments) > 2 for c in comparisons)
    assert len({c.task.id for c in comparisons}) == len(comparisons) < sum(1 + 2 * (len(each.item.completions) > 2) for each in whole) + sum(
        len({v.edited_text for v, _, _ in each.votes if v.edited is not None}) * len(each.item.completions) for each in whole
    )  # fmt: skip

    monkeypatch.setattr(given, "NUM_A_PIECE", num_a_piece)
    done = exporting.export_project(database, filled, tmp_path / "out")
    rows = {row["task"]["id"]: row for row in plain(tmp_path / "out" / "comparisons.jsonl")}
    assert rows == {c.task.id: as_row(c) for c in comparisons}
    votes = plain(tmp_path / "out" / "votes.jsonl")
    judged = [(name, each["rater"]) for name, row in rows.items() for each in row["judgments"]]
    assert [(row["item"], row["rater"]) for row in votes] == judged
    assert [row["item"] for row in plain(tmp_path / "out" / "items.jsonl")] == list(rows)
    replies = {row["id"]: row for row in plain(tmp_path / "out" / "demonstrations.jsonl")}
    assert replies == {each.id: to_dict(each) for each in found.demonstrations}
    assert (done.num_comparisons, done.num_demonstrations, done.num_overruled) == (len(rows), len(replies), found.num_overruled)  # fmt: skip
    assert done.num_votes + done.num_skips == sum(len(each.votes) for each in whole) == 42 and done.num_decisions == 6


def test_an_export_that_fails_leaves_no_file(database, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(given, "NUM_A_PIECE", 3)
    with database.write() as rows:  # a vote that would be lost: its item's texts are read, then the count does not fit
        rows.execute(sa.update(Item).where(Item.id == sa.select(sa.func.min(Item.id)).scalar_subquery()).values(use="anchor"))  # fmt: skip
    real = exporting.rated_ids
    monkeypatch.setattr(exporting, "rated_ids", lambda *args, **options: real(*args, **options)[:-1])
    with pytest.raises(DataError, match="is not what the database holds"):
        exporting.export_project(database, filled, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_memory_of_an_export_does_not_grow_with_the_project(database, join, tmp_path):
    """Four times as many items need less than twice the memory of a piece; all of them at once would need four times."""
    project = projects.create_project(database, "long", votes_per_item=1, calibration_items=0)
    actor = join("ann")

    def peak(num):
        importing.add_items(database, project.id, pairs(num))
        while not isinstance(found := verdicts_left(database, actor, project), int):
            verdicts.submit(database, actor, found.id, vote())
        tracemalloc.start()
        exporting.export_project(database, project, tmp_path / str(num))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    given.NUM_A_PIECE, kept = 20, given.NUM_A_PIECE
    try:
        first = peak(60)
        assert peak(240) < 2 * first
    finally:
        given.NUM_A_PIECE = kept


def verdicts_left(database, actor, project):
    from fairlead.web import queue

    found = queue.next_assignment(database, actor, project.id)
    return found if isinstance(found, Assignment) else 0
