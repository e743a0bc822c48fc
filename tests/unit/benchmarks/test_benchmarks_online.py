"""Online steps beside TRL: arithmetic by hand, our side on a small model, a peer that answers; and the sums of kills."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from benchmarks import comparison, kills  # noqa: E402
from benchmarks.gpu import work as tiny_work  # noqa: E402
from benchmarks.online import cells, engine, plan, run, summary  # noqa: E402

ANSWER = {
    "num_steps": 2, "num_warmup": 1, "seconds": 4.0, "median_step_s": 2.0, "steps_s": [2.0, 2.0], "parts_s": {"generate": 1.0}, "memory_mb": 100.0,
    "peak_gflops": {"fp32": 1.0, "bf16": 2.0}, "versions": {"trl": "1.16.0"},
}  # fmt: skip


def test_the_rule_pays_the_share_of_different_tokens():
    assert cells.reward([4, 4, 5, 6]) == 0.75


def test_the_clock_leaves_the_warm_up_out(monkeypatch):
    """Steps of 5, 1 and 3 s; the second has a part of 0.5 s, the third one of 1 s: the mean is 0.75 s."""
    times = iter([0.0, 5.0, 5.2, 5.7, 6.0, 7.0, 8.0, 9.0])
    monkeypatch.setattr(cells.time, "perf_counter", lambda: next(times))
    clock = cells.StepClock(warmup=1)
    clock.start()
    clock.tick()
    for _ in range(2):
        with clock.part("generate"):
            pass
        clock.tick({"train": 0.25})
    found = clock.summary()
    assert (found["num_steps"], found["seconds"], found["median_step_s"]) == (2, 4.0, 2.0)
    assert found["parts_s"] == {"generate": 0.75, "train": 0.25}


def test_the_largest_step_comes_first_and_repeats_go_on(tmp_path):
    """Steps of two prompts of lengths (1, 2), (3, 9), (5, 6); the next repeat has the next six."""
    lengths = [1, 2, 3, 9, 5, 6, *[7] * 6]
    (tmp_path / "sft.jsonl").write_text("".join(json.dumps({"prompt_ids": [4] * n}) + "\n" for n in lengths))
    args = cells.argparse.Namespace(work=tmp_path, agree=0, warmup=1, steps=2, prompts=2, repeat=0)
    assert [len(ids) for ids in cells.prompts_of(args)] == [3, 9, 1, 2, 5, 6]
    args.repeat = 1
    assert [len(ids) for ids in cells.prompts_of(args)] == [7] * 6


def test_losses_are_compared_relative_to_the_peers():
    """GRPO has norms too: 2.002 against 2.0 is off by 0.001."""
    rows = [
        {"method": "grpo", "side": "ours", "losses": [1.0], "norms": [2.002]},
        {"method": "grpo", "side": "trl", "losses": [1.0], "norms": [2.0]},
    ]
    assert plan.difference("grpo", rows) == 0.001
    assert plan.difference("grpo", rows[:1]) is None and plan.difference("ppo", rows) is None


def test_repeats_alternate_and_losses_come_first():
    keys = [key for _, key in plan.planned(plan.WORKS[:2], repeats=2)]
    assert [key.get("agree") for key in keys[:5]] == [10, 10, 3, 3, None]
    assert [(k["side"], k["setting"]) for k in keys[4:8]] == [
        ("ours", "default"),
        ("trl", "bf16_kl"),
        ("ours", "no_kl"),
        ("trl", "bf16"),
    ]
    assert [k["repeat"] for k in keys[4:]] == [0] * 13 + [1] * 13


def test_what_does_the_same_is_compared_with_the_fastest():
    grpo, ppo = plan.WORKS[:2]
    found = plan.comparisons(grpo, {"bf16_kl": 1.0, "fp32_kl": 2.0, "bf16": 5.0, "fp32": 4.0, "default": 3.0})
    assert [pair[:2] for pair in found] == [
        ("default", "fp32_kl"),
        ("fp32", "fp32_kl"),
        ("no_kl", "bf16"),
        ("default", "default"),
    ]
    assert [pair[:2] for pair in plan.comparisons(ppo, {"bf16": 2.0, "default": 1.0})] == [
        ("default", "bf16"),
        ("default", "default"),
        ("fp32", "bf16"),
    ]
    assert [pair[:2] for pair in plan.comparisons(ppo, {"bf16": 1.0, "default": 2.0})] == [
        ("default", "default"),
        ("fp32", "default"),
    ]
    assert plan.comparisons(ppo, {}) == []
    assert plan.comparisons(grpo, {}) == []


@pytest.fixture
def place(tmp_path):
    """A folder with a small model and few rows in the place of S."""
    folder = tmp_path / "work" / "S"
    tiny_work.make(folder, "tiny", device="cpu")
    rows = [{"prompt_ids": [5 + i, 6, 7], "completion_ids": [8, 9, 10, 2]} for i in range(8)]
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ranked = [
        {"prompt_ids": [5 + i, 6, 7], "completions_ids": [[8 + j, 9, 8 + j, 2][j % 2 :] for j in range(8)]}
        for i in range(8)
    ]
    (folder / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ranked))
    (folder / "checksums.json").write_text("{}")
    return folder.parent


def test_a_run_takes_our_cells_and_the_peers_and_divides(place, tmp_path, monkeypatch, capsys):
    small = plan.Work(name="S/grpo", size="S", method="grpo", warmup=1, steps=2, new=4, wall_s=1, peer=("bf16_kl",))
    monkeypatch.setattr(run, "WORKS", (small,))
    answer = tmp_path / "peer"
    losses = tmp_path / "losses.json"
    answer.write_text(f"#!/bin/sh\ncase \"$*\" in *--agree*) cat {losses};; *) echo '{json.dumps(ANSWER)}';; esac\n")
    answer.chmod(0o755)
    more = ["--works", "S/grpo", "--repeats", "1", "--work-place", str(place), "--place", str(tmp_path / "cells"), "--results",
            str(tmp_path / "online.json"), "--trl-python", str(answer)]  # fmt: skip
    assert run.main([*more, "--plan"]) == 0 and "S/grpo, trl bf16_kl, repeat 1" in capsys.readouterr().out
    assert run.main([*more, "--max-cells", "1"]) == run.MORE_LEFT
    (ours,) = map(json.loads, (tmp_path / "cells" / "cells.jsonl").read_text().splitlines())
    assert len(ours["losses"]) == len(ours["norms"]) == 10 and any(abs(x) > 1e-3 for x in ours["losses"]), ours
    losses.write_text(json.dumps({"losses": ours["losses"], "norms": ours["norms"], "versions": {}}))
    assert run.main(more) == 0
    (row,) = json.loads((tmp_path / "online.json").read_text())
    timed = json.loads((tmp_path / "cells" / "cells.jsonl").read_text().splitlines()[2])
    assert row["peer"]["median"] == 0.5 and row["loss_difference"]["fp32"] == 0.0 and row["memory_mb"]["peer"] == 100
    assert row["ratio"]["median"] == pytest.approx(summary.rate(timed) / 0.5, rel=1e-3)
    assert (
        set(row["parts_s"]["ours"]) == {"generate", "score", "forward", "train"}
        and row["work"] == "online grpo S 2x8x4"
    )


def test_losses_that_disagree_keep_a_method_from_being_timed(tmp_path):
    rows = [
        {"method": "grpo", "work": "S/grpo", "side": side, "losses": [x], "device": comparison.device_name()}
        for side, x in (("ours", 1.0), ("trl", 2.0))
    ]
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = run.parse_args(["--works", "S/grpo", "--place", str(tmp_path)])
    assert all("agree" in key for _, key in comparison.left(run.COMPARISON, args))


def test_kills_are_summed_by_method(tmp_path):
    base = {"method": "ppo", "num_steps": 96, "differ": [], "commit": "abc", "date": "2026-01-01", "device": "here"}
    rows = [{**base, "kill": 0, "resumed_at": 3, "identical": True}, {**base, "kill": 1, "resumed_at": None, "identical": True},
            {**base, "kill": 2, "resumed_at": 9, "identical": False}]  # fmt: skip
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = kills.summarise("ppo", tmp_path)
    assert found is not None and (found["kills"], found["identical"], found["resumed"]) == (3, 2, 2)
    args = kills.argparse.Namespace(methods=["ppo", "dpo"], kills=4, place=tmp_path)
    assert kills.what_is_left(args) == [("dpo", 0), ("dpo", 1), ("dpo", 2), ("ppo", 3), ("dpo", 3)]
    assert found["resumed_at"] == {"min": 3, "median": 6, "max": 9} and kills.summarise("dpo", tmp_path) is None


def test_the_fastest_way_of_each_peer_makes_a_row(tmp_path, monkeypatch):
    """generate in batches of 64 (20 tokens/s) before those of 32 (10), vLLM in bf16 (50) before fp32 (40); ours 100 and 150."""
    monkeypatch.setattr(engine, "CELLS", tmp_path)
    speeds = {
        "ours-fp32": 100.0,
        "ours-bf16": 150.0,
        "generate-32": 10.0,
        "generate-64": 20.0,
        "vllm-fp32": 40.0,
        "vllm-bf16": 50.0,
    }
    about = {
        "memory_mb": 10.0,
        "roofline": {},
        "commit": "abc",
        "date": "2026-01-01",
        "device": "a CPU",
        "versions": {"vllm": "1.0"},
    }
    rows = [
        {"size": "S", "work": "mixed", "side": side, "repeat": 0, "tokens_per_s": speed, **about}
        for side, speed in speeds.items()
    ]
    (tmp_path / "cells.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generate, vllm = engine.summarise("S", "mixed")
    assert generate["ratio"]["median"] == 5.0 and "batches of 64" in generate["setting"]
    assert vllm["ratio"]["median"] == 3.0 and vllm["peer_version"] == "vllm 1.0" and "bf16" in vllm["setting"]
    assert engine.sides("mixed", has_vllm=False) == ("ours-fp32", "ours-bf16", "generate-32", "generate-64")
