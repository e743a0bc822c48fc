"""The stage accounts for every prompt and judgment, repeats itself, and refuses what cannot be compared."""

from collections import Counter

import pytest
from feedback_example import services, write_inputs

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError, Interrupted
from fairlead.core.io import dump_json, read_records, read_rows
from fairlead.core.records import Judgment, Task
from fairlead.core.summary import summary_from_dict
from fairlead.feedback.stage import FeedbackConfig, run


def config(**changes):
    return parse_config(FeedbackConfig, changes, where="feedback")


def rated(tmp_path, *, texts=None, num_prompts=60, seed=0, **changes):
    inputs = write_inputs(tmp_path / "in", texts=texts, num_prompts=num_prompts)
    out = tmp_path / "out"
    summary = run(config(**changes), inputs=inputs, out=out, services=services(tmp_path, seed=seed))
    tasks = list(read_records(out / "tasks.jsonl", Task))
    return summary, tasks, list(read_records(out / "judgments.jsonl", Judgment)), list(read_rows(out / "gold.jsonl"))


def test_counts_reconcile(tmp_path):
    texts = [["same 1", "same 1"], ["alone 1"], ["no none", "yes 1"], ["x 1", "x 1", "y 2"]]
    summary, tasks, judgments, gold = rated(tmp_path, texts=texts, guideline_version="v2")
    assert len(tasks) == 61  # 60 ordinary prompts and the last one; one pair has no gold score
    assert [t.id for t in tasks] == [row.values["task_id"] for row in gold]
    assert Counter(j.task_id for j in judgments) == {t.id: 5 for t in tasks}
    assert {j.guideline_version for j in judgments} == {t.guideline_version for t in tasks} == {"v2"}
    assert summary.facts["num_prompts"] == 64
    assert summary.facts["num_prompts_identical"] == summary.facts["num_prompts_single"] == 1
    assert any("1 pair was left out because the gold scorer" in note for note in summary.notes)
    assert any("2 completions repeat" in note for note in summary.notes)
    assert sum(row[1] for row in summary.tables[0].rows) == sum(row[1] for row in summary.tables[1].rows) == 305
    assert summary_from_dict(summary.to_dict()) == summary


def test_a_run_repeats_itself_and_the_seed_matters(tmp_path):
    _, tasks, judgments, gold = rated(tmp_path / "1")
    _, again, same, same_gold = rated(tmp_path / "2")
    assert (again, same, [r.values for r in same_gold]) == (tasks, judgments, [r.values for r in gold])
    assert rated(tmp_path / "3", seed=1)[2] != judgments


def test_simulated_votes_cost_nothing_and_say_so(tmp_path):
    summary = rated(tmp_path, cost_per_judgment=0.5)[0]
    price = next(f for f in summary.figures if f.name == "price if people had judged")
    assert summary.cost_dollars == 0
    assert price.value == pytest.approx(60 * 5 * 0.5)
    assert any("cost nothing" in note for note in summary.notes)


def test_a_panel_that_always_looks_left_is_noticed(tmp_path):
    """With a side bias of 6 logits and no ability every vote goes to the left."""
    panel = {f"rater-{i:02d}": {"ability": 0.0, "side_bias": 6.0, "lapse": 0.0} for i in range(1, 6)}
    summary, _, judgments, _ = rated(tmp_path, num_raters=5, panel=panel, num_prompts=200)
    gate = summary.verdicts[0]
    assert (gate.gate, gate.outcome) == ("feedback.side_bias", "WARN")
    assert gate.value > 0.98
    assert "left" in gate.note
    assert all(row[-1] == "favours a side" for row in summary.tables[1].rows)
    assert sum(j.verdict == "a" for j in judgments) == pytest.approx(500, abs=20)


def test_an_honest_panel_passes_the_side_gate(tmp_path):
    panel = {f"rater-{i:02d}": {"side_bias": 0.0} for i in range(1, 21)}
    summary = rated(tmp_path, num_prompts=200, panel=panel)[0]
    assert summary.verdicts[0].outcome == "PASS"
    assert not any(row[-1] for row in summary.tables[1].rows)


def test_ties_occur_only_when_allowed(tmp_path):
    forced = rated(tmp_path / "1")[2]
    allowed = rated(tmp_path / "2", ties="allowed")[2]
    assert {j.verdict for j in forced} == {"a", "b"}
    assert {j.verdict for j in allowed} == {"a", "b", "tie"}


def test_a_panel_that_only_calls_ties_is_reported_without_a_made_up_share(tmp_path):
    panel = {f"rater-{i:02d}": {"ability": 0.0, "lapse": 0.0, "side_bias": 0.0, "tie_width": 50.0} for i in range(1, 6)}
    summary, _, judgments, _ = rated(tmp_path, num_raters=5, ties="allowed", panel=panel)
    assert {j.verdict for j in judgments} == {"tie"}
    assert (summary.verdicts[0].outcome, summary.verdicts[0].n) == ("WARN", 0)
    assert "left share" not in {f.name for f in summary.figures}
    dump_json(summary.to_dict())  # refuses numbers that are not finite


def test_identical_completions_everywhere_are_an_error(tmp_path):
    inputs = write_inputs(tmp_path, num_prompts=0, texts=[["same 1", "same 1"], ["one 1"]])
    with pytest.raises(
        DataError, match=r"of 2 prompts 1 have only equal completions and 1 fewer than two.*temperature"
    ):
        run(config(), inputs=inputs, out=tmp_path / "out", services=services(tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("texts", [["a 1", "b 1"], ["a none", "b 1"]])
def test_a_scorer_that_tells_nothing_apart_is_an_error(tmp_path, texts):
    inputs = write_inputs(tmp_path, num_prompts=0, texts=[texts])
    with pytest.raises(DataError, match="gold_scorer=number tells none of 1 pairs apart"):
        run(config(), inputs=inputs, out=tmp_path / "out", services=services(tmp_path))


def test_ctrl_c_leaves_nothing_half_written(tmp_path):
    inputs = write_inputs(tmp_path)
    with pytest.raises(Interrupted, match="after 0 of 300 judgments"):
        run(config(), inputs=inputs, out=tmp_path / "out", services=services(tmp_path, should_stop=lambda: True))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_raters": 3}, r"votes_per_pair=5 needs more raters.*num_raters=3"),
        ({"panel": {"rater-1": {"lapse": 1}}}, r"feedback.panel.rater-1 is no rater.*did you mean rater-1"),
        ({"panel": {"rater-01": {"tie_width": 1}}}, r"has no effect when ties are forced"),
        ({"panel": {"rater-01": {"half_live": 1}}}, r"feedback.panel.rater-01.half_live.*did you mean half_life"),
    ],
)
def test_a_wrong_config_is_explained(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        rated(tmp_path, **changes)
