"""Annotation tools: every field there and back, the exact shapes of other tools, and hostile files."""

import dataclasses
import gzip
import json

import pytest

from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import Rejects, Row, read_rows, write_csv, write_json, write_jsonl, write_text
from fairlead.core.records import Message, from_dict, to_dict
from fairlead.formats import detect_format, read_annotations, read_mapping, read_preferences, read_prompts
from fairlead.formats.annotation_checks import MAX_CHARS, has_alternating_turns
from fairlead.formats.argilla import read_record, write_record
from fairlead.formats.label_studio import label_config, min_row, read_min, read_task, write_task

PROMPT = (Message(role="system", content="Be brief."), Message(role="user", content="How are you?"))
PAIR = RatedItem(
    item="pair-1", prompt=PROMPT, replies=(Reply(id="a", text="Fine.", model="m1"), Reply(id="b", text="Well, <b>thanks</b>!", model="m2")),
    slice="chat", source="pilot", split="heldout", meta={"batch": 3},
    ratings=(
        Rating(rater="ann", verdict="a", strength=-2, swapped=True, rationale="shorter", answers={"helpful": 4, "tags": ["calm"], "why": "tone"},
               confidence=0.75, cost=0.3, duration_ms=36800, guideline_version="v2", created_at="2026-11-21T10:00:00Z", source_id="s1",
               edits={"b": "Well, thanks."}, meta={"device": "phone"}),
        Rating(rater="bob", verdict="tie", is_anchor=True, answers={"helpful": {"a": 4, "b": 2.5}}),
        Rating(rater="cem", verdict="both_bad", swapped=True),
        Rating(rater="dan", verdict="skip", skip_reason="language"),
        Rating(rater="judge-1", rater_kind="judge", verdict="b", strength=1, confidence=0.6),
    ),
)  # fmt: skip
TRIPLE = RatedItem(
    item="7", prompt=PROMPT[1:], replies=tuple(Reply(id=n, text=f"reply {n}") for n in ("x", "y", "z")),
    ratings=(Rating(rater="ann", ranking=(("y",), ("x",), ("z",))), Rating(rater="bob", ranking=(("x", "z"), ("y",)), answers={"fluent": 3})),
)  # fmt: skip


def _same(found: RatedItem, expected: RatedItem, *, without=()):
    """Every field of every rating; ids of replies where the tool has a place for them."""
    for name in ("prompt", "item", "slice", "source", "split", "meta", "replies"):
        assert getattr(found, name) == getattr(expected, name), name
    assert [r.rater for r in found.ratings] == [r.rater for r in expected.ratings]
    for got, want in zip(found.ratings, expected.ratings, strict=True):
        for part in dataclasses.fields(Rating):
            if part.name not in without:
                assert getattr(got, part.name) == getattr(want, part.name), (want.rater, part.name)


def _as_json(value):
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("item", [PAIR, TRIPLE], ids=["pair", "triple"])
def test_label_studio_there_and_back_field_by_field(item):
    (found,) = read_task(Row("x", 1, _as_json(write_task(item))))
    _same(found, _normal(item))


@pytest.mark.parametrize("item", [PAIR, TRIPLE], ids=["pair", "triple"])
def test_json_min_there_and_back_but_for_what_it_leaves_out(item):
    """JSON_MIN has no cancelled annotations and no predictions; the rest comes back."""
    task = write_task(item) | {"id": 1}
    rows = [min_row(task, a) for a in task["annotations"] if not a["was_cancelled"]]
    (found,) = read_min(Row("x", 1, {"rows": _as_json(rows)}))
    kept = tuple(r for r in item.ratings if r.verdict != "skip" and r.rater_kind != "judge")
    _same(found, _normal(dataclasses.replace(item, ratings=kept, id="")))


@pytest.mark.parametrize("item", [PAIR, TRIPLE], ids=["pair", "triple"])
def test_argilla_there_and_back_field_by_field(item):
    (found,) = read_record(Row("x", 1, _as_json(write_record(item))))
    _same(found, _normal(item))


def _normal(item):
    """As JSON has it: a list of labels is a list."""
    return from_dict(RatedItem, _as_json(to_dict(item)))


