"""Other tools' files in, other tools' files out: every field there and back, outside votes apart, bad rows listed or nothing taken."""

import dataclasses
import gzip
import json

import pytest
import sqlalchemy as sa
from web_example import sets, take, vote

from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import Rejects, read_rows, write_json, write_jsonl
from fairlead.core.records import Message
from fairlead.formats import read_annotations, read_mapping, read_preferences
from fairlead.formats.argilla import write_record
from fairlead.formats.label_studio import write_task
from fairlead.preferences.item_export import TARGETS
from fairlead.store.annotation.outside import OutsideRater
from fairlead.store.annotation.schema import Item, Verdict
from fairlead.web import importing, projects, rated, reading, screening, verdicts
from fairlead.web.outside import count_ratings

PROMPT = (Message(role="user", content="How are you?"),)
RATINGS = (
    Rating(rater="ann@example.org", verdict="a", strength=-2, swapped=True, rationale="shorter", answers={"helpful": {"x": 4, "y": 2}},
           confidence=0.75, cost=0.3, duration_ms=36800, guideline_version="v2", created_at="2026-11-21T10:00:00Z", source_id="s1"),
    Rating(rater="bob@example.org", verdict="tie"),
    Rating(rater="cem@example.org", verdict="skip", skip_reason="language"),
)  # fmt: skip
PAIR = RatedItem(item="1", prompt=PROMPT, replies=(Reply(id="x", text="Fine."), Reply(id="y", text="Well.")), ratings=RATINGS)  # fmt: skip
TRIPLE = RatedItem(
    item="2", prompt=PROMPT, replies=tuple(Reply(id=n, text=f"reply {n}") for n in "uvw"),
    ratings=(Rating(rater="ann@example.org", ranking=(("v",), ("u", "w"))),),
)  # fmt: skip


def put(database, file, *, name="in", **changes):
    """Import a file into a project of its own."""
    project = projects.find_project(database, name) or projects.create_project(database, name, votes_per_item=1, calibration_items=0)  # fmt: skip
    found = reading.read_source(file, seed=0, rejects_file=file.with_name("rejects.jsonl"), **changes)
    added = importing.add_items(database, project.id, found.items, ratings=found.ratings, source=file.name)
    return project, found, added


def outside(database, project):
    with database.read() as rows:
        return list(rated.rated_items(rows, project.id, with_outside=True))


WRITERS = {
    "fairlead_items": lambda path, items: write_jsonl(path, items),
    "label_studio": lambda path, items: write_json(path, [write_task(item) for item in items]),
    "argilla": lambda path, items: write_json(path, [write_record(item) for item in items]),
}


@pytest.mark.parametrize("tool", WRITERS)
def test_items_and_votes_of_another_tool_come_in_and_go_out_as_they_were(database, tmp_path, tool):
    file = tmp_path / ("in.jsonl" if tool == "fairlead_items" else "in.json")
    WRITERS[tool](file, [PAIR, TRIPLE])
    project, found, added = put(database, file)
    assert (added.num_items, added.outside.num_ratings, added.outside.num_raters) == (2, 4, 3) and not found.left_out
    pair, triple = sorted(outside(database, project), key=lambda item: len(item.replies))
    ids = {reply.text: reply.id for reply in pair.replies}
    is_turned = pair.replies[0].text != "Fine."
    by_rater = {rating.rater: rating for rating in pair.ratings}
    for number, want in enumerate(PAIR.ratings, start=1):
        got = by_rater[f"outside-{number:03d}"]
        for part in dataclasses.fields(Rating):
            expected = getattr(want, part.name)
            if part.name == "verdict" and is_turned and expected in ("a", "b"):
                expected = {"a": "b", "b": "a"}[expected]
            elif part.name == "strength" and is_turned:
                expected = -expected
            elif part.name == "swapped" and is_turned:
                expected = not expected
            elif part.name == "answers":
                expected = {
                    k: {ids[{"x": "Fine.", "y": "Well."}[r]]: n for r, n in v.items()} for k, v in expected.items()
                }
            elif part.name in ("rater", "meta", "source_id"):
                continue
            assert getattr(got, part.name) == expected, (want.rater, part.name)
        assert got.meta["outside"] == file.name
    texts = {reply.id: reply.text for reply in triple.replies}
    assert [{texts[name] for name in tied} for tied in triple.ratings[0].ranking] == [
        {"reply v"},
        {"reply u", "reply w"},
    ]


