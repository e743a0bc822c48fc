"""The GPU benchmark: its arithmetic by hand, and the whole of it on a CPU with what a bare machine has."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import run, work  # noqa: E402

NOT_BARE = ("pydantic", "pyarrow", "datasets", "peft", "torchao", "trl", "fastapi", "sqlalchemy", "rich")


@pytest.mark.parametrize("size", list(work.SHAPES))
def test_parameters_are_those_of_the_model(size):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**work.SHAPES[size]))
    assert work.num_parameters(size) == sum(p.numel() for p in model.parameters())


def test_what_fits_by_hand():
    """0.494 G parameters take 8.9 GB with fp32 weights, 7.61 G take 137; with bf16 weights and moments 60.9, so 80 GB hold that and the
    inputs of layers for 4,096 tokens, but not the activations of 8,192."""
    assert 18 * work.num_parameters("0.5B") == pytest.approx(8.9e9, rel=0.01)
    assert 18 * work.num_parameters("7B") == pytest.approx(137e9, rel=0.01)
    assert 8 * work.num_parameters("7B") == pytest.approx(60.9e9, rel=0.01)
    h100 = 79 * 2**30
    assert work.choose_way("0.5B", max_tokens=8192, memory=h100) == "full"
    assert work.choose_way("7B", max_tokens=8192, memory=h100) == "low+recompute"
    assert 60.9e9 < work.needed_bytes("7B", "low+recompute", max_tokens=4096) < 0.92 * h100
    assert work.needed_bytes("7B", "low", max_tokens=8192) > h100
    assert work.choose_way("7B", max_tokens=8192, memory=16 << 30) == "low+recompute", (
        "the smallest, and the run says that it fails"
    )


def test_flops_by_hand():
    """tiny: H 32, two layers of 32 (2 * 32 + 2 * 16 + 3 * 64) = 9,216 weights, head 320 * 32 = 10,240. A prompt of 3 with completions of 2 and 1:
    6 tokens shared, 9 apart; pairs of query and key 5 * 6 / 2 + 4 * 5 / 2 = 25 apart, less a second prompt's 3 * 4 / 2 = 6; 3 tokens learned."""
    rows = [{"prompt_ids": [5] * 3, "chosen_ids": [5] * 2, "rejected_ids": [5]}]

    def flops(method, *, way="full", is_shared=True):
        return 9 * work.flops_per_token("tiny", rows, method=method, way=way, is_shared=is_shared)

    weights, head, pair = 2 * 9216, 10240, 12 * 32 * 2
    assert flops("reward") == 6 * 6 * weights + 19 * pair
    assert flops("reward", is_shared=False) == 6 * 9 * weights + 25 * pair
    assert flops("sft") == 6 * (6 * weights + 3 * head) + 19 * pair
    assert flops("sft", way="lora+recompute") == 4 * (6 * weights + 3 * head) + 19 * pair
    assert flops("dpo") == 8 * (6 * weights + 3 * head) + 19 * 16 * 32 * 2


@pytest.mark.parametrize(
    ("name", "tflops"),
    [("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 PCIe", None), ("NVIDIA H200 NVL", None)],
)  # fmt: skip
def test_peaks_of_cards(name, tflops):
    assert next((peak for pattern, peak in run.CARD_TFLOPS if re.search(pattern, name)), None) == tflops


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_is_refused_in_one_line(tmp_path):
    with pytest.raises(SystemExit) as info:
        run.main(["--place", str(tmp_path)])
    assert "no CUDA device" in str(info.value) and "\n" not in str(info.value)


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """Processes started from here find none of the packages that a bare GPU machine lacks."""
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({NOT_BARE!r}))\n")
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([before] if before else [])]))


def try_out(tmp_path, *more):
    """Run the smallest cells; return the rows of results by work."""
    results = tmp_path / "gpu.json"
    run.main(["--tiny", "--device", "cpu", "--place", str(tmp_path), "--results", str(results), "--repeats", "1", "--seconds", "0.05",
              "--max-tokens", "64", "--minutes", "1000", *more])  # fmt: skip
    return {row["work"]: row for row in json.loads(results.read_text())} if results.exists() else {}


@pytest.mark.usefixtures("bare")
def test_it_runs_on_a_cpu_and_goes_on_where_it_was(tmp_path, capsys):
    only = ("--only", "tiny/sft/*", "tiny/reward/*")
    assert try_out(tmp_path, *only, "--minutes", "0") == {}
    assert "the same command runs the cells that are left" in capsys.readouterr().out
    rows = try_out(tmp_path, *only)
    assert list(rows) == ["gpu sft tiny", "gpu reward tiny"] and "running" in capsys.readouterr().out
    for row in rows.values():
        assert row["ours"]["median"] > 0 and row["memory_mb"]["ours"] > 0 and row["peak_gflops"]["measured"] > 0
        assert 0 <= row["mfu"]["ours"] == row["mfu_of_card"]["ours"] < 1, "a CPU has no figure of a data sheet"
        assert "full; ours 64 tokens a forward; not run" in row["setting"] and "peer" not in row
    assert try_out(tmp_path, *only) == rows and "running" not in capsys.readouterr().out


@pytest.mark.usefixtures("bare")
def test_bf16_weights_with_activations_computed_again_and_a_reference(tmp_path):
    rows = try_out(tmp_path, "--only", "*/dpo/ours", "--way", "low+recompute")
    (cell,) = map(json.loads, (tmp_path / "cells.jsonl").read_text().splitlines())
    assert list(rows) == ["gpu dpo tiny"] and cell["prepared"]["seconds"] > 0 and cell["way"] == "low+recompute"
