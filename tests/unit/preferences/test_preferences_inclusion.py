"""Where pairs were chosen actively: arm, probability and weight of inclusion in every format that is written, and read back."""

import dataclasses
import json

import pytest

from fairlead.core.annotations import INCLUSION, RatedItem, Rating, Reply, inclusion_in
from fairlead.core.io import Rejects, read_rows
from fairlead.core.records import Message
from fairlead.formats import read_annotations, read_preferences
from fairlead.formats.helpsteer import ATTRIBUTES
from fairlead.preferences.item_export import ITEM_TARGETS, PREFERENCE_TARGETS, TUNING_TARGETS, write_rated

WAYS = (
    {"arm": "active", "inclusion": 0.4, "inclusion_weight": 2.5},
    {"arm": "outside", "inclusion": None, "inclusion_weight": None},
    {},
)
BLANK = dict.fromkeys(INCLUSION)


def _items():
    """A pair of every way in, rated by the five attributes of HelpSteer2 too, and a ranking that was chosen."""
    found = []
    for i, way in enumerate((*WAYS, WAYS[0])):
        replies = tuple(Reply(id=name, text=f"{name} of {i}") for name in ("xyz" if i == 3 else "ab"))
        answers = {name: {reply.id: 4 - k for k, reply in enumerate(replies)} for name in ATTRIBUTES}
        said = {"ranking": tuple((reply.id,) for reply in replies)} if i == 3 else {"verdict": "a"}
        ratings = tuple(Rating(rater=rater, answers=answers, source_id=f"{i}-{rater}", **said) for rater in "rs")
        found.append(RatedItem(item=f"p{i}", prompt=(Message(role="user", content=f"Question {i}?"),), replies=replies, ratings=ratings,
                               meta={"use": "production", **way}))  # fmt: skip
    return found


def _way_of(prompt):
    return (*WAYS, WAYS[0])[int(prompt.removeprefix("Question ").removesuffix("?"))]


def _read(path, tmp_path):
    return list(read_preferences(path, rejects=Rejects(tmp_path / "r.jsonl")))


@pytest.mark.parametrize("to", PREFERENCE_TARGETS)
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_aggregated_pairs_have_columns_and_come_back(tmp_path, to, ending):
    """Two of three pairs were chosen, and the three of the ranking: all rows have the columns, empty where nothing was chosen."""
    path = tmp_path / f"out{ending}"
    write_rated(path, _items(), to=to, method="majority")
    found = list(read_preferences(path, format=to, rejects=Rejects(tmp_path / "r.jsonl")))
    assert len(found) == 6
    assert [inclusion_in(p.meta) for p in found] == [_way_of(p.prompt[0].content) for p in found]
    assert {p.weight for p in found} == {1.0}  # the weight of a loss is another thing
    if to != "fairlead":
        rows = [row.values for row in read_rows(path)]
        want = [{**BLANK, **_way_of(p.prompt[0].content)} for p in found]
        assert [{name: row[name] for name in INCLUSION} for row in rows] == want


def test_rows_without_chosen_pairs_have_no_such_columns(tmp_path):
    write_rated(tmp_path / "out.jsonl", [_items()[2]], to="trl", method="majority")
    (row,) = read_rows(tmp_path / "out.jsonl")
    assert not set(INCLUSION) & set(row.values)


@pytest.mark.parametrize("to", ["fairlead_items", "label_studio", "label_studio_min", "argilla"])
def test_rated_items_come_back(tmp_path, to):
    path = tmp_path / "out.jsonl"
    write_rated(path, _items(), to=to)
    found = list(read_annotations(path, rejects=Rejects(tmp_path / "r.jsonl")))
    assert [inclusion_in(item.meta) for item in found] == [*WAYS, WAYS[0]]
    as_pairs = _read(path, tmp_path)  # the same file as preferences of a recipe
    assert [inclusion_in(p.meta) for p in as_pairs] == [*WAYS, *[WAYS[0]] * 3]


@pytest.mark.parametrize("to", ["oasst", "helpsteer2"])
def test_trees_and_rated_replies_come_back_as_pairs(tmp_path, to):
    write_rated(tmp_path / "out.jsonl", _items() if to == "oasst" else _items()[:3], to=to)
    found = _read(tmp_path / "out.jsonl", tmp_path)
    assert len(found) == (6 if to == "oasst" else 3)
    assert [inclusion_in(p.meta) for p in found] == [_way_of(p.prompt[0].content) for p in found]


@pytest.mark.parametrize("to", ["votes", "labels"])
def test_tables_have_columns(tmp_path, to):
    write_rated(tmp_path / "out.csv", _items(), to=to, method="majority")
    rows = [row.values for row in read_rows(tmp_path / "out.csv")]
    for row in rows:
        way = {**BLANK, **_way_of(f"Question {row['item'][1]}?")}
        assert {name: row[name] for name in INCLUSION} == {k: "" if v is None else str(v) for k, v in way.items()}
    assert len(rows) == 6


@pytest.mark.parametrize("to", TUNING_TARGETS)
def test_files_for_tuning_services_have_it_beside(tmp_path, to):
    write_rated(tmp_path / "out.jsonl", _items(), to=to, method="majority")
    beside = [row.values for row in read_rows(tmp_path / "out.provenance.jsonl")]
    found = [json.loads(row["provenance"])["meta"] for row in beside]
    assert [inclusion_in(meta) for meta in found] == [inclusion_in(row) for row in beside] == [*WAYS, *[WAYS[0]] * 3]


def test_every_target_is_tested_here():
    named = {"fairlead_items", "label_studio", "label_studio_min", "argilla", "oasst", "helpsteer2", "votes", "labels"}
    assert named == set(ITEM_TARGETS)


def test_an_edited_reply_comes_in_as_its_item_did(tmp_path):
    item = _items()[0]
    edited = dataclasses.replace(item.ratings[0], edits={"a": "a of 0, but better"})
    write_rated(
        tmp_path / "out.jsonl", [dataclasses.replace(item, ratings=(edited,), id="")], to="trl", method="majority"
    )
    found = _read(tmp_path / "out.jsonl", tmp_path)
    assert len(found) == 3 and [inclusion_in(p.meta) for p in found] == [WAYS[0]] * 3
