"""The comparison with TRL: its arithmetic by hand, the order of its batches, and a run of small cells with a peer that answers or fails."""

import json
import math
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import work as tiny_work  # noqa: E402
from benchmarks.offline import cell_plan, cells, flops, run, summary  # noqa: E402
from benchmarks.offline.work import SHAPES  # noqa: E402


def test_flops_of_a_pair_by_hand():
    """S: H 288, six layers of 288 (2 * 288 + 2 * 288 + 3 * 768) = 995,328 weights, head 8,192 * 288. A prompt of 3 with completions of 2 and 1:
    9 useful tokens, 6 computed when shared; pairs of query and key 5 * 6 / 2 + 4 * 5 / 2 = 25, less the second prompt's 6."""
    weights, head, a_pair = 6 * 995_328, 8192 * 288, 12 * 288 * 6

    def of(*, has_head, has_reference, is_shared):
        return 9 * flops.flops_per_token(
            SHAPES["S"], [(3, (2, 1))], has_head=has_head, has_reference=has_reference, is_shared=is_shared
        )

    assert of(has_head=False, has_reference=False, is_shared=False) == 6 * 9 * weights + 25 * a_pair
    assert of(has_head=False, has_reference=False, is_shared=True) == 6 * 6 * weights + 19 * a_pair
    assert of(has_head=True, has_reference=False, is_shared=True) == 6 * (6 * weights + 3 * head) + 19 * a_pair
    assert of(has_head=True, has_reference=True, is_shared=True) == pytest.approx(
        8 * (6 * weights + 3 * head) + 19 * a_pair * 16 / 12
    )


def test_flops_know_grouped_heads():
    """M: 9 heads of 64, 3 for keys and values: 576 (2 * 576 + 2 * 192 + 3 * 1536) a layer."""
    assert flops.layer_weights(SHAPES["M"]) == 576 * (1152 + 384 + 4608)


