"""From judgments or a file to preferences.jsonl: counts reconcile, figures tell the truth, hopeless data is refused."""

import pytest
from preferences_example import draw_judgments, services, write_run

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError
from fairlead.core.io import dump_json, read_json, read_records, write_jsonl
from fairlead.core.records import Judgment, Message, Preference, Prompt
from fairlead.core.summary import summary_from_dict
from fairlead.preferences.stage import PreferencesConfig, run


def stage(tmp_path, inputs, *, scope="toy", **changes):
    config = parse_config(PreferencesConfig, {"num_resamples": 200, **changes}, where="preferences")
    summary = run(config, inputs=inputs, out=tmp_path / "out", services=services(tmp_path, scope=scope))
    dump_json(summary.to_dict())  # refuses numbers that are not finite
    return summary, list(read_records(tmp_path / "out" / "preferences.jsonl", Preference))


def values(summary):
    return {f.name: f.value for f in summary.figures}


def aggregated(
    tmp_path, *, accuracies=(0.85,) * 10, num_tasks=200, votes_per_task=5, seed=0, scope="toy", drawn=None, **changes
):
    judgments, truth = draw_judgments(
        list(accuracies), num_tasks=num_tasks, votes_per_task=votes_per_task, seed=seed, **(drawn or {})
    )
    gold = {task: 1.0 if better == "a" else -1.0 for task, better in truth.items()}
    summary, rows = stage(tmp_path, write_run(tmp_path / "in", judgments, gold=gold), scope=scope, **changes)
    return summary, rows, judgments, truth


def test_votes_become_preferences(tmp_path):
    summary, rows, judgments, truth = aggregated(tmp_path)
    assert len(rows) == 200
    assert {name for p in rows for name in p.judgments} == {j.id for j in judgments}
    assert all(p.num_votes == len(p.judgments) == 5 for p in rows)
    right = sum((p.chosen.startswith("first")) == (truth[p.meta["task_id"]] == "a") for p in rows)
    assert right / 200 == pytest.approx(values(summary)["aggregated accuracy against gold"])
    assert right / 200 > 0.9
    assert values(summary)["single-vote accuracy against gold"] == pytest.approx(0.85, abs=0.03)
    assert next(f for f in summary.figures if f.name == "gain of aggregation").low > 0.05
    assert values(summary)["percent agreement"] == pytest.approx(0.85**2 + 0.15**2, abs=0.03)
    assert values(summary)["estimated flip rate"] == pytest.approx(0.15, abs=0.03)
    assert summary.facts["ceiling_high"] == pytest.approx(0.85, abs=0.03)
    assert summary.facts["ceiling_label"] == pytest.approx(right / 200, abs=0.04)
    assert [v.gate for v in summary.verdicts] == ["preferences.agreement", "preferences.alpha", "preferences.count"]
    assert [v.outcome for v in summary.verdicts] == ["PASS", "WARN", "WARN"]
    assert len(read_json(tmp_path / "out" / "raters.json")) == 10
    assert summary_from_dict(summary.to_dict()) == summary


def test_counts_reconcile(tmp_path):
    judgments, _ = draw_judgments([0.8] * 6, num_tasks=40, votes_per_task=2, seed=0, tie_share=0.2)
    judgments.append(Judgment(task_id="t0", rater="someone", rater_kind="human", verdict="skip"))
    texts = {"t3": ("same", "same"), "t40": ("nobody", "voted")}
    summary, rows = stage(tmp_path, write_run(tmp_path / "in", judgments, texts=texts))
    left_out = summary.facts["num_left_out"]
    assert left_out["with equal texts"] == left_out["without a vote"] == 1
    assert left_out["tied"] > 0
    assert summary.facts["num_pairs_in"] == 41 == len(rows) + sum(left_out.values())
    assert summary.facts["num_train"] + summary.facts["num_heldout"] == len(rows)
    assert any("1 skip is no vote" in note for note in summary.notes)
    assert "labels a, b, tie" in summary.verdicts[0].note
    kept, _ = stage(tmp_path, write_run(tmp_path / "in", judgments, texts=texts), ties="keep")
    assert kept.facts["num_ties"] == left_out["tied"]


def test_own_splits_of_prompts_are_kept(tmp_path):
    judgments, _ = draw_judgments([0.8] * 5, num_tasks=30, votes_per_task=3, seed=0)
    splits = {f"t{i}": "heldout" for i in (1, 5, 7)}
    _, rows = stage(tmp_path, write_run(tmp_path / "in", judgments, splits=splits), heldout=0.5)
    assert {p.meta["task_id"] for p in rows if p.split == "heldout"} == set(splits)


