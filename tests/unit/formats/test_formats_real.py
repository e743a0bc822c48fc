"""Files as published, against counts made here from the raw rows without the readers. Skipped where the data is absent."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from fairlead.core.io import Rejects, read_rows
from fairlead.formats import detect_format, read_demonstrations, read_preferences, read_prompts, read_votes

pytestmark = pytest.mark.data


def data(name: str) -> Path:
    folder = os.environ.get("FAIRLEAD_DATA")
    if not folder or not (Path(folder) / name).exists():
        pytest.skip(f"FAIRLEAD_DATA does not hold {name}")
    return Path(folder) / name


def raw(name: str) -> list[dict]:
    with gzip.open(data(name), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read(reader, name: str, tmp_path: Path, **options):
    with Rejects(tmp_path / "rejects.jsonl") as rejects:
        reading = reader(data(name), rejects=rejects, **options)
        return list(reading), reading.report


def plain(messages) -> list[dict]:
    return [{"role": m.role, "content": m.content} for m in messages]


HH = "raw_formats/hh_harmless_raw.jsonl.gz"
TREES = "raw_formats/oasst_en_100_tree.jsonl.gz"


def test_hh_reconciles_and_rejects_what_its_own_text_shows(tmp_path):
    """Empty: the text ends with the marker. Several turns: the two texts do not have the same markers in the same order."""
    rows = raw(HH)
    empty = sum(row["chosen"].rstrip().endswith("\n\nAssistant:") for row in rows)
    marks = [[re.findall(r"\n\n(?:Human|Assistant):", row[side]) for side in ("chosen", "rejected")] for row in rows]
    unequal = sum(a != b for a, b in marks)
    found, report = read(read_preferences, HH, tmp_path)
    assert report.format == "hh" and report.rows == len(rows) == 1488
    assert report.rejects == {"empty chosen": empty, "completion has more than one turn": unequal} == {
        "empty chosen": 3, "completion has more than one turn": 5,
    }  # fmt: skip
    assert report.reconciles and len(found) == 1488 - 3 - 5
    assert sum(row.values["reason"] == "empty chosen" for row in read_rows(tmp_path / "rejects.jsonl")) == 3


def test_hh_equals_an_independent_parse(tmp_path):
    """preference/hh_harmless was made from the same rows by another program; rows correspond by order."""
    theirs = raw("preference/hh_harmless.jsonl.gz")
    ours, _ = read(read_preferences, HH, tmp_path)
    by_row = {p.meta["row"]: p for p in ours}
    compared = 0
    for number, row in enumerate(theirs, start=1):
        usable = (
            len(row["chosen"]) == len(row["rejected"]) == 1
            and row["chosen"][0]["content"]
            and row["rejected"][0]["content"]
        )
        assert bool(usable) == (number in by_row)
        if usable:
            pair = by_row[number]
            assert plain(pair.prompt) == row["prompt"]
            assert (pair.chosen, pair.rejected) == (row["chosen"][0]["content"], row["rejected"][0]["content"])
            compared += 1
    assert compared == 1480


def test_hh_as_trl_gives_the_same_pairs(tmp_path):
    transcripts, _ = read(read_preferences, HH, tmp_path)
    messages, report = read(read_preferences, "preference/hh_harmless.jsonl.gz", tmp_path)
    assert report.format == "trl" and report.reconciles
    assert [(p.prompt, p.chosen, p.rejected) for p in messages] == [
        (p.prompt, p.chosen, p.rejected) for p in transcripts
    ]


def nodes(tree: dict) -> list[dict]:
    return [tree, *(node for reply in tree["replies"] for node in nodes(reply))]


def test_oasst_pairs_equal_an_independent_reading(tmp_path):
    found, report = read(read_preferences, TREES, tmp_path)
    theirs = raw("preference/oasst100_pairs.jsonl.gz")
    as_tuple = {(json.dumps(row["prompt"]), row["chosen"], row["rejected"]) for row in theirs}
    assert {(json.dumps(plain(p.prompt)), p.chosen, p.rejected) for p in found} == as_tuple
    assert len(found) == len(theirs) == 754 and report.rows == 100 and report.reconciles
    gaps = sorted(p.meta["rejected_rank"] - p.meta["chosen_rank"] for p in found)
    assert gaps == sorted(row["rank_gap"] for row in theirs)


def test_oasst_accounts_for_every_reply(tmp_path):
    every = [node for row in raw(TREES) for node in nodes(row["prompt"])]
    replies = [node for node in every if node["role"] == "assistant"]
    unranked = sum(node.get("rank") is None for node in replies)
    found, report = read(read_preferences, TREES, tmp_path)
    assert report.left_out == {"completion: no rank": unranked}
    used = {p.meta[f"{side}_message_id"] for p in found for side in ("chosen", "rejected")}
    assert len(used) + unranked == len(replies)
    adjacent, _ = read(read_preferences, TREES, tmp_path, pairs="adjacent")
    groups = [sum(r.get("rank") is not None for r in node["replies"]) for node in every if node["role"] == "prompter"]
    assert len(adjacent) == sum(max(0, size - 1) for size in groups)
    prompts, _ = read(read_prompts, TREES, tmp_path)
    assert len(prompts) == sum(node["role"] == "prompter" for node in every)


def test_oasst_best_paths_are_among_the_published_demonstrations(tmp_path):
    found, report = read(read_demonstrations, TREES, tmp_path)
    published = {json.dumps(row["messages"]) for row in raw("sft/oasst100.jsonl.gz")}
    assert {json.dumps(plain(d.messages)) for d in found} <= published
    assert report.reconciles and report.used == 99 and report.skips == {"completion: no rank": 1}


@pytest.mark.parametrize(("name", "known", "reader"), [
    ("sft/self_instruct.jsonl.gz", "alpaca", read_demonstrations),
    ("sft/oasst100.jsonl.gz", "trl_messages", read_demonstrations),
    ("preference/oasst100_pairs.jsonl.gz", "trl", read_preferences),
    ("text/movie_reviews.jsonl.gz", "trl_text", read_demonstrations),
])  # fmt: skip
def test_whole_files_are_usable(name, known, reader, tmp_path):
    found, report = read(reader, name, tmp_path)
    assert report.format == known and len(found) == report.rows == len(raw(name)) and report.reconciles


@pytest.mark.parametrize("name", ["bluebird_duck", "dog", "product"])
def test_votes_of_published_sets(name):
    path = f"raters/{name}.votes.jsonl.gz"
    assert detect_format(data(path)).name == "votes"
    assert read_votes(data(path)) == [(row["item"], row["rater"], row["label"]) for row in raw(path)]