def test_outside_votes_are_never_counted_among_the_projects_and_go_out_only_when_asked(database, tmp_path, join):
    write_jsonl(tmp_path / "in.jsonl", [PAIR])
    project, _, _ = put(database, tmp_path / "in.jsonl")
    ann = join("Ann Real-Name")
    verdicts.submit(database, ann, take(database, ann, project).id, vote("left", rationale="mine"))
    with database.read() as rows:
        assert count_ratings(rows, project.id) == 3
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == 1
        (own,), (both,) = (rated.rated_items(rows, project.id, with_outside=flag) for flag in (False, True))
    assert [rating.rater for rating in own.ratings] == ["rater-001"] and len(both.ratings) == 4
    for flag in (False, True):
        rated.export_as(database, project, tmp_path / "out.jsonl", to="fairlead_items", with_outside=flag)
        text = (tmp_path / "out.jsonl").read_text()
        assert ("outside-001" in text) is flag and "example.org" not in text and "Real-Name" not in text


def test_the_same_file_twice_adds_no_vote_and_a_rater_is_known_again(database, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [PAIR])
    put(database, tmp_path / "in.jsonl")
    _, _, again = put(database, tmp_path / "in.jsonl")
    assert (again.num_items, again.num_known, again.outside.num_ratings, again.outside.num_known) == (0, 1, 0, 3)
    more = dataclasses.replace(PAIR, item="9", id="", prompt=(Message(role="user", content="And now?"),))
    write_jsonl(tmp_path / "more.jsonl", [more])
    project, _, added = put(database, tmp_path / "more.jsonl")
    assert added.outside.num_ratings == 3
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(OutsideRater).where(OutsideRater.project_id == project.id)) == 3  # fmt: skip


def test_a_vendors_table_comes_in_by_its_mapping(database, tmp_path):
    (tmp_path / "map.yaml").write_text(
        "prompt: q\nreplies: [one, two]\nratings:\n  - {rater: w1, verdict: p1, confidence: c1, cost: d1}\n  - {rater: w2, verdict: p2}\n"
        "verdicts: {A: a, B: b, same: tie}\nconfidence_max: 5\n"
    )
    (tmp_path / "v.csv").write_text(
        "q,one,two,w1,p1,c1,d1,w2,p2\nWhy?,yes,no,kim,A,4,0.3,lee,same\nHow?,so,,kim,B,1,0.3,lee,A\n"
    )
    project, found, added = put(database, tmp_path / "v.csv", mapping=read_mapping(tmp_path / "map.yaml"))
    assert (added.num_items, added.outside.num_ratings) == (1, 2) and found.left_out == {"rows: empty two": 1}
    (item,) = outside(database, project)
    kim = next(rating for rating in item.ratings if rating.rater == "outside-001")
    chosen = item.replies[0 if kim.verdict == "a" else 1].text
    assert (chosen, kim.confidence, kim.cost) == ("yes", 0.8, 0.3)


def test_trees_of_oasst_come_in(database, tmp_path):
    def node(text, role, rank=None, replies=()):
        return {"message_id": text, "text": text, "role": role, "rank": rank, "replies": list(replies), "lang": "en"}

    replies = [node(f"answer {i}", "assistant", i) for i in range(3)]
    write_jsonl(
        tmp_path / "t.jsonl",
        [{"message_tree_id": "t", "tree_state": "ready", "prompt": node("why?", "prompter", replies=replies)}],
    )
    _, _, pairs = put(database, tmp_path / "t.jsonl", name="pairs")
    _, _, group = put(database, tmp_path / "t.jsonl", name="group", group_size=3)
    assert (pairs.num_items, group.num_items) == (3, 1)