def test_without_own_splits_prompts_are_divided(tmp_path):
    summary, rows, *_ = aggregated(tmp_path, heldout=0.25)
    held = {p.prompt for p in rows if p.split == "heldout"}
    assert 20 < len(held) < 85
    assert not held & {p.prompt for p in rows if p.split == "train"}
    assert summary.facts["num_heldout"] == sum(p.split == "heldout" for p in rows)


def test_noise_is_stopped(tmp_path):
    summary, *_ = aggregated(tmp_path, accuracies=[0.52] * 8, scope="narrow")
    outcomes = {v.gate: v for v in summary.verdicts}
    assert outcomes["preferences.agreement"].outcome == outcomes["preferences.alpha"].outcome == "STOP"
    assert outcomes["preferences.agreement"].is_blocking
    assert outcomes["preferences.count"].outcome == "WARN"


def test_one_vote_a_pair_measures_no_agreement(tmp_path):
    summary, rows, *_ = aggregated(tmp_path, votes_per_task=1)
    assert len(rows) == 200
    assert summary.verdicts[0].n == 0
    assert "not measured" in summary.headline
    assert "agreement" not in summary.facts


def test_the_same_votes_give_the_same_bytes(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    aggregated(one)
    aggregated(two)
    for name in ("preferences.jsonl", "raters.json"):
        assert (one / "out" / name).read_bytes() == (two / "out" / name).read_bytes()


def test_min_votes_and_min_posterior(tmp_path):
    summary, rows, *_ = aggregated(tmp_path, min_posterior=0.95)
    assert all(p.p_chosen >= 0.95 for p in rows)
    assert summary.facts["num_left_out"]["tied"] == 200 - len(rows) > 0
    with pytest.raises(DataError, match=r"is empty: of 200 pairs 200 with fewer than 6 votes"):
        aggregated(tmp_path / "2", min_votes=6)


def test_pairs_of_a_file_are_held_out_with_their_prompts(tmp_path):
    rows = [{"prompt": f"Question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(50)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    held = {3, 11, 40}
    (tmp_path / "prompts").mkdir()
    write_jsonl(tmp_path / "prompts" / "prompts.jsonl", [
        Prompt(messages=(Message(role="user", content=f"question  {i}"),), split="heldout" if i in held else "train") for i in range(45)
    ])  # fmt: skip
    _, found = stage(tmp_path, {"prompts": tmp_path / "prompts"}, path="pairs.jsonl", heldout=0.5)
    assert len(found) == 50
    assert {p.chosen for p in found if p.split == "heldout"} == {f"good {i}" for i in held}


def test_a_file_of_preferences(tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(50)]
    rows += [rows[0], {"prompt": "q", "chosen": "same", "rejected": "same"}]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    summary, found = stage(tmp_path, {}, path="pairs.jsonl", heldout=0.2)
    assert len(found) == 50
    assert {p.split for p in found} == {"train", "heldout"}
    assert [v.gate for v in summary.verdicts] == ["preferences.count"]
    assert any("Read 51 of 52 rows" in note and "1 rejected" in note for note in summary.notes)
    assert summary.facts["num_left_out"] == {"repeating another pair": 1}
    assert (tmp_path / "out" / "rejects.jsonl").exists()
    assert not (tmp_path / "out" / "raters.json").exists()


def test_our_own_preferences_keep_their_splits(tmp_path):
    _, rows, *_ = aggregated(tmp_path / "first", heldout=0.3)
    write_jsonl(tmp_path / "again.jsonl", rows)
    _, found = stage(tmp_path, {}, path="again.jsonl", heldout=0.01)
    assert [(p.id, p.split) for p in found] == [(p.id, p.split) for p in rows]


def test_one_pair_many_times_is_refused(tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": "q", "chosen": "good", "rejected": "bad"}] * 5)
    with pytest.raises(DataError, match="one pair 5 times"):
        stage(tmp_path, {}, path="pairs.jsonl")
    assert not (tmp_path / "out" / "preferences.jsonl").exists()


def test_votes_on_unknown_tasks_are_refused(tmp_path):
    judgments, _ = draw_judgments([0.8] * 3, num_tasks=3, votes_per_task=2, seed=0)
    inputs = write_run(tmp_path / "in", judgments)
    write_jsonl(
        tmp_path / "in" / "judgments.jsonl",
        [*judgments, Judgment(task_id="t9", rater="r", rater_kind="human", verdict="a")],
    )
    with pytest.raises(DataError, match="=t9 names what is not there"):
        stage(tmp_path, inputs)


def test_only_skips_are_no_votes(tmp_path):
    inputs = write_run(tmp_path / "in", [Judgment(task_id="t0", rater="r", rater_kind="human", verdict="skip")])
    with pytest.raises(DataError, match=r"holds no vote \(1 skips\)"):
        stage(tmp_path, inputs)


def test_a_format_needs_a_file(tmp_path):
    with pytest.raises(ConfigError, match=r"format=hh has no file to apply to"):
        stage(tmp_path, {}, format="hh")
