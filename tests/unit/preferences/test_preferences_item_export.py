"""Rated items to files to train on: what stands behind a pair comes back field by field."""

import dataclasses
import json

import pytest

from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import Rejects, read_rows, write_jsonl, write_text
from fairlead.core.records import Message, Preference, to_dict
from fairlead.formats import read_annotations, read_preferences, read_votes, write_preferences
from fairlead.formats.label_studio import write_task
from fairlead.preferences.item_export import ITEM_TARGETS, PREFERENCE_TARGETS, convert, item_preferences


def _items(n=4):
    found = []
    for i in range(n):
        ratings = tuple(
            Rating(
                rater=f"r{k}",
                verdict="a" if (i + k) % 3 else "b",
                strength=-2 if (i + k) % 3 else 1,
                swapped=bool((i + k) % 2),
                source_id=f"{i}-{k}",
            )
            for k in range(3)
        )
        found.append(RatedItem(
            item=f"p{i}", prompt=(Message(role="user", content=f"Question {i}?"),), slice="chat", source="pilot",
            replies=(Reply(id="a", text=f"First {i}", model="m1"), Reply(id="b", text=f"Second {i}", model="m2")), ratings=ratings))  # fmt: skip
    return found


@pytest.fixture
def source(tmp_path):
    write_jsonl(tmp_path / "items.jsonl", _items())
    return tmp_path / "items.jsonl"


@pytest.mark.parametrize("to", list(PREFERENCE_TARGETS))
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_preferences_come_back_field_by_field(tmp_path, to, ending):
    """Sides, votes, posterior, margin, weight, agreement, ids, judgments, slice, source, split and meta, through every format."""
    pairs = list(item_preferences(_items()).preferences)
    pairs = [dataclasses.replace(p, margin=0.7, weight=0.5, split="heldout", id="") for p in pairs]
    report = write_preferences(tmp_path / f"out{ending}", pairs, format=to)
    assert (report.written, report.left_out) == (4, {})
    found = list(read_preferences(tmp_path / f"out{ending}", format=to, rejects=Rejects(tmp_path / "r.jsonl")))
    assert [to_dict(p) for p in found] == [to_dict(p) for p in pairs]


def test_other_programs_see_their_own_columns(tmp_path, source):
    convert(source, tmp_path / "trl.jsonl", to="trl")
    row = next(iter(read_rows(tmp_path / "trl.jsonl"))).values
    assert set(row) == {
        "prompt",
        "chosen",
        "rejected",
        "n_votes",
        "p_chosen",
        "agreement",
        "margin",
        "weight",
        "provenance",
    }
    assert (row["n_votes"], row["agreement"]) == (3, pytest.approx(2 / 3))
    assert json.loads(row["provenance"])["judgments"] == ["0-0", "0-1", "0-2"]


def test_helpsteer_has_the_single_votes_in_the_frame_of_the_file(tmp_path, source):
    convert(source, tmp_path / "h.jsonl", to="helpsteer3", method="majority")
    row = next(iter(read_rows(tmp_path / "h.jsonl"))).values
    assert row["response1"] == "First 0"
    assert row["overall_preference"] < 0
    assert [vote["score"] for vote in row["individual_preference"]] == [1, -2, -2]


