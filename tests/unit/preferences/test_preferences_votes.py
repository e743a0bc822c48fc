"""A plain table of votes: import, agreement, labels, and preferences where the texts are given."""

import gzip
import json
import os
from pathlib import Path

import pytest
from preferences_example import draw_judgments

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import dump_json, read_json, read_records, read_rows, write_jsonl, write_text
from fairlead.core.records import Preference
from fairlead.preferences.votes import aggregate_votes, agreement_of, import_votes

TABLE = "item,rater,label\n1,ann,cat\n1,bob,cat\n1,cem,dog\n2,ann,dog\n2,bob,dog\n2,cem,dog\n"


def table(tmp_path, text=TABLE, name="votes.csv"):
    write_text(tmp_path / name, text)
    return tmp_path / name


def rows_of(path):
    return [row.values for row in read_rows(path)]


def test_import_writes_what_it_read_and_reads_it_back(tmp_path):
    votes = import_votes(table(tmp_path, TABLE.replace("item", "task")), tmp_path / "out.jsonl", item="task")
    assert (len(votes.items), votes.rater_names, votes.label_names) == (6, ("ann", "bob", "cem"), ("cat", "dog"))
    assert rows_of(tmp_path / "out.jsonl")[2] == {"item": "1", "rater": "cem", "label": "dog"}
    import_votes(tmp_path / "out.jsonl", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()


def test_agreement_by_hand(tmp_path):
    """Item 1 agrees on 1 of 3 pairs, item 2 on 3 of 3: 2/3 of pairs by item."""
    summary = agreement_of(table(tmp_path), num_resamples=200)
    found = {f.name: f for f in summary.figures}
    assert found["percent agreement"].value == pytest.approx(2 / 3)
    assert "6 votes by 3 raters on 2 items; Krippendorff's alpha" in summary.headline
    assert [v.gate for v in summary.verdicts] == ["preferences.agreement", "preferences.alpha"]
    dump_json(summary.to_dict())


def test_labels_with_probabilities(tmp_path):
    """By majority item 1 is a cat with 2/3."""
    summary = aggregate_votes(table(tmp_path), tmp_path / "labels.jsonl", method="majority")
    first, second = rows_of(tmp_path / "labels.jsonl")
    assert first == {
        "item": "1",
        "label": "cat",
        "is_tied": False,
        "num_votes": 3,
        "posterior": {"cat": pytest.approx(2 / 3), "dog": pytest.approx(1 / 3)},
    }
    assert second["label"] == "dog"
    assert {r["rater"] for r in read_json(tmp_path / "labels.raters.json")} == {"ann", "bob", "cem"}
    assert "2 items labelled by majority" in summary.headline
    dump_json(summary.to_dict())


def test_a_tie_is_said_to_be_one(tmp_path):
    summary = aggregate_votes(
        table(tmp_path, "item,rater,label\n1,ann,x\n1,bob,y\n"), tmp_path / "l.jsonl", method="majority"
    )
    assert rows_of(tmp_path / "l.jsonl")[0]["is_tied"] is True
    assert "1 tied" in summary.headline


def test_raters_who_share_no_item_are_reported(tmp_path):
    text = "item,rater,label\n1,ann,x\n1,bob,y\n2,cem,x\n2,dan,x\n"
    assert any(
        "2 groups that share no item" in note for note in agreement_of(table(tmp_path, text), num_resamples=100).notes
    )


def write_pairs(tmp_path, *, seed=0, num_tasks=60):
    judgments, truth = draw_judgments([0.85] * 6, num_tasks=num_tasks, votes_per_task=5, seed=seed, side_bias={0: 1.5})
    rows = [
        {"item": j.task_id, "rater": j.rater, "label": j.verdict.upper(), "swapped": str(j.swapped)} for j in judgments
    ]
    write_jsonl(tmp_path / "votes.jsonl", rows)
    write_jsonl(
        tmp_path / "items.jsonl", ({"item": t, "prompt": f"q {t}", "a": f"one {t}", "b": f"two {t}"} for t in truth)
    )
    return truth


@pytest.mark.parametrize("method", ["majority", "dawid_skene", "one_coin", "one_coin_side_bias", "weighted"])
def test_pairs_with_texts_become_preferences(tmp_path, method):
    truth = write_pairs(tmp_path)
    summary = aggregate_votes(
        tmp_path / "votes.jsonl", tmp_path / "p.jsonl", method=method, items=tmp_path / "items.jsonl"
    )
    found = list(read_records(tmp_path / "p.jsonl", Preference))
    right = sum(p.chosen.startswith("one") == (truth[p.meta["task_id"]] == "a") for p in found)
    assert len(found) == 60
    assert right >= 54
    assert all(p.num_votes == 5 for p in found)
    assert summary.headline.startswith("60 preferences of 60 pairs")
    bias = {r["rater"]: r["side_bias_logits"] for r in read_json(tmp_path / "p.raters.json")}
    if method == "one_coin_side_bias":
        assert max(bias, key=bias.get) == "r00"
        assert bias["r00"] > 0.5
    else:
        assert set(bias.values()) == {None}


@pytest.mark.parametrize(
    ("votes", "items", "message"),
    [
        ("1,ann,left", "1,q,x,y", "label=left is not a verdict on a pair"),
        ("2,ann,a", "1,q,x,y", "item=2 has votes but no texts"),
        ("1,ann,a", "1,q,x,y\n1,q,x,z", "is given twice"),
        ("1,ann,tie", "1,q,x,y", r"gives no preference \(1 tied\)"),
    ],
)
def test_what_does_not_fit_is_explained(tmp_path, votes, items, message):
    path = table(tmp_path, f"item,rater,label\n{votes}\n")
    texts = table(tmp_path, f"item,prompt,a,b\n{items}\n", name="items.csv")
    with pytest.raises(DataError, match=message):
        aggregate_votes(path, tmp_path / "p.jsonl", items=texts)
    assert not (tmp_path / "p.jsonl").exists()


def test_side_bias_needs_sides(tmp_path):
    path = table(tmp_path, "item,rater,label\n1,ann,a\n")
    texts = table(tmp_path, "item,prompt,a,b\n1,q,x,y\n", name="items.csv")
    with pytest.raises(DataError, match=r"swapped is missing"):
        aggregate_votes(path, tmp_path / "p.jsonl", items=texts, method="one_coin_side_bias")
    with pytest.raises(DataError, match=r"swapped=perhaps is no truth value"):
        agreement_of(table(tmp_path, "item,rater,label,swapped\n1,ann,a,perhaps\n"))


@pytest.mark.parametrize(
    ("option", "value", "near"), [("method", "dawid-skene", "dawid_skene"), ("method", "mace", "majority")]
)
def test_an_unknown_method_is_explained(tmp_path, option, value, near):
    with pytest.raises(ConfigError, match=f"{value} is not known.*{near}"):
        aggregate_votes(table(tmp_path), tmp_path / "l.jsonl", **{option: value})
    with pytest.raises(ConfigError, match="did you mean ordinal"):
        agreement_of(table(tmp_path), level="ordnal")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "alpha", "accuracy"),
    [("bluebird_duck", 0.1255, 0.8889), ("dog", 0.5194, 0.8426), ("product", 0.1575, 0.9397)],
)
def test_public_votes_give_the_known_figures(tmp_path, name, alpha, accuracy):
    """Reference figures of an independent implementation: nominal alpha, and accuracy of Dawid-Skene against the truth."""
    folder = os.environ.get("FAIRLEAD_DATA")
    if not folder:
        pytest.skip("FAIRLEAD_DATA is not set")
    path = Path(folder) / "raters" / f"{name}.votes.jsonl.gz"
    summary = agreement_of(path, num_resamples=100)
    assert next(f for f in summary.figures if f.name == "Krippendorff's alpha").value == pytest.approx(alpha, abs=1e-3)
    aggregate_votes(path, tmp_path / "l.jsonl", method="dawid_skene")
    with gzip.open(path.with_name(f"{name}.truth.jsonl.gz"), "rt") as file:
        truth = {str(row["item"]): str(row["truth"]) for row in map(json.loads, file)}
    labels = {row["item"]: row["label"] for row in rows_of(tmp_path / "l.jsonl")}
    assert sum(labels[item] == known for item, known in truth.items()) / len(truth) == pytest.approx(accuracy, abs=0.01)
