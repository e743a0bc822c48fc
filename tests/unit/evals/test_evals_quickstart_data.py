"""The quickstart's content: generated the same everywhere, split cleanly, spread over the gold rule, agreeing with its guideline."""

import re
from pathlib import Path

import numpy as np
import pytest

from fairlead.core.io import read_json, read_records, read_rows
from fairlead.core.records import Completion, Demonstration, Prompt
from fairlead.rewards.rules import load_rule, word_tokens

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "src" / "fairlead" / "bundled" / "quickstart"
RULE = load_rule(FOLDER / "lexicon.json")
DEMONSTRATIONS = list(read_records(FOLDER / "demonstrations.jsonl", Demonstration))
PROMPTS = [p for name in ("prompts.jsonl", "heldout_prompts.jsonl") for p in read_records(FOLDER / name, Prompt)]
EVAL_PROMPTS = list(read_records(FOLDER / "eval_prompts.jsonl", Prompt))


def score(text, finish_reason="stop"):
    return RULE.score([], [Completion(prompt_id="p", text=text, model="m", finish_reason=finish_reason)])[0]


@pytest.fixture
def generator(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    import quickstart_data

    return quickstart_data


def test_generating_again_gives_the_committed_bytes(generator, tmp_path):
    generator.write_all(tmp_path)
    for made in sorted(tmp_path.iterdir()):
        assert made.read_bytes() == (FOLDER / made.name).read_bytes(), f"{made.name}: run tools/quickstart_data.py"
    assert len(list(tmp_path.iterdir())) == 7
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 900_000


def test_heldout_titles_do_not_occur_in_training_prompts(generator):
    titles = generator.make_titles(generator.Dice("titles"))
    asked = {p.messages[0].content: p.split for p in PROMPTS + EVAL_PROMPTS} | {
        d.messages[0].content: d.split for d in DEMONSTRATIONS
    }
    for text, split in asked.items():
        assert any(title in text for title in titles[split])
        assert not any(title in text for title in titles["heldout" if split == "train" else "train"])


def test_counts_slices_and_lengths():
    assert [sum(d.split == s for d in DEMONSTRATIONS) for s in ("train", "heldout")] == [1000, 100]
    assert [sum(p.split == s for p in PROMPTS) for s in ("train", "heldout")] == [420, 60]
    assert len(EVAL_PROMPTS) == 200
    assert all(p.split == "heldout" for p in EVAL_PROMPTS)
    texts = [r.messages[0].content for r in (*DEMONSTRATIONS, *PROMPTS, *EVAL_PROMPTS)]
    assert len(set(texts)) == len(texts)
    assert all(8 <= len(t.split()) <= 20 for t in texts)
    shares = np.unique([p.slice for p in PROMPTS], return_counts=True)[1]
    assert len(shares) == 6
    assert np.ptp(shares) <= 1


def test_replies_are_short_finished_and_all_different():
    replies = [d.messages[1].content for d in DEMONSTRATIONS]
    assert len(set(replies)) == len(replies)
    assert all(10 <= len(r.split()) <= 24 and r.endswith(".") and not r.endswith("..") for r in replies)
    assert all(re.fullmatch(r"[A-Za-z ,.]+", r) for r in replies), "plain words and stops only"
    assert len({w for r in replies for w in word_tokens(r)}) > 300


def test_gold_scores_spread_by_manner_and_not_by_slice():
    scores = np.array([score(d.messages[1].content) for d in DEMONSTRATIONS])
    manner = np.array([d.meta["manner"] for d in DEMONSTRATIONS])
    assert scores.std() >= 1.0
    means = {m: scores[manner == m].mean() for m in set(manner)}
    assert means["cold"] < means["hedging"] < means["neutral"] == 0 < means["warm"]
    slices = np.array([d.slice for d in DEMONSTRATIONS])
    # sd 1.2 over 180 rows a slice: a standard error of 0.09, so 0.35 is far outside chance
    assert all(abs(scores[slices == s].mean() - scores.mean()) < 0.35 for s in set(slices))


def test_minimal_pairs_differ_and_have_equal_length():
    pairs = [row.values for row in read_rows(FOLDER / "minimal_pairs.jsonl")]
    kinds, counts = np.unique([p["kind"] for p in pairs], return_counts=True)
    assert set(kinds) == {"agreement", "determiner", "tense", "word_order", "pronoun"}
    assert set(counts) == {60}
    for pair in pairs:
        assert pair["good"] != pair["bad"]
        assert len(pair["good"].split()) == len(pair["bad"].split())
    good = {p["good"] for p in pairs}
    assert len(good) == 300
    assert not good & {p["bad"] for p in pairs}
    longer = np.mean([len(p["good"]) - len(p["bad"]) for p in pairs if p["kind"] in ("agreement", "determiner")])
    assert abs(longer) < 0.5, "neither form may be longer on average"


def test_heldout_text_is_neutral():
    texts = [row.values["text"] for row in read_rows(FOLDER / "heldout_text.jsonl")]
    assert len(set(texts)) == 60
    assert all(RULE.lexicon.count(t) == (0, 0, 0) for t in texts)


def test_guideline_examples_agree_with_the_gold_rule():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (A|B|choose one) \|", (FOLDER / "guideline.md").read_text(), flags=re.M)
    assert len(rows) == 6
    for a, b, better in rows:
        gold = [score(t, "stop" if t.endswith(".") else "length") for t in (a, b)]
        assert better == ("choose one" if gold[0] == gold[1] else "AB"[int(gold[1] > gold[0])]), (a, b, gold)


def test_lexicon_is_what_the_grammar_declares(generator):
    assert read_json(FOLDER / "lexicon.json") == generator.words.LEXICON