def test_fine_tuning_rows_hold_nothing_else_and_the_rest_stands_beside(tmp_path, source):
    convert(source, tmp_path / "ft.jsonl", to="fine_tuning")
    row = next(iter(read_rows(tmp_path / "ft.jsonl"))).values
    assert set(row) == {"input", "preferred_output", "non_preferred_output"}
    assert row["preferred_output"] == [{"role": "assistant", "content": "First 0"}]
    beside = list(read_rows(tmp_path / "ft.provenance.jsonl"))
    assert [r.values["line"] for r in beside] == [1, 2, 3, 4]
    assert beside[0].values["n_votes"] == 3
    convert(source, tmp_path / "sft.jsonl", to="fine_tuning_sft")
    assert next(iter(read_rows(tmp_path / "sft.jsonl"))).values == {
        "messages": [{"role": "user", "content": "Question 0?"}, {"role": "assistant", "content": "First 0"}]
    }
    again = list(read_preferences(tmp_path / "ft.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert [p.chosen for p in again] == [p.chosen for p in item_preferences(_items()).preferences]


@pytest.mark.parametrize("to", [t for t in ITEM_TARGETS if t not in ("votes", "labels", "oasst", "helpsteer2")])
@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_items_go_from_tool_to_tool(tmp_path, source, to, ending):
    if to == "fairlead_items" and ending == ".json":
        return
    convert(source, tmp_path / f"out{ending}", to=to)
    found = list(read_annotations(tmp_path / f"out{ending}", rejects=Rejects(tmp_path / "r.jsonl")))
    for got, want in zip(found, _items(), strict=True):
        assert (got.item, got.prompt, got.replies, got.ratings, got.slice) == (
            want.item,
            want.prompt,
            want.replies,
            want.ratings,
            want.slice,
        )


def test_trees_hold_the_conversation_and_ranked_siblings(tmp_path):
    """Mean ranks of y x z: 0, (1 + 1) / 2 and (2 + 1) / 2; a pair by its votes; a system turn has no place."""
    turns = tuple(Message(role=r, content=f"{r} {i}") for i, r in enumerate(("user", "assistant", "user")))
    replies = tuple(Reply(id=n, text=f"text {n}", model="m" if n == "y" else "") for n in "xyz")
    ranked = RatedItem(item="k", prompt=turns, replies=replies,
                       ratings=(Rating(rater="1", ranking=(("y",), ("x",), ("z",))), Rating(rater="2", ranking=(("y",), ("x", "z")))))  # fmt: skip
    system = dataclasses.replace(_items(1)[0], prompt=(Message(role="system", content="s"), *turns), item="s", id="")
    write_jsonl(tmp_path / "items.jsonl", [ranked, _items(1)[0], system])
    summary = convert(tmp_path / "items.jsonl", tmp_path / "trees.jsonl", to="oasst")
    assert summary.headline.startswith("2 trees")
    assert "1 not written: a tree begins with a prompter and alternates; it has no system turn" in summary.notes
    found = list(read_preferences(tmp_path / "trees.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert [(p.chosen, p.rejected) for p in found] == [
        ("text y", "text x"), ("text y", "text z"), ("text x", "text z"), ("First 0", "Second 0")]  # fmt: skip
    assert found[0].prompt == turns
    assert found[0].meta["chosen_model_name"] == "m"


def test_votes_as_a_table_without_formulas(tmp_path):
    item = dataclasses.replace(
        _items(1)[0], ratings=(Rating(rater="=HYPERLINK(1)", verdict="a", rationale="@SUM(A1)"),), id=""
    )
    write_jsonl(tmp_path / "items.jsonl", [item])
    convert(tmp_path / "items.jsonl", tmp_path / "v.csv", to="votes")
    text = (tmp_path / "v.csv").read_text()
    assert ",'=HYPERLINK(1)," in text
    assert ",'@SUM(A1)" in text
    assert read_votes(tmp_path / "v.csv") == [("p0", "=HYPERLINK(1)", "a")]


def test_blind_files_name_no_model(tmp_path, source):
    convert(source, tmp_path / "ls.json", to="label_studio", is_blind=True)
    assert "m1" not in (tmp_path / "ls.json").read_text()
    assert "<Pairwise" in (tmp_path / "ls.json.config.xml").read_text()
    convert(source, tmp_path / "ls.json", to="label_studio")
    assert "m1" in (tmp_path / "ls.json").read_text()


def _faulty(tmp_path):
    bad = write_task(_items(1)[0])
    bad["data"]["answers"][0]["body"] = " "
    write_jsonl(tmp_path / "tasks.jsonl", [write_task(i) for i in _items()] + [bad, write_task(_items(1)[0])])
    return tmp_path / "tasks.jsonl"


def test_bad_rows_are_listed_and_the_rest_goes_in(tmp_path):
    summary = convert(_faulty(tmp_path), tmp_path / "out.jsonl", to="trl")
    assert summary.headline.startswith("4 rows of trl from 4 items with 12 ratings")
    assert f"Not taken: {tmp_path / 'tasks.jsonl'}:5: empty reply" in summary.notes
    assert any("1 item repeats an earlier id and was left out" in note and "p0" in note for note in summary.notes)
    assert [r.values["reason"] for r in read_rows(tmp_path / "out.jsonl.rejects.jsonl")] == ["empty reply"]


def test_strict_writes_nothing(tmp_path):
    with pytest.raises(DataError, match=r"tasks\.jsonl:5: empty reply; ids that stand twice: p0"):
        convert(_faulty(tmp_path), tmp_path / "out.jsonl", to="trl", is_strict=True)
    assert not (tmp_path / "out.jsonl").exists()


def test_rankings_become_votes_on_each_pair():
    replies = tuple(Reply(id=n, text=n) for n in "xyz")
    item = RatedItem(item="k", prompt=(Message(role="user", content="?"),), replies=replies,
                     ratings=(Rating(rater="1", ranking=(("y",), ("x", "z"))), Rating(rater="2", ranking=(("y",), ("x",), ("z",)))))  # fmt: skip
    made = item_preferences([item], method="majority")
    pairs, ledger, method = list(made.preferences), made.ledger, made.method
    assert [(p.chosen, p.rejected, p.num_votes) for p in pairs] == [("y", "x", 2), ("x", "z", 2), ("y", "z", 2)]
    assert (ledger.total_dropped, method) == (0, "majority")


def test_what_is_not_known_is_refused(tmp_path, source):
    with pytest.raises(ConfigError, match=r"to=trll is not known \(did you mean trl\?\)"):
        convert(source, tmp_path / "x.jsonl", to="trll")
    with pytest.raises(ConfigError, match="method=best is not known"):
        convert(source, tmp_path / "x.jsonl", to="trl", method="best")


def test_damaged_provenance_is_a_rejected_row(tmp_path):
    pairs = list(item_preferences(_items()).preferences)
    write_preferences(tmp_path / "x.jsonl", pairs, format="trl")
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    row = json.loads(lines[0])
    row["n_votes"] = "many"
    write_text(tmp_path / "x.jsonl", "\n".join([json.dumps(row), *lines[1:]]) + "\n")
    with Rejects(tmp_path / "r.jsonl") as rejects:
        assert len(list(read_preferences(tmp_path / "x.jsonl", rejects=rejects))) == 3
    assert rejects.counts == {"provenance does not fit a preference": 1}


def test_ties_are_kept_where_the_format_has_them(tmp_path):
    item = dataclasses.replace(
        _items(1)[0], ratings=(Rating(rater="1", verdict="tie"), Rating(rater="2", verdict="both_bad")), id=""
    )
    write_jsonl(tmp_path / "items.jsonl", [item, _items(2)[1]])
    summary = convert(tmp_path / "items.jsonl", tmp_path / "uf.jsonl", to="ultrafeedback_binarized")
    assert summary.headline.startswith("2 rows")
    found = list(read_preferences(tmp_path / "uf.jsonl", rejects=Rejects(tmp_path / "r.jsonl")))
    assert [p.is_tie for p in found] == [True, False]
    assert isinstance(found[0], Preference)
    left = convert(tmp_path / "items.jsonl", tmp_path / "trl.jsonl", to="trl")
    assert "1 not written: TRL has no ties" in left.notes