CRITERIA = tuple({"name": name, "question": f"How {name}?", "points": 5, "low": "not", "high": "very"}
                 for name in ("helpfulness", "correctness", "coherence"))  # fmt: skip


@pytest.fixture
def voted(database, join):
    """Eight pairs and two rankings, rated by three people with everything that a verdict can hold."""
    rules = projects.Rules(ties="allowed", both_bad=True, edits=True)
    made = projects.create_project(database, "voted", votes_per_item=3, calibration_items=0, rules=rules)
    from web_example import pairs

    importing.add_items(database, made.id, [*pairs(8), *sets(2, size=3)])
    for number, name in enumerate(("Ann", "Bob", "Cem")):
        actor = join(name)
        for i in range(10):
            assignment = take(database, actor, made)
            if len(assignment.shown) == 3:
                sent = vote("ranked", strength=0, ranking=((1,), (0, 2)) if number else ((0,), (1,), (2,)))
            else:
                choice = ("left", "right", "left", "tie", "left", "both_bad", "right", "skip", "left", "left")[
                    (i + number) % 10
                ]
                sent = vote(choice, rationale=f"=because {i}")
            verdicts.submit(database, actor, assignment.id, sent)
    return made


def test_every_format_holds_what_was_said(database, voted, tmp_path):
    """No format is written without votes, posterior, margin, weight and provenance beside; what it cannot hold is named."""
    with database.read() as rows:
        items = list(rated.rated_items(rows, voted.id))
    assert len(items) == 10 and sum(len(item.ratings) for item in items) == 30
    written = {}
    for to in TARGETS:
        file = tmp_path / f"{to}{rated.ENDINGS.get(to, '.jsonl')}"
        if to == "helpsteer2":
            with pytest.raises(DataError, match="no rating of helpfulness"):
                rated.export_as(database, voted, file, to=to)
            continue
        written[to] = rated.export_as(database, voted, file, to=to)
        assert all(path.stat().st_size for path in written[to].files)
    for to in ("trl", "hh", "ultrafeedback_binarized", "helpsteer2_preference", "helpsteer3", "fairlead"):
        rows_ = [row.values for row in read_rows(written[to].files[0])]
        assert rows_ and all({"p_chosen", "margin", "weight"} <= set(row) for row in rows_)
        if to != "fairlead":
            assert all({"n_votes", "agreement", "provenance"} <= set(row) for row in rows_)
    csv = tmp_path / "votes.csv"
    rated.export_as(database, voted, csv, to="votes")
    assert "'=because" in csv.read_text() and ",=because" not in csv.read_text()


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_preferences_come_back_field_by_field(database, voted, tmp_path, ending):
    rated.export_as(database, voted, tmp_path / "all.jsonl", to="fairlead")
    for to in ("trl", "hh", "ultrafeedback_binarized", "helpsteer2_preference", "helpsteer3", "fairlead"):
        rated.export_as(database, voted, tmp_path / f"{to}{ending}", to=to)
        with Rejects(tmp_path / "r.jsonl") as rejects:
            want = {p.id: p for p in read_preferences(tmp_path / "all.jsonl", rejects=rejects)}
            got = list(read_preferences(tmp_path / f"{to}{ending}", format=to, rejects=rejects))
        assert got and not rejects.total, to
        for preference in got:
            meta = {
                key: value for key, value in preference.meta.items() if value is not None
            }  # columns of a table are there in every row
            assert dataclasses.replace(preference, meta=meta) == want[preference.id], to


@pytest.mark.parametrize("to", ["fairlead_items", "label_studio", "argilla"])
def test_items_come_back_field_by_field(database, voted, tmp_path, to):
    with database.read() as rows:
        want = {item.item: item for item in rated.rated_items(rows, voted.id)}
    file = tmp_path / f"x{rated.ENDINGS.get(to, '.jsonl')}"
    rated.export_as(database, voted, file, to=to)
    with Rejects(tmp_path / "r.jsonl") as rejects:
        got = list(read_annotations(file, rejects=rejects))
    assert len(got) == 10 and not rejects.total
    for item in got:
        expected = want[item.item]
        assert (item.prompt, item.replies, item.slice, item.split, item.meta) == (
            expected.prompt, expected.replies, expected.slice, expected.split, expected.meta,
        )  # fmt: skip
        for one, other in zip(item.ratings, expected.ratings, strict=True):
            for part in dataclasses.fields(Rating):
                if part.name != "ranking" or len(item.replies) > 2:
                    assert getattr(one, part.name) == getattr(other, part.name), part.name


