"""The stage on real files: instructions, maths questions, dialogues, reviews."""

import os
from pathlib import Path

import pytest

from fairlead.core.config import parse_config
from fairlead.core.io import read_json, read_records, read_rows
from fairlead.core.records import Prompt
from fairlead.core.services import Services
from fairlead.prompts import PromptsConfig, run
from fairlead.prompts.words import normalise

pytestmark = pytest.mark.data


@pytest.fixture
def data():
    """The folder of real data."""
    if "FAIRLEAD_DATA" not in os.environ:
        pytest.skip("FAIRLEAD_DATA is not set: tests on real data are skipped")
    return Path(os.environ["FAIRLEAD_DATA"])


def collect(data, out, **config):
    """Run the stage; return summary, prompts and coverage."""
    parsed = parse_config(PromptsConfig, config, where="prompts")
    summary = run(parsed, inputs={"data": data}, out=out, services=Services(work=out))
    return summary, list(read_records(out / "prompts.jsonl", Prompt)), read_json(out / "coverage.json")


def test_self_instruct_joins_inputs_and_reconciles(data, tmp_path):
    summary, prompts, coverage = collect(
        data, tmp_path, sources=["sft/self_instruct.jsonl.gz"], heldout=0.2, dedupe="exact"
    )
    assert coverage["sources"][0]["rows"] == 427
    rows = [row.values for row in read_rows(data / "sft/self_instruct.jsonl.gz")]
    whole = {normalise(f"{r['instruction']} {r['input']}") for r in rows}
    assert {normalise(p.messages[0].content) for p in prompts} == whole
    assert 0.12 < coverage["num_heldout"] / len(prompts) < 0.28  # 0.2 +- 4 * sqrt(0.16 / 427)
    assert summary.verdicts[-1].outcome == "PASS"


def test_gsm8k_against_itself_is_all_contaminated_and_against_self_instruct_is_clean(data, tmp_path):
    questions = "verifiable/gsm8k_train.jsonl.gz"
    sources = ["sft/self_instruct.jsonl.gz", {"path": questions, "take": 1000, "slice": "maths"}]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, prompts, coverage = collect(data, tmp_path / "a", sources=sources, contamination=[questions])
    assert {p.source for p in prompts} == {"self_instruct"}
    assert coverage["contamination"][0]["equal"] == 1000
    assert coverage["contamination"][0]["sharing a run"] == 0
    _, _, coverage = collect(data, tmp_path / "b", sources=sources[1:], contamination=["sft/self_instruct.jsonl.gz"])
    found = coverage["contamination"][0]
    assert (found["prompts"], found["equal"], found["sharing a run"]) == (427, 0, 0)


def test_dialogues_and_continuations(data, tmp_path):
    sources = [
        {"path": "preference/hh_harmless.jsonl.gz", "slice": "chat"},
        {"path": "text/imdb_train.jsonl.gz", "first_words": 8, "take": 500, "slice": "reviews"},
    ]
    _, prompts, coverage = collect(
        data, tmp_path, sources=sources, mix={"chat": 0.75, "reviews": 0.25}, enforce_mix=True
    )
    assert all(p.messages[-1].role == "user" for p in prompts)
    assert any(len(p.messages) > 1 for p in prompts)
    assert all(len(p.messages[0].content.split()) <= 8 for p in prompts if p.slice == "reviews")
    assert coverage["missing_slices"] == []
    heldout = {normalise(p.messages[-1].content) for p in prompts if p.split == "heldout" and len(p.messages) == 1}
    train = {normalise(p.messages[-1].content) for p in prompts if p.split == "train" and len(p.messages) == 1}
    assert not heldout & train
