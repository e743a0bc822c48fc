"""Anchors, rolling kappa and the next batch as files; Bradley-Terry and anchors in the aggregation."""

import numpy as np
import pytest

from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import dump_json, read_rows, write_jsonl, write_text
from fairlead.preferences.aggregate import Verdicts, aggregate_pairs, run_method
from fairlead.preferences.votes import aggregate_votes
from fairlead.preferences.watching import choose_batch, drift_of, rolling_of
from fairlead.stats.votes import votes_from_rows


def test_an_alarm_says_since_when(tmp_path):
    """50 right, then all wrong: each wrong adds .56 nats, so h = 4 is reached by the eighth, anchor 58, and the change is anchor 51."""
    rows = [{"rater": "ann", "correct": "true"}] * 100 + [{"rater": "bob", "correct": i < 50} for i in range(70)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    summary = drift_of(tmp_path / "a.jsonl")
    assert summary.headline == "1 of 2 raters raises an alarm: bob."
    (table,) = summary.tables
    assert table.rows[0][-2:] == (None, None)
    assert table.rows[1][-3:] == ("alarm", 58, 51)
    assert summary.figures[0].value == pytest.approx(1281.4, abs=0.1)
    dump_json(summary.to_dict())


def test_an_alarm_on_few_anchors_blocks_nobody(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"rater": "ann", "correct": 0}] * 10)
    assert "look, do not block" in str(drift_of(tmp_path / "a.jsonl").tables[0].rows)
    write_jsonl(tmp_path / "b.jsonl", [{"rater": "ann", "correct": "maybe"}])
    with pytest.raises(DataError, match="correct=maybe is no truth value"):
        drift_of(tmp_path / "b.jsonl")


def test_a_project_whose_kappa_falls_is_paused(tmp_path):
    rng, lines = np.random.default_rng(0), ["item,rater,label"]
    for i in range(200):
        truth = rng.integers(2)
        lines += [f"i{i},{r},{'ab'[truth if rng.random() < (0.95 if i < 100 else 0.55) else 1 - truth]}" for r in "xyz"]
    write_text(tmp_path / "v.csv", "\n".join(lines))
    summary = rolling_of(tmp_path / "v.csv", window=100)
    assert summary.facts["action"] == "pause"
    assert summary.headline == "The newest 100 items: pause: the whole interval lies below 0.4."
    assert summary.tables[0].rows[0][5] == "may_scale"


def test_a_batch_is_written_with_its_probabilities(tmp_path):
    pool = [{"item": f"p{i}", "p_first": i / 100, "slice": "ab"[i % 2], "rated": i < 10} for i in range(100)]
    write_jsonl(tmp_path / "pool.jsonl", pool)
    summary = choose_batch(tmp_path / "pool.jsonl", tmp_path / "batch.jsonl", num_pairs=20)
    batch = [row.values for row in read_rows(tmp_path / "batch.jsonl")]
    assert summary.headline == "20 of 90 pairs chosen, 4 of them at random."
    assert len({row["item"] for row in batch}) == 20
    assert sum(row["arm"] == "random" for row in batch) == 4
    assert all(0 < row["p_inclusion"] <= 1 and int(row["item"][1:]) >= 10 for row in batch)
    write_jsonl(tmp_path / "bad.jsonl", [{"item": "x", "p_first": "?"}])
    with pytest.raises(DataError, match=r"bad\.jsonl:1\.p_first=\? is not a number"):
        choose_batch(tmp_path / "bad.jsonl", tmp_path / "batch.jsonl", num_pairs=1)


def test_bradley_terry_gives_pairs_probabilities_and_raters_estimates():
    rng = np.random.default_rng(0)
    accuracy = {"ann": 0.9, "bob": 0.85, "cem": 0.5, "dan": 0.9}
    rows = [(f"t{i}", r, "a" if rng.random() < a else "b") for i in range(80) for r, a in accuracy.items()]
    outcome = aggregate_pairs(Verdicts.from_rows(rows, swapped=[False] * len(rows)), method="bradley_terry")
    assert np.mean([pair.p_a > 0.5 for pair in outcome.pairs.values()]) > 0.9
    assert outcome.raters["cem"].accuracy < min(outcome.raters[r].accuracy for r in ("ann", "bob", "dan"))
    assert all(pair.num_votes == 4 for pair in outcome.pairs.values())


def test_a_completion_in_several_pairs_has_one_score():
    """x beats y and y beats z, each nine times of ten: x and z were compared once, as a tie, and x is still better."""
    rows = [(t, f"r{k}", "a" if k else "b") for t in ("xy", "yz") for k in range(10)] + [("xz", "r0", "tie")]
    names = {"xy": ("x", "y"), "yz": ("y", "z"), "xz": ("x", "z")}
    verdicts = Verdicts.from_rows(rows, swapped=[False] * len(rows))
    assert aggregate_pairs(verdicts, method="bradley_terry", completions=names).pairs["xz"].p_a > 0.9
    assert aggregate_pairs(verdicts, method="bradley_terry").pairs["xz"].p_a == pytest.approx(0.5, abs=1e-6)


def test_anchors_are_held_fixed(tmp_path):
    """Two raters contradict each other everywhere; one anchor tells who is right."""
    lines = [f"i{i},ann,a\ni{i},bob,b" for i in range(10)]
    write_text(tmp_path / "v.csv", "item,rater,label\n" + "\n".join(lines))
    write_text(tmp_path / "g.csv", "item,label\ni0,b\n")
    aggregate_votes(tmp_path / "v.csv", tmp_path / "out.jsonl", method="one_coin", gold=tmp_path / "g.csv")
    labels = [row.values["label"] for row in read_rows(tmp_path / "out.jsonl")]
    assert labels == ["b"] * 10
    with pytest.raises(ConfigError, match="has no use in majority"):
        aggregate_votes(tmp_path / "v.csv", tmp_path / "out.jsonl", method="majority", gold=tmp_path / "g.csv")
    with pytest.raises(ConfigError, match="scores completions, not labels"):
        run_method(votes_from_rows([("1", "a", "cat")]), method="bradley_terry")
    write_text(tmp_path / "g.csv", "item,label\ni0,b\ni0,a\n")
    with pytest.raises(DataError, match="is no anchor"):
        aggregate_votes(tmp_path / "v.csv", tmp_path / "out.jsonl", method="one_coin", gold=tmp_path / "g.csv")