def test_attributes_of_helpsteer2(database, join, tmp_path):
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    ratings = tuple(
        Rating(rater=f"r{i}", verdict="a", strength=-1, answers={n: {"x": 4 - i, "y": 1} for n in names})
        for i in range(2)
    )
    write_jsonl(tmp_path / "in.jsonl", [dataclasses.replace(PAIR, ratings=ratings, id="")])
    project, _, _ = put(database, tmp_path / "in.jsonl")
    rated.export_as(database, project, tmp_path / "hs.jsonl", to="helpsteer2", with_outside=True)
    found = {row.values["response"]: row.values for row in read_rows(tmp_path / "hs.jsonl")}
    assert found["Fine."]["helpfulness"] == 4 and found["Fine."]["ratings"]["helpfulness"] == [
        4,
        3,
    ]  # 3.5 is rounded up
    assert (
        found["Well."]["verbosity"] == 1
        and found["Well."]["n_votes"] == 2
        and found["Fine."]["prompt"] == "How are you?"
    )
    with Rejects(tmp_path / "r.jsonl") as rejects:
        (pair,) = read_preferences(tmp_path / "hs.jsonl", format="helpsteer2", rejects=rejects)
    assert (pair.chosen, pair.rejected) == ("Fine.", "Well.")


def test_a_format_that_is_not_known_is_named_with_the_nearest(database, voted, tmp_path):
    with pytest.raises(ConfigError, match="label_studio"):
        rated.export_as(database, voted, tmp_path / "x", to="labelstudio")
    with pytest.raises(ConfigError, match="majority"):
        rated.export_as(database, voted, tmp_path / "x.jsonl", to="trl", method="majorty")
    empty = projects.create_project(database, "empty")
    with pytest.raises(DataError, match="no votes yet"):
        rated.export_as(database, empty, tmp_path / "x", to="trl")