@pytest.mark.parametrize("item", [PAIR, TRIPLE], ids=["pair", "triple"])
def test_own_items_there_and_back(tmp_path, item):
    write_jsonl(tmp_path / "items.jsonl", [item, dataclasses.replace(item, item="other", id="")])
    assert detect_format(tmp_path / "items.jsonl").name == "fairlead_items"
    found = list(read_annotations(tmp_path / "items.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert found[0] == _normal(item)


def test_label_studio_as_its_own_export_has_it():
    """Shapes of the study: to_name equals from_name, left follows answer1, cancelled is a skip, completed_by a number or an object."""
    task = {
        "id": 17, "inner_id": 1, "meta": {}, "data": {"prompt": "Hi", "answer1": "Hello", "answer2": "Go"},
        "annotations": [
            {"id": 1, "completed_by": 3, "was_cancelled": False, "lead_time": 12.5, "created_at": "2026-11-01T00:00:00Z",
             "result": [{"id": "Prs1iTKZzp", "from_name": "pw", "to_name": "pw", "type": "pairwise", "value": {"selected": "right"}},
                        {"from_name": "q", "to_name": "answer1,answer2", "type": "rating", "value": {"rating": 4}},
                        {"from_name": "flags", "to_name": "prompt", "type": "choices", "value": {"choices": ["rude"]}},
                        {"from_name": "note", "to_name": "prompt", "type": "textarea", "value": {"text": ["one", "two"]}}]},
            {"id": 2, "completed_by": {"id": 4, "email": "a@example.org"}, "was_cancelled": True, "result": []},
            {"id": 3, "completed_by": 5, "result": [{"from_name": "pw", "to_name": "pw", "type": "pairwise", "value": {"selected": "middle"}}]},
        ],
        "predictions": [{"model_version": "gpt", "score": 0.8, "result": [
            {"from_name": "pw", "to_name": "pw", "type": "pairwise", "value": {"selected": "left"}}]}],
    }  # fmt: skip
    item, fault = read_task(Row("x", 1, task))
    assert [(r.rater, r.verdict, r.duration_ms, r.rater_kind) for r in item.ratings] == [
        ("3", "b", 12500, "human"), ("a@example.org", "skip", None, "human"), ("gpt", "a", None, "judge")]  # fmt: skip
    assert item.ratings[0].answers == {"q": 4.0, "flags": ["rude"], "note": "one\ntwo"}
    assert item.ratings[2].confidence == 0.8
    assert fault.reason == "rating: pairwise selects neither left nor right"
    assert (item.item, item.replies[1].text) == ("17", "Go")


def test_rankers_with_and_without_buckets():
    def ranked(value):
        data = {"prompt": "Hi", "items": [{"id": n, "title": n, "body": f"text {n}"} for n in "pqr"]}
        result = [{"from_name": "rank", "to_name": "answers", "type": "ranker", "value": {"ranker": value}}]
        (item,) = read_task(Row("x", 1, {"data": data, "annotations": [{"result": result}]}))
        return item.ratings[0].ranking

    assert ranked({"rank": ["q", "p", "r"]}) == (("q",), ("p",), ("r",))
    assert ranked({"good": ["q", "p"], "bad": ["r"], "_": []}) == (("q", "p"), ("r",))
    assert ranked({"good": ["q"], "_": ["p", "r"]}) == (("q",),)


def test_argilla_as_rest_gives_it_keeps_ties():
    def ranks(first, second):
        return [{"value": "response_1", "rank": first}, {"value": "response_2", "rank": second}]

    record = {
        "id": "r1", "status": "completed", "external_id": None, "metadata": {"topic": "x"},
        "fields": {"chat": [{"role": "user", "content": "Hi"}], "response_1": "Hello", "response_2": "Go"},
        "responses": [
            {"user_id": "u1", "status": "submitted", "values": {"preference": {"value": ranks(1, 1)}}},
            {"user_id": "u2", "status": "submitted", "values": {"preference": {"value": ranks(2, 1)},
                                                                "quality": {"value": 4}}},
            {"user_id": "u3", "status": "discarded", "values": {}},
            {"user_id": "u4", "status": "draft", "values": {}},
        ],
        "suggestions": [{"question": "quality", "value": 5, "agent": "judge", "score": 0.9}],
    }  # fmt: skip
    item, draft = read_record(Row("x", 1, record))
    assert [(r.rater, r.verdict) for r in item.ratings] == [("u1", "tie"), ("u2", "b"), ("u3", "skip"), ("judge", None)]
    assert item.ratings[1].answers == {"quality": 4}
    assert (draft.reason, draft.is_fault) == ("rating: a draft", False)
    record["responses"] = {"preference": [{"value": ["response_1", "response_2"], "user_id": "u1"}]}
    with pytest.raises(Exception, match="SDK's, which loses ranks and ties"):
        read_record(Row("x", 1, record))


MAPPING = """
item: task
prompt: question
replies: [ans_a, ans_b]
slice: topic
ratings:
  - {rater: w1, verdict: v1, confidence: c1, cost: p1}
  - {rater: w2, verdict: v2, confidence: c2, cost: p2, duration_s: d2}
verdicts: {1: a, 2: b, same: tie}
confidence_max: 5
"""


def test_a_vendors_table_with_several_raters_a_row(tmp_path):
    write_text(tmp_path / "m.yaml", MAPPING)
    write_text(tmp_path / "v.csv", "task,question,ans_a,ans_b,topic,w1,v1,c1,p1,w2,v2,c2,p2,d2\n"
               "t1,Hi,Hello,Go,chat,ann,1,5,0.25,bob,same,2,0.25,12.5\n"
               "t1,Hi,Hello,Go,chat,cem,2,4,0.30,,,,,\n"
               "t2,Hi,,Go,chat,ann,1,5,0.25,bob,2,2,0.25,1\n"
               "t3,Ho,Hello,Go,chat,ann,9,5,0.25,bob,2,2,0.25,1\n")  # fmt: skip
    with Rejects(tmp_path / "r.jsonl") as rejects:
        reading = read_annotations(tmp_path / "v.csv", columns=read_mapping(tmp_path / "m.yaml"), rejects=rejects)
        first, second = list(reading)
    assert [(r.rater, r.verdict, r.confidence, r.cost, r.duration_ms) for r in first.ratings] == [
        ("ann", "a", 1.0, 0.25, None), ("bob", "tie", 0.4, 0.25, 12500), ("cem", "b", 0.8, 0.30, None)]  # fmt: skip
    assert (first.item, first.slice, second.item, len(second.ratings)) == ("t1", "chat", "t3", 1)
    assert rejects.first(1) == [(f"{tmp_path / 'v.csv'}:4", "empty ans_a")]
    assert reading.report.left_out == {
        "rating: no verdict in the row": 1,
        "rating: a verdict that the mapping does not know": 1,
    }
    assert reading.report.reconciles


def test_a_vendors_json_with_a_list_of_ratings(tmp_path):
    write_text(
        tmp_path / "m.yaml", "prompt: q\nreplies: [x, y, z]\nlist: labels\nratings: [{rater: who, verdict: pick}]\n"
    )
    write_json(tmp_path / "v.json", [{"q": "Hi", "x": "1", "y": "2", "z": "3", "labels": [{"who": 7, "pick": "a"}]}])
    (item,) = read_annotations(
        tmp_path / "v.json", columns=read_mapping(tmp_path / "m.yaml"), rejects=Rejects(tmp_path / "r.jsonl")
    )
    assert [(r.rater, r.verdict) for r in item.ratings] == [("7", "a")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: q\nreplies: [x]\nratings: [{rater: w, verdict: v}]", r"replies=1 columns; expected 2 to 9"),
        ("prompt: q\nreplied: [x, y]", r"replied is not known \(did you mean replies\?\)"),
        ("prompt: q\nreplies: [x, y]\nratings: [{rater: w}]", "lacks rater or verdict"),
        ("prompt: q\nreplies: [x, y]\nratings: [{rater: w, verdict: v, sure: c}]", "sure=c is not known"),
        ("prompt: q\nreplies: [x, y]\nratings: [{rater: w, verdict: v}]\nverdicts: {A: left}", "is no verdict"),
        ("- 1", "is not an object"),
        ("prompt: q\nreplies: [x, y]\nratings: [{rater: w, verdict: v}]\nverdicts: {null: a}", "is empty"),
    ],
)
def test_mappings_that_are_wrong_say_where(tmp_path, text, message):
    write_text(tmp_path / "m.yaml", text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(tmp_path / "m.yaml")


def test_recipes_read_preferences_and_prompts_of_annotation_files(tmp_path):
    write_jsonl(tmp_path / "tasks.jsonl", [write_task(PAIR), write_task(TRIPLE)])
    found = list(read_preferences(tmp_path / "tasks.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert len(found) == 3  # of the ranking y and x have one mean rank, and z is behind both
    assert (found[0].num_votes, found[0].p_chosen, found[0].chosen) == (
        4,
        0.5,
        "Fine.",
    )  # a, tie, both bad, and the judge's b
    assert {p.source for p in found} == {"tasks.jsonl"}
    assert len(list(read_prompts(tmp_path / "tasks.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))) == 2


def test_the_interface_shows_what_tasks_hold_and_escapes_names():
    nasty = dataclasses.replace(
        PAIR, ratings=(Rating(rater="x", verdict="a", answers={'a"><script>': ["<i>"]}),), id=""
    )
    config = label_config([nasty])
    assert "<script>" not in config
    assert "&lt;i&gt;" in config
    assert '<Pairwise name="preference" toName="answer1,answer2"/>' in config
    assert "<Ranker" in label_config([TRIPLE])


def _rejected(tmp_path, row, name="x.jsonl"):
    write_jsonl(tmp_path / name, [row, write_task(PAIR)])
    with Rejects(tmp_path / "r.jsonl") as rejects:
        found = list(read_annotations(tmp_path / name, format="label_studio", rejects=rejects))
    assert len(found) == 1
    return rejects.first(1)[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"prompt": "Hi", "answer1": "", "answer2": "Go"}, "empty answer1"),
        ({"prompt": "Hi", "answer1": "same", "answer2": " same "}, "all replies are identical"),
        ({"prompt": " ", "answer1": "x", "answer2": "y"}, "empty prompt"),
        ({"prompt": "Hi", "answer1": "x\x00y", "answer2": "z"}, "a text holds NUL, which is no character"),
        (
            {"prompt": "Hi", "answer1": "x" * (MAX_CHARS + 1), "answer2": "z"},
            "a text is longer than 1,000,000 characters",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x"}], "answer1": "x", "answer2": "y"},
            "prompt ends with an assistant turn",
        ),
        (
            {"messages": [{"role": "wizard", "content": "x"}], "answer1": "x", "answer2": "y"},
            "messages has an unknown role",
        ),
        ({"answer1": "x", "answer2": "y"}, "no prompt in data"),
        ({"prompt": "Hi"}, "no replies in data"),
        ({"prompt": "Hi", "answers": [{"id": str(i), "body": str(i)} for i in range(10)]}, "more than 9 replies"),
        ({"prompt": "Hi", "answers": [{"id": "a", "body": "1"}, {"id": "a", "body": "2"}]}, "two replies have one id"),
    ],
)
def test_rows_that_cannot_be_shown_are_listed_with_place_and_reason(tmp_path, data, reason):
    assert _rejected(tmp_path, {"data": data, "annotations": []}) == (f"{tmp_path / 'x.jsonl'}:1", reason)


def test_contradictions_of_a_rating_are_refused(tmp_path):
    task = _as_json(
        write_task(dataclasses.replace(PAIR, ratings=(Rating(rater="x", verdict="a", strength=-1),), id=""))
    )
    for result in task["annotations"][0]["result"]:
        if result["from_name"] == "strength":
            result["value"]["choices"] = ["3"]
    assert _rejected(tmp_path, task)[1] == "verdict and strength contradict each other"
    assert (
        _rejected(
            tmp_path, {**task, "annotations": [*task["annotations"][:0], *[{"completed_by": 1, "result": []}] * 2]}
        )[1]
        == "a rater rated the item twice"
    )


def test_deep_json_is_refused_before_anything_walks_it(tmp_path):
    deep = "[" * 5000 + "]" * 5000
    write_text(tmp_path / "deep.jsonl", f'{{"data": {{"prompt": {deep}}}, "annotations": []}}\n')
    with pytest.raises(DataError, match="is not JSON"):
        list(read_annotations(tmp_path / "deep.jsonl", format="label_studio", rejects=Rejects(tmp_path / "r.jsonl")))
    shallow = "[" * 300 + "]" * 300
    row = json.loads(
        f'{{"data": {{"prompt": "Hi", "answer1": "x", "answer2": "y", "deep": {shallow}}}, "annotations": []}}'
    )
    assert _rejected(tmp_path, row)[1] == "nested too deep"


def test_gzip_bombs_archives_and_bad_text_stop_with_a_clear_message(tmp_path, monkeypatch):
    from fairlead.core import untrusted

    monkeypatch.setattr(untrusted, "FREE_BYTES", 2**16)
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb") as file:
        for _ in range(200):
            file.write(b'{"a": "' + b"0" * 100_000 + b'"}\n')
    with pytest.raises(DataError, match="grows to more than 200 times its size"):
        list(read_rows(tmp_path / "bomb.jsonl.gz"))
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="is an archive"):
        list(read_rows(tmp_path / "x.zip"))
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2 is not UTF-8"):
        list(read_rows(tmp_path / "x.jsonl"))


def test_one_json_value_may_not_fill_the_memory(tmp_path, monkeypatch):
    from fairlead.core import io

    monkeypatch.setattr(io, "MAX_JSON_CHARS", 100)
    write_json(tmp_path / "x.json", [{"a": "y" * 200}])
    with pytest.raises(DataError, match=r"more than 100 characters.*jsonl"):
        list(read_rows(tmp_path / "x.json"))


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+x",
        "-cmd|' /C calc'!A0",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "'=x",
        "''",
        "plain",
        "it's",
        "-3",
        "+2.5",
        "",
        "- 3",
    ],
)
def test_formula_cells_are_escaped_and_come_back(tmp_path, text):
    from fairlead.core.untrusted import plain_cell, safe_cell

    write_csv(tmp_path / "x.csv", [{"a": text, "b": 1}], columns=["a", "b"])
    (row,) = read_rows(tmp_path / "x.csv")
    assert not row.values["a"].startswith(("=", "@", "\t", "\r")) and (
        row.values["a"][:1] not in "+-" or text in ("-3", "+2.5", "")
    )
    assert plain_cell(safe_cell(text)) == text


def test_turns_that_do_not_alternate_are_seen():
    assert has_alternating_turns(PROMPT)
    assert not has_alternating_turns((*PROMPT, Message(role="user", content="again")))
