"""Hostile rows and useless files: a located DataError or a counted reject, never another exception, never a silent drop."""

import csv
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import Rejects, read_rows, write_jsonl, write_parquet
from fairlead.core.records import Label, Message, Preference, to_dict
from fairlead.formats import (
    FORMATS,
    detect_format,
    find_format,
    read_demonstrations,
    read_labels,
    read_preferences,
    read_prompts,
    read_steps,
    read_votes,
)

FIXTURES = Path(__file__).parents[2] / "fixtures" / "formats"
READERS = {
    "preferences": read_preferences,
    "demonstrations": read_demonstrations,
    "prompts": read_prompts,
    "steps": read_steps,
}


def nested(depth: int) -> Any:
    value: Any = "deep"
    for level in range(depth):
        value = [value] if level % 2 else {"replies": value}
    return value


MAX_SPOTS = 60  # of a tree every n-th place, or the test takes half a minute
HOSTILE = (
    None,
    True,
    -1,
    10**400,
    0.5,
    "",
    "  ",
    "text",
    [],
    {},
    [None],
    [[]],
    [{}],
    {"role": "user"},
    nested(100),
    nested(600),
)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place inside a row, breadth limited to the first two items of a list."""
    if path:
        yield path
    children = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(row: dict, path: tuple, value: Any) -> dict:
    copy = json.loads(json.dumps(row))
    target = copy
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return copy


def without(row: dict, path: tuple) -> dict:
    copy = json.loads(json.dumps(row))
    target = copy
    for key in path[:-1]:
        target = target[key]
    del target[path[-1]]
    return copy


def hostile_rows(name: str) -> list[dict]:
    good = [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text("utf-8").splitlines()]
    sample = good[:2]
    spots = [(row, path) for row in sample for path in places(row)]
    spots = spots[:: 1 + len(spots) // MAX_SPOTS]
    bad = [replaced(row, path, value) for row, path in spots for value in HOSTILE]
    bad += [without(row, path) for row, path in spots]
    return [*good, *bad, {}, {"": ""}]


KINDS = [(f.name, kind) for f in FORMATS for kind in READERS
         if kind == f.kind or kind in f.also or (kind == "prompts" and f.name not in ("votes", "trl_text"))
         or (f.neighbours is not None and f.neighbours.kind == kind)]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_hostile_rows_are_all_accounted_for(name, kind, tmp_path):
    rows = hostile_rows(name)
    path = tmp_path / "hostile.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        reading = READERS[kind](path, format=name, rejects=rejects)
        num_records = write_jsonl(tmp_path / "out.jsonl", reading)
    report = reading.report
    assert report.reconciles and report.rows == len(rows) and report.records == num_records
    assert sum(1 for _ in read_rows(tmp_path / "rejects.jsonl")) == sum(report.rejects.values()) > 0
    assert len(report.rejects) < 60, "reasons are fixed words, not values"
    for record in map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines()):
        if kind == "preferences":
            assert (
                record["chosen"].strip()
                and record["rejected"].strip()
                and record["chosen"].strip() != record["rejected"].strip()
            )
            assert record["prompt"][-1]["role"] != "assistant" and 0.5 <= record["p_chosen"] <= 1
        elif kind == "steps":
            assert all(step.strip() for step in record["steps"]) and all(0 <= label <= 1 for label in record["labels"])
            assert len(record["labels"]) == len(record["steps"]) - record["num_given"] > 0
        else:
            assert all(isinstance(m["content"], str) for m in record["messages"])


def test_a_tree_deeper_than_the_stack_is_read(tmp_path):
    """A path of 150 turns, each prompter with two ranked replies: 75 pairs."""
    node: dict[str, Any] = {"role": "assistant", "text": "end", "rank": 0, "replies": []}
    for depth in range(75):
        other = {"role": "assistant", "text": f"worse {depth}", "rank": 1, "replies": []}
        asked = {"role": "prompter", "text": f"q {depth}", "replies": [node, other]}
        node = {"role": "assistant", "text": f"a {depth}", "rank": 0, "replies": [asked]}
    write_jsonl(tmp_path / "tree.jsonl", [{"message_tree_id": "t", "prompt": node["replies"][0]}])
    assert len(list(read_preferences(tmp_path / "tree.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))) == 75


def pair(chosen: str, rejected: str) -> dict[str, Any]:
    return {"prompt": "Question?", "chosen": chosen, "rejected": rejected}


def read_all(rows: list[dict[str, Any]], tmp_path: Path, **options: Any) -> list:
    write_jsonl(tmp_path / "in.jsonl", rows)
    return list(read_preferences(tmp_path / "in.jsonl", rejects=Rejects(tmp_path / "r.jsonl"), **options))


def test_all_rows_unusable_says_the_top_reason(tmp_path):
    with pytest.raises(DataError, match=r"gave no usable row, most often because: empty chosen \(2 of 3 rows\)"):
        read_all([pair("", "b"), pair(" ", "b"), pair("a", "")], tmp_path)


def test_only_identical_pairs_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds only identical pairs"):
        read_all([pair("a", "a"), pair("b", "b ")], tmp_path)


def test_transcripts_that_differ_only_in_outer_whitespace_are_identical(tmp_path):
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant:  Hello. "}
    with pytest.raises(DataError, match="holds only identical pairs"):
        read_all([row], tmp_path)


def test_one_pair_repeated_is_an_error_but_two_pairs_are_not(tmp_path):
    with pytest.raises(DataError, match="holds one pair 3 times"):
        read_all([pair("a", "b")] * 3, tmp_path)
    assert len(read_all([pair("a", "b")] * 3 + [pair("c", "d")], tmp_path)) == 4
    assert len(read_all([pair("a", "b")], tmp_path)) == 1


def test_unknown_columns_are_listed_with_the_known_formats(tmp_path):
    with pytest.raises(DataError, match=r"columns found: answer, question.*one of fairlead.*format: NAME"):
        read_all([{"question": "1+1", "answer": "2"}], tmp_path)


def test_two_formats_in_one_file_are_ambiguous(tmp_path):
    with pytest.raises(DataError, match="fits several formats: trl, alpaca"):
        read_all([pair("a", "b"), {"instruction": "a", "output": "b"}], tmp_path)


def test_unknown_format_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean nectar"):
        find_format("nectarine")


@pytest.mark.parametrize(
    ("name", "reader"), [("alpaca", read_preferences), ("hh", read_demonstrations), ("votes", read_prompts)]
)
def test_a_file_of_another_kind_is_refused_before_reading(name, reader, tmp_path):
    path = FIXTURES / ("votes.csv" if name == "votes" else f"{name}.jsonl")
    with pytest.raises(DataError, match=f"is in format {name}, which holds"):
        reader(path, rejects=Rejects(tmp_path / "r.jsonl"))


def test_reading_is_a_stream(tmp_path):
    """The last line is damaged, and the first record arrives before anyone notices."""
    write_jsonl(tmp_path / "in.jsonl", [pair(f"a{i}", "b") for i in range(200)])
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("{broken\n")
    reading = read_preferences(tmp_path / "in.jsonl", rejects=Rejects(tmp_path / "r.jsonl"))
    assert next(reading).chosen == "a0" and reading.report.rows == 1
    with pytest.raises(DataError, match=r"in\.jsonl:201"):
        list(reading)


def test_csv_parquet_and_gzip_read_alike(tmp_path):
    rows = [pair("a", "b"), pair("c", "d")]
    (tmp_path / "in.csv").write_text("prompt,chosen,rejected\nQuestion?,a,b\nQuestion?,c,d\n")
    write_parquet(tmp_path / "in.parquet", rows)
    write_jsonl(tmp_path / "in.jsonl.gz", rows)
    for name in ("in.csv", "in.parquet", "in.jsonl.gz"):
        found = list(read_preferences(tmp_path / name, rejects=Rejects(tmp_path / "r.jsonl")))
        assert [(p.chosen, p.rejected) for p in found] == [("a", "b"), ("c", "d")]
        assert detect_format(tmp_path / name).name == "trl"


def test_votes_read_as_text_whatever_the_file(tmp_path):
    assert read_votes(FIXTURES / "votes.csv") == [("q1", "ann", "a"), ("q1", "bob", "b"), ("q2", "ann", "a")]
    rows = [{"question": 1, "worker": "ann", "answer": 3.0}, {"question": 1, "worker": "bob", "answer": True}]
    write_jsonl(tmp_path / "v.jsonl", rows)
    found = read_votes(tmp_path / "v.jsonl", item="question", rater="worker", label="answer")
    assert found == [("1", "ann", "3"), ("1", "bob", "true")]


def test_votes_name_the_missing_column_and_the_nearest():
    with pytest.raises(
        DataError, match=r"has no column ratr \(did you mean rater\?\); found item, rater, label.*rater=NAME"
    ):
        read_votes(FIXTURES / "votes.csv", rater="ratr")


def test_a_second_vote_names_both_rows(tmp_path):
    (tmp_path / "v.csv").write_text("item,rater,label\nq1,ann,a\nq2,ann,a\nq1,ann,a\n")
    with pytest.raises(DataError, match=r"v\.csv:4 is a second vote of rater ann on item q1, after .*v\.csv:2"):
        read_votes(tmp_path / "v.csv")


@pytest.mark.parametrize("label", ["", "  ", None, [], {"a": 1}])
def test_votes_without_a_usable_label_are_located(label, tmp_path):
    path = tmp_path / "v.jsonl"
    path.write_text(json.dumps({"item": "q", "rater": "r", "label": label}) + "\n")
    with pytest.raises(DataError, match=r"v\.jsonl:1\.label.* is "):
        read_votes(path)


def as_json(cell: Any) -> Any:
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, (list, dict)) else cell


def as_python(cell: Any) -> Any:
    """What pandas writes into a CSV file."""
    return str(cell) if isinstance(cell, (list, dict)) else cell


@pytest.mark.parametrize("write_cell", [as_json, as_python])
@pytest.mark.parametrize("name", [f.name for f in FORMATS if f.kind in READERS and not f.is_own])
def test_nested_cells_of_a_table_read_like_json(name, write_cell, tmp_path):
    """Records agree with those of the JSONL file, but for the row and the meta that a table has only as text."""
    rows = [row.values for row in read_rows(FIXTURES / f"{name}.jsonl")]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows([write_cell(row.get(column, "")) for column in columns] for row in rows)
    read = READERS[find_format(name).kind]
    found = [
        list(read(path, rejects=Rejects(tmp_path / "r.jsonl"), format=name))
        for path in (FIXTURES / f"{name}.jsonl", tmp_path / f"{name}.csv")
    ]
    first, second = ([dataclasses.replace(r, meta={}, source="", id="") for r in records] for records in found)
    assert first == second
    if not find_format(name).is_named_only:
        assert detect_format(tmp_path / f"{name}.csv").name == name


def test_messages_that_cannot_be_parsed_are_rejected_not_read_as_text(tmp_path):
    """The end was cut off."""
    broken = "[{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hel"
    with pytest.raises(DataError, match="chosen is a list of messages written as text"):
        read_all([{"prompt": "Hi", "chosen": broken, "rejected": "No."}], tmp_path)


def test_a_completion_that_is_json_stays_text(tmp_path):
    rows = [pair('{"answer": 4}', "[1, 2]"), pair(r"{'\d': '\alpha'}", r"{\beta} {")]
    assert [(p.chosen, p.rejected) for p in read_all(rows, tmp_path)] == [
        (row["chosen"], row["rejected"]) for row in rows
    ]


def test_an_empty_cell_is_no_margin(tmp_path):
    (tmp_path / "in.csv").write_text("prompt,chosen,rejected,margin\nQ?,a,b,\nQ?,c,d,0.5\n")
    found = list(read_preferences(tmp_path / "in.csv", rejects=Rejects(tmp_path / "r.jsonl")))
    assert [p.margin for p in found] == [0.0, 0.5]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("p_chosen", 1.4, "p_chosen is not in [0.5, 1]"),
        ("p_chosen", 0.2, "p_chosen is not in [0.5, 1]"),
        ("p_chosen", math.nan, "not a Preference (p_chosen)"),
        ("margin", -math.inf, "not a Preference (margin)"),
        ("weight", -0.5, "weight is negative"),
        ("weight", math.nan, "not a Preference (weight)"),
    ],
)  # fmt: skip
def test_numbers_out_of_range_reject_their_row(tmp_path, field, value, reason):
    """In Parquet, which has NaN and infinity."""
    names = ("prompt", "chosen", "rejected", "p_chosen", "margin", "weight", "schema")
    rows = [{name: row[name] for name in names} for row in (to_dict(own_preference(i)) for i in range(4))]
    rows[3][field] = value
    write_parquet(tmp_path / "in.parquet", rows)
    reading = read_preferences(tmp_path / "in.parquet", rejects=Rejects(tmp_path / "r.jsonl"))
    assert len(list(reading)) == 3 and reading.report.rejects == {reason: 1}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999"])
def test_numbers_that_json_does_not_have_refuse_the_file_with_their_line(tmp_path, text):
    row = json.dumps({**to_dict(own_preference(9)), "weight": "VALUE"}).replace('"VALUE"', text)
    (tmp_path / "in.jsonl").write_text(json.dumps(to_dict(own_preference(0))) + "\n" + row + "\n")
    with pytest.raises(DataError, match=rf"in.jsonl:2=.*{text} is "):
        list(read_preferences(tmp_path / "in.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))


def own_preference(number):
    prompt = (Message(role="user", content=f"Question {number}?"),)
    return Preference(prompt=prompt, chosen="Yes.", rejected=f"No, {number}.")


def test_a_label_of_negative_weight_is_rejected(tmp_path):
    prompt = (Message(role="user", content="Question?"),)
    rows = [to_dict(Label(prompt=prompt, completion="Yes.", is_good=True, weight=w)) for w in (1.0, -1.0, 0.0)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    reading = read_labels(tmp_path / "in.jsonl", rejects=Rejects(tmp_path / "r.jsonl"))
    assert [row.weight for row in reading] == [1.0, 0.0] and reading.report.rejects == {"weight is negative": 1}


def test_json_lines_under_the_name_json(tmp_path):
    lines = [json.dumps(pair("a", "b")), json.dumps(pair("c\u2028d", "e"), ensure_ascii=False)]
    for text in ("\n".join(lines), "\ufeff\r\n" + "\r\n".join(lines) + "\r\n"):
        (tmp_path / "in.json").write_bytes(text.encode())
        found = list(read_preferences(tmp_path / "in.json", rejects=Rejects(tmp_path / "r.jsonl")))
        assert [p.chosen for p in found] == ["a", "c\u2028d"]


def test_a_key_that_stands_twice_is_located(tmp_path):
    (tmp_path / "in.jsonl").write_text(
        json.dumps(pair("a", "b")) + '\n{"prompt": "q", "chosen": "a", "chosen": "z", "rejected": "b"}\n'
    )
    with pytest.raises(DataError, match=r"in\.jsonl:2.*chosen stands twice"):
        list(read_preferences(tmp_path / "in.jsonl", rejects=Rejects(tmp_path / "r.jsonl"), format="trl"))


@pytest.mark.parametrize("between", [" ", "\n "])
def test_printed_arrays_of_turns_are_read(between, tmp_path):
    """numpy prints rows without commas, nested arrays by name, and missing numbers as nan."""
    reply = "{'content': '%s } {', 'role': 'assistant', 'score': nan, 'n': array([1], dtype=object)}"
    shown = "[{'content': 'Why?', 'role': 'user'}" + between + reply + "]"
    (found,) = read_all([{"prompt": "Why?", "chosen": shown % "So.", "rejected": shown % "No."}], tmp_path)
    assert (found.prompt[0].content, found.chosen, found.rejected) == ("Why?", "So. } {", "No. } {")


def test_a_cell_is_never_run(tmp_path):
    cell = "[{'role': 'user', 'content': __import__('os').system('touch ran')}]"
    with pytest.raises(DataError, match="chosen is a list of messages written as text"):
        read_all([{"prompt": "q", "chosen": cell, "rejected": "b"}], tmp_path)