@pytest.mark.parametrize(
    ("row", "lengths"),
    [
        ({"prompt_ids": [1] * 4, "completion_ids": [1] * 2}, (4, (2,))),
        ({"prompt_ids": [1] * 4, "chosen_ids": [1] * 2, "rejected_ids": [1]}, (4, (2, 1))),
        ({"prompt_ids": [1] * 4, "completions_ids": [[1], [1] * 5, [1] * 2]}, (4, (1, 5, 2))),
    ],
)
def test_lengths_of_rows(row, lengths):
    assert flops.lengths_of(row) == lengths
    assert flops.useful_tokens(lengths) == sum(lengths[0] + n for n in lengths[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("num", [1, 2, 7, 100, 256])
def test_every_batch_comes_once_after_the_largest(num, seed):
    sizes = [(7 * i) % num for i in range(num)]
    order = cells.fair_order(sizes, seed=seed)
    assert sizes[order[0]] == max(sizes)
    assert sorted(order[1:]) == list(range(num))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("steps", [8, 11, 16, 29, 50])
def test_any_stretch_is_a_fair_sample(steps, seed):
    """Batches as TRL groups them have sizes from 1 to 256, descending: as they come, the first few are all long. The mean of
    eight lies within 15 % of that of all, of sixteen within 8 %; also after the eight steps of a warm-up."""
    sizes = list(range(256, 0, -1))
    order = cells.fair_order(sizes, seed=seed)[1:]
    for part in (order[:steps], order[7 : 7 + steps]):
        assert sum(sizes[i] for i in part) / steps == pytest.approx(128.5, rel=0.15 if steps < 16 else 0.08)
    assert sum(sizes[:steps]) / steps > 230


def test_seconds_a_token_by_hand():
    """100 tokens/s, and a reference pass of 3 s over rows of 600 tokens: 0.01 + 0.005; the median step's 0.02 in its place. The rows of the timed
    steps, which are longer, do not enter."""
    cell = {"tokens_per_s": 100.0, "median_s_per_token": 0.02, "prepared": {"rows": 6, "tokens": 600, "seconds": 3.0}}
    assert summary.seconds_per_token(cell) == pytest.approx(0.015)
    assert summary.seconds_per_token(cell, is_median=True) == pytest.approx(0.025)
    assert summary.seconds_per_token({**cell, "prepared": {}}) == pytest.approx(0.01)


def test_the_clock_leaves_the_warm_up_out(monkeypatch):
    """Steps of 5, 1, 2 and 4 s, of 10 tokens each; the first is warm-up."""
    clock = cells.Clock(7.0, warmup=1, min_steps=3)
    monkeypatch.setattr(clock, "_gemm_flops", lambda: 1e9)
    time = iter([0.0, 5.0, 5.0, 6.0, 6.0, 8.0, 8.0, 12.0, 12.0])
    monkeypatch.setattr(cells, "now", lambda _device: next(time))
    clock.last = cells.now("cpu")
    assert [clock.tick(rows=2, tokens=10) for _ in range(4)] == [False, False, False, True]
    found = clock.summary()
    assert (found["num_steps"], found["num_warmup"], found["seconds"], found["rows"], found["tokens"]) == (
        3,
        1,
        7,
        6,
        30,
    )
    assert found["tokens_per_s"] == pytest.approx(30 / 7) and found["median_step_s"] == 2
    assert found["median_s_per_token"] == pytest.approx(0.2)


def test_the_fastest_setting_is_found_by_measurement():
    assert summary.wanted({"default": 3.0, "grouped": 2.0, "grouped_bf16": 1.0, "packing_bf16": 1.5}) == [
        ("bf16", "grouped_bf16", True), ("bf16", "default", False), ("bf16", "packing_bf16", False), ("fp32", "grouped", False),
    ]  # fmt: skip
    assert summary.wanted({"grouped_bf16": 1.0, "packing_bf16": 0.5})[0] == ("bf16", "packing_bf16", True)
    assert summary.wanted({"grouped": 1.0, "grouped_bf16": 2.0})[0] == ("bf16", "grouped", True)
    assert summary.wanted({}) == []


def test_losses_that_disagree_keep_a_method_from_being_timed():
    work = cell_plan.WORKS[0]
    losses = {"ours": [1.0, 2.0], "trl": [1.0, 2.002], "ours_bf16": [1.01, 2.0], "trl_bf16": [1.0, 2.002]}
    found = [{"size": "S", "method": "sft", "name": name, "losses": values} for name, values in losses.items()]
    assert cell_plan.differences(work, found[:3]) is None and cell_plan.agrees(work, found[:3]) is None
    assert cell_plan.differences(work, found) == {"fp32": 0.001, "ours_bf16": 0.01, "peer_bf16": 0.0}
    assert cell_plan.agrees(work, found) is False


def test_repeats_alternate_and_losses_come_first():
    keys = [key for _, key in cell_plan.planned(cell_plan.WORKS[:2], repeats=2)]
    assert all("agree" in key for key in keys[:8]) and len({key["method"] for key in keys[:8]}) == 2
    assert [key["repeat"] for key in keys[8:]] == [0] * 11 + [1] * 11
    assert [key["side"] for key in keys[8:12]] == ["ours", "trl", "ours", "trl"]


ANSWER = {
    "num_steps": 8, "num_warmup": 8, "seconds": 2.0, "rows": 64, "tokens": 2000, "tokens_per_s": 1000.0, "median_step_s": 0.25,
    "median_s_per_token": 0.001, "prepared": {"rows": 8, "tokens": 500, "seconds": 0.5}, "memory_mb": 100.0,
    "peak_gflops": {"fp32": 1.0, "bf16": 2.0}, "versions": {"trl": "1.16.0"},
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """A folder with a small model and few rows in the place of S."""
    folder = tmp_path / "place" / "S"
    tiny_work.make(folder, "tiny", device="cpu")
    (folder / "long.jsonl").write_text((folder / "pairs.jsonl").read_text())
    (folder / "checksums.json").write_text("{}")
    return folder.parent


def peer(path, line):
    """An interpreter that runs one shell command whatever it is given."""
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def test_a_run_goes_on_where_it_was_and_survives_a_failure(place, tmp_path, capsys):
    results = tmp_path / "offline.json"
    more = [
        "--works",
        "S/long",
        "--repeats",
        "1",
        "--seconds",
        "0.05",
        "--place",
        str(place),
        "--results",
        str(results),
    ]
    bad = peer(tmp_path / "bad", "echo 'no such model [here]' >&2; exit 3")
    assert run.main([*more, "--plan"]) == 0
    assert "S/long, ours bf16, repeat 1" in capsys.readouterr().out and not (place / "cells.jsonl").exists()
    assert run.main([*more, "--max-cells", "1", "--peer-python", bad]) == run.MORE_LEFT and not results.exists()
    assert run.main([*more, "--peer-python", bad]) == 1
    ours, theirs = map(json.loads, (place / "cells.jsonl").read_text().splitlines())
    assert ours["num_steps"] >= 8 and ours["num_warmup"] == 8 and ours["prepared"]["tokens"] > 0
    assert ours["commit"] and ours["device"] == cells.device_name() and ours["versions"]["torch"] and ours["wall_s"] > 0
    assert theirs["failed"] == "status 3: no such model [here]" and "no such model [here]" in capsys.readouterr().out
    good = peer(tmp_path / "good", f"echo '{json.dumps(ANSWER)}'")
    assert run.main([*more, "--retry-failed", "--peer-python", good]) == 0
    (row,) = json.loads(results.read_text())
    rate = 1 / (1 / ours["tokens_per_s"] + ours["prepared"]["seconds"] / ours["prepared"]["tokens"])
    assert (
        row["work"] == "offline long S"
        and row["peer"]["median"] == 500
        and row["ours"]["median"] == pytest.approx(rate, rel=1e-3)
    )
    assert row["ratio"]["median"] == pytest.approx(rate / 500, abs=2e-3) and row["steps"]["peer"]["warmup"] == 8
    assert (
        "its fastest" in row["setting"]
        and row["commit"].startswith(ours["commit"][:7])
        and row["peak_gflops"]["bf16"] >= 2
    )
    assert "offline" not in row["peer_version"] and math.isfinite(row["mfu"]["ours"])