GOOD = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(4)]
BAD_LINES = {
    "no JSON": (b'{"prompt": ', "not JSON"),
    "no object": (b"[1, 2]", "not an object"),
    "invalid UTF-8": (b'{"prompt": "\xff\xfe", "chosen": "a", "rejected": "b"}', "not UTF-8"),
    "a key twice": (b'{"prompt": "q", "chosen": "a", "chosen": "c", "rejected": "b"}', "not JSON, or with a key twice"),
    "a number that is none": (b'{"prompt": "q", "chosen": "a", "rejected": "b", "margin": NaN}', "a number that is none"),
    "deep nesting": (b'{"prompt": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deep"),
    "half a character": (b'{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}', "not JSON"),
    "an empty response": (b'{"prompt": "q", "chosen": "", "rejected": "b"}', "empty chosen"),
    "equal responses": (b'{"prompt": "q", "chosen": "b", "rejected": "b"}', "identical"),
    "a field that is missing": (b'{"prompt": "q", "chosen": "b"}', "rejected"),
    "20 MB in a line": (b'{"prompt": "q", "chosen": "' + b"x" * 20_000_000 + b'", "rejected": "b"}', "longer than 16 MB"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_listed_with_its_number_and_reason_and_the_rest_goes_in(database, tmp_path, name):
    line, words = BAD_LINES[name]
    lines = [json.dumps(row).encode() for row in GOOD]
    lines.insert(2, line)
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    _, found, added = put(database, tmp_path / "in.jsonl")
    assert added.num_items == 4 and sum(found.left_out.values()) == 1
    assert len(found.faults) == 1 and found.faults[0].startswith("line 3: ") and words in found.faults[0]
    kept = json.loads((tmp_path / "rejects.jsonl").read_text())
    assert kept["where"].endswith("in.jsonl:3") and words in kept["reason"] and "fairlead-import" not in kept["where"]


def test_several_faults_are_listed_together_also_in_a_packed_file(database, tmp_path):
    lines = [json.dumps(row).encode() for row in GOOD]
    bad = [BAD_LINES["no JSON"][0], BAD_LINES["an empty response"][0], BAD_LINES["invalid UTF-8"][0]]
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(b"\n".join([*bad, *lines])))
    _, found, added = put(database, tmp_path / "in.jsonl.gz")
    assert added.num_items == 4 and {fault.split(":")[0] for fault in found.faults} == {"line 1", "line 2", "line 3"}


ODD = {
    "NUL": ([{"prompt": "q", "chosen": "a\0b", "rejected": "c"}], "items with a NUL character"),
    "too long": ([{"prompt": "q", "chosen": "x" * 400_001, "rejected": "c"}], "items with a text beyond 400,000 characters"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_texts_that_cannot_be_shown_are_counted(database, tmp_path, name):
    rows, words = ODD[name]
    write_jsonl(tmp_path / "in.jsonl", [*GOOD, *rows])
    _, found, added = put(database, tmp_path / "in.jsonl")
    assert added.num_items == 4 and any(words in reason or "NUL" in reason for reason in found.left_out)


def test_duplicates_are_taken_once_and_counted(database, tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [*GOOD, *GOOD[:2]])
    _, found, added = put(database, tmp_path / "in.jsonl")
    assert added.num_items == 4 and found.repeats == 2


def test_turns_that_do_not_alternate_are_kept_as_the_models_saw_them(database, tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Are you there?"}]
    write_jsonl(tmp_path / "in.jsonl", [{"prompt": turns, "chosen": "Yes.", "rejected": "No."}, *GOOD])
    project, _, added = put(database, tmp_path / "in.jsonl")
    assert added.num_items == 5
    with database.read() as rows:
        items = rows.scalars(sa.select(Item).where(Item.project_id == project.id)).all()
        said = [[m.role for m in importing.texts_of(rows, item).prompt.messages] for item in items]
    assert ["user", "user"] in said


@pytest.mark.parametrize(("rating", "reason"), [
    (Rating(rater=" ", verdict="a"), "a rating without a rater"), (Rating(rater="x", verdict="a", strength=2), "contradict"),
    (Rating(rater="x", verdict="a", confidence=7), "confidence"), (Rating(rater="x", ranking=(("nobody",),)), "ranking does not name"),
    (Rating(rater="x", verdict="a", rationale="a\0b"), "NUL"),
])  # fmt: skip
def test_votes_that_cannot_be_are_listed_and_the_rest_goes_in(database, tmp_path, rating, reason):
    odd = dataclasses.replace(PAIR, item="odd", id="", prompt=(Message(role="user", content="odd"),), ratings=(rating,))
    write_jsonl(tmp_path / "in.jsonl", [PAIR, odd])
    _, found, added = put(database, tmp_path / "in.jsonl")
    assert added.outside.num_ratings == 3 and any(reason in why for why in found.left_out), found.left_out
    if found.faults:
        assert found.faults[0].startswith("line 2: ")


def test_a_file_of_which_nothing_can_be_used_is_an_error_that_names_it(database, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"\xff\n{\n")
    with pytest.raises(DataError, match=r"in\.jsonl") as refused:
        put(database, tmp_path / "in.jsonl")
    assert "fairlead-import" not in str(refused.value)
    with pytest.raises(DataError, match="absent"):
        put(database, tmp_path / "absent.jsonl")


def test_a_line_without_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(screening, "MAX_LINE", 1000)
    monkeypatch.setattr(screening, "_CHUNK", 100)
    (tmp_path / "x.jsonl").write_bytes(b'{"a": "' + b"x" * 50_000 + b'"}\n{"a": 1}\n' + b"y" * 5000)
    assert screening.screen(tmp_path / "x.jsonl") == [(1, "longer than 16 MB"), (3, "longer than 16 MB")]
