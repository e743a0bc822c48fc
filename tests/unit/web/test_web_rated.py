"""What goes out in formats of other tools beside votes: decisions, marked passages; what stays in: hidden anchors, demonstrations, erased people."""

import dataclasses

import pytest
import sqlalchemy as sa
from test_web_anchors import rate, uses, with_gold
from test_web_chats import Parrot, latest, speak
from test_web_exchange import PAIR, outside, put
from web_example import sets, take, vote

from fairlead.core.annotations import RatedItem, Rating
from fairlead.core.errors import ConfigError
from fairlead.core.io import read_records, write_jsonl
from fairlead.core.records import Preference
from fairlead.store.annotation.outside import OutsideRater, OutsideRating
from fairlead.store.annotation.schema import Item
from fairlead.web import adjudication, cases, erasing, importing, projects, rated, verdicts
from fairlead.web.answers import Span
from fairlead.web.frames import is_swapped


def items_of(database, project, *, with_outside=False):
    with database.read() as rows:
        return list(rated.rated_items(rows, project.id, with_outside=with_outside))


def test_hidden_anchors_go_out_with_neither_own_votes_nor_outside_ones(database, join, tmp_path):
    made = with_gold(database, num=30)
    done = rate(database, made, join("ann"), 40)
    assert "anchor" in uses(database, done)
    with database.read() as rows:
        texts = importing.texts_of(rows, rows.scalars(sa.select(Item).where(Item.use == "anchor")).first())
    said = {name: (Rating(rater="x", verdict="a"),) for name in (texts.content_id, items_of(database, made)[0].item)}
    assert importing.add_items(database, made.id, [texts], ratings=said, source="x").outside.num_ratings == 2
    for flag in (False, True):
        items = items_of(database, made, with_outside=flag)
        assert (
            len(items) == 30
            and sum(len(item.ratings) for item in items) == 30 + flag
            and {item.meta["use"] for item in items} == {"production"}
        )
        assert sum(rating.rater == "rater-001" for item in items for rating in item.ratings) == 30


def test_what_an_adjudicator_decided_stands_beside_the_votes_and_rules_the_preference(
    database, project, join, tmp_path
):
    ada, items = join("ada", "adjudicator"), []
    for name in ("ann", "bob"):
        rater = join(name)
        assignment = take(database, rater, project)
        items.append(assignment.item_id)
        verdicts.submit(database, rater, assignment.id, vote("right" if is_swapped(assignment.shown) else "left"))
    swapped = cases.order_for(items[0], ada.person_id, 2) == "10"
    choice = "left" if swapped else "right"
    ruling = adjudication.Ruling(key="a-key-of-a-ruling", choice=choice, reason="b is right", guideline_version=1)
    adjudication.decide(database, ada, project.id, items[0], ruling)
    with database.read() as rows:
        decided = rows.get(Item, items[0]).content_id
    (item,) = (item for item in items_of(database, project) if item.item == decided)
    assert item.meta["decision"] == {"verdict": "b", "reason": "b is right", "guideline_version": "1"}
    rated.export_as(database, project, tmp_path / "p.jsonl", to="fairlead")
    found = {p.meta["task_id"]: p for p in read_records(tmp_path / "p.jsonl", Preference)}
    ruled = found.pop(decided)
    assert (ruled.chosen, ruled.p_chosen, ruled.meta["is_decided"]) == (item.replies[1].text, 1.0, True)
    assert ruled.num_votes == 1 + (items[1] == items[0])
    assert all("is_decided" not in p.meta for p in found.values())


@pytest.mark.parametrize("size", [2, 3])
def test_marked_passages_name_the_reply_that_they_are_in_there_and_back(database, join, tmp_path, size):
    """Out of one project, into another as votes of another tool, and out again: each passage is in the same text."""
    rules = projects.Rules(spans=True)
    made = projects.create_project(database, "marked", votes_per_item=1, calibration_items=0, rules=rules)
    importing.add_items(database, made.id, sets(4, size=size))
    ann = join("ann")
    for _ in range(4):
        assignment = take(database, ann, made)
        span = Span(place=1, start=0, end=7, label="bad")
        choice = {"ranking": tuple((i,) for i in range(size)), "strength": 0} if size > 2 else {}
        verdicts.submit(database, ann, assignment.id, vote("ranked" if size > 2 else "left", spans=(span,), **choice))

    def marked(items):
        texts = {}
        for item in items:
            named = {reply.id: reply.text for reply in item.replies}
            (rating,) = item.ratings
            ((start, text),) = [(span["start"], named[span["completion"]]) for span in rating.meta["spans"]]
            best = item.replies["ab".index(rating.verdict)].id if size == 2 else rating.ranking[0][0]
            texts[item.prompt[0].content] = (start, text, named[best])
        return texts

    want = marked(items_of(database, made))
    assert len(want) == 4 and all(text != best for _, text, best in want.values())
    rated.export_as(database, made, tmp_path / "out.jsonl", to="fairlead_items")
    # replies under other names and in another order, as another tool would have them
    turned = [turned_round(item) for item in read_records(tmp_path / "out.jsonl", RatedItem)]
    write_jsonl(tmp_path / "in.jsonl", turned)
    again, _, _ = put(database, tmp_path / "in.jsonl", name="again")
    assert marked(outside(database, again)) == want


def turned_round(item):
    names = {reply.id: f"n{i}" for i, reply in enumerate(item.replies)}
    (rating,) = item.ratings
    spans = [{**span, "completion": names[span["completion"]]} for span in rating.meta["spans"]]
    changes = {"meta": {**rating.meta, "spans": spans}, "ranking": tuple(tuple(names[n] for n in tied) for tied in rating.ranking)}  # fmt: skip
    if len(item.replies) == 2:
        changes |= {"verdict": {"a": "b", "b": "a"}[rating.verdict], "strength": -rating.strength}
    replies = tuple(dataclasses.replace(reply, id=names[reply.id]) for reply in reversed(item.replies))
    return dataclasses.replace(item, replies=replies, ratings=(dataclasses.replace(rating, **changes),), id="")


def test_formats_of_votes_are_refused_where_people_write(database, tmp_path):
    made = projects.create_project(database, "written", kind="demonstration", votes_per_item=1, calibration_items=0)
    for to in ("trl", "fairlead_items", "fine_tuning_sft"):
        with pytest.raises(ConfigError, match="people write replies; expected native"):
            rated.export_as(database, made, tmp_path / "x.jsonl", to=to)
    assert not (tmp_path / "x.jsonl").exists()


def test_conversations_go_out_in_every_format_of_votes(database, join, tmp_path):
    """Each turn is an item: what was said so far is its prompt, the two replies of the policy are its replies."""
    made = projects.create_project(database, "talk", kind="chat", votes_per_item=1, calibration_items=0)
    ann = join("ann")
    verdicts.submit(database, ann, speak(database, ann, made, "Hi").id, vote("left"))
    second = speak(database, ann, made, "More", chat=latest(database, ann, made))
    verdicts.submit(database, ann, second.id, vote("right"))
    items = items_of(database, made)
    assert sorted(len(item.prompt) for item in items) == [1, 3]
    assert {reply.model for item in items for reply in item.replies} == {Parrot.name}
    rated.export_as(database, made, tmp_path / "p.jsonl", to="fairlead", is_blind=True)
    assert (
        len(list(read_records(tmp_path / "p.jsonl", Preference))) == 2
        and Parrot.name not in (tmp_path / "p.jsonl").read_text()
    )


def test_who_is_erased_is_gone_from_files_of_other_tools_too(database, join, tmp_path):
    item = dataclasses.replace(PAIR, ratings=(Rating(rater="Ann Real-Name", verdict="a", rationale="private-words"),
                                              Rating(rater="Bob", verdict="b", rationale="stays")), id="")  # fmt: skip
    write_jsonl(tmp_path / "in.jsonl", [item])
    project, _, _ = put(database, tmp_path / "in.jsonl")
    before = [(r.rater, r.verdict) for r in outside(database, project)[0].ratings]
    done = erasing.erase_person(database, join("Ann real-name").person_id, by=None)
    assert done.num_texts == 2
    with database.read() as rows:
        names = set(rows.scalars(sa.select(OutsideRater.name)))
        said = {record["rationale"] for record in rows.scalars(sa.select(OutsideRating.record))}
    assert names == {"erased outside-001", "Bob"} and said == {"", "stays"}
    assert [(r.rater, r.verdict) for r in outside(database, project)[0].ratings] == before
