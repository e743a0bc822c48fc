"""How the time of a training step grows, on our side: with tokens, vocabulary, completions a prompt, and the length of prompts.

    python -m benchmarks.offline.scaling                       # about four minutes on two cores; nothing else should run
    python -m benchmarks.offline.scaling --curves tokens completions --steps 9 --precision fp32

SFT steps of model S (with another table for the vocabulary) on rows of random tokens; medians of --steps after a warm-up. Where completions
share a prompt, the same rows with a prompt for each completion are the line to compare with: the loss is the same, the prompts are
computed again. Writes benchmarks/results/offline_scaling.json and draws all curves
that are there into docs/screens/scaling.svg.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.charts import write_svg
from benchmarks.offline import cells
from benchmarks.offline.cell_plan import provenance
from benchmarks.offline.ours import OPTIM
from benchmarks.offline.summary import keep_results
from benchmarks.offline.work import SHAPES, SPECIAL, make_policy
from fairlead.algos import get_algorithm
from fairlead.core.io import read_json
from fairlead.core.summary import Chart, Series
from fairlead.models.load import load_policy
from fairlead.models.memory import keep_freed_memory
from fairlead.text.packing import Branch, Tree
from fairlead.train.forward import Models
from fairlead.train.loop import Learner

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "offline_scaling.json"
CHART = ROOT / "docs" / "screens" / "scaling.svg"
WARMUP_STEPS = 3
WORK = "offline scaling "


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What a step goes over."""

    prompts: int
    prompt: int
    """Tokens."""
    completions: int = 1
    """Of a prompt."""
    completion: int = 128
    """Tokens."""
    is_shared: bool = True
    vocabulary: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Seconds over one quantity."""

    question: str
    x_label: str
    y_label: str
    points: tuple[tuple[float, Rows], ...]
    per_completion: bool = False
    has_unshared: bool = False


CURVES = {
    "tokens": Curve(
        question="Does a step take time in proportion to its tokens?", x_label="tokens of a step", y_label="seconds",
        points=tuple((256 * n, Rows(prompts=n, prompt=128)) for n in (4, 8, 16, 32, 64)),
    ),
    "vocabulary": Curve(
        question="What does a larger vocabulary cost?", x_label="vocabulary", y_label="seconds of a step of 4,096 tokens",
        points=tuple((v, Rows(prompts=16, prompt=128, vocabulary=v)) for v in (2048, 8192, 32768, 65536, 131072)),
    ),
    "completions": Curve(
        question="What does sharing a prompt save?", x_label="completions of 128 tokens for a prompt of 256", y_label="seconds a completion",
        points=tuple((k, Rows(prompts=16 // k, prompt=256, completions=k)) for k in (1, 2, 4, 8)), per_completion=True, has_unshared=True,
    ),
    "prompt": Curve(
        question="And with longer prompts?", x_label="tokens of a prompt with four completions of 128", y_label="seconds a completion",
        points=tuple((n, Rows(prompts=4, prompt=n, completions=4)) for n in (64, 256, 512, 1024)), per_completion=True, has_unshared=True,
    ),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.offline.scaling", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--curves", nargs="+", choices=list(CURVES), default=list(CURVES))
    parser.add_argument("--steps", type=int, default=7, help="timed at each point")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--chart", type=Path, default=CHART)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    rows = []
    for name in args.curves:
        curve = CURVES[name]
        series = {kind: [measure(x, r, args, curve) for x, r in points] for kind, points in variants(curve)}
        rows.append(row_of(name, curve, series, precision=args.precision))
        print(told(rows[-1]), flush=True)
    keep_results(args.results, rows)
    drawn = {row["work"]: row for row in read_json(args.results)}
    names = [WORK + name for name in CURVES]
    write_svg(args.chart, [chart_of(drawn[name]) for name in names if name in drawn])
    return 0


def variants(curve: Curve) -> Iterator[tuple[str, list[tuple[float, Rows]]]]:
    """Names and points of the lines of a curve."""
    yield "shared" if curve.has_unshared else "step", list(curve.points)
    if curve.has_unshared:
        yield "unshared", [(x, replace(rows, is_shared=False)) for x, rows in curve.points]


def measure(x: float, rows: Rows, args: argparse.Namespace, curve: Curve) -> dict[str, float]:
    """Median, least and most seconds of a step, or of a completion of it."""
    learner, batches = make_learner(rows, precision=args.precision), make_trees(rows, num=WARMUP_STEPS + args.steps)
    taken = []
    for trees in batches:
        started = time.perf_counter()
        learner.step(trees)
        taken.append((time.perf_counter() - started) / (rows.prompts * rows.completions if curve.per_completion else 1))
    taken = taken[WARMUP_STEPS:]
    return {
        "x": x,
        "median_s": statistics.median(taken),
        "min_s": min(taken),
        "max_s": max(taken),
        "num_steps": len(taken),
    }


def make_learner(rows: Rows, *, precision: str, shape: dict[str, int] = SHAPES["S"]) -> Learner:
    """SFT on a model of that vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        make_policy(Path(folder), {**shape, "vocab_size": rows.vocabulary})
        policy = load_policy(folder, precision=precision)
    policy.module.train()
    algo = get_algorithm("sft")
    return Learner(models=Models(policy=policy), algo=algo, algo_config=algo.config(), optim=OPTIM, num_steps=10**6)


def make_trees(rows: Rows, *, num: int) -> list[list[Tree]]:
    """Batches of random tokens, the same ones whether prompts are shared or not."""
    rng = np.random.default_rng(0)

    def piece(length: int) -> np.ndarray:
        return rng.integers(len(SPECIAL), rows.vocabulary, length)

    batches = []
    for _ in range(num):
        batch = []
        for _ in range(rows.prompts):
            prompt, branches = (
                piece(rows.prompt),
                tuple(Branch(token_ids=piece(rows.completion)) for _ in range(rows.completions)),
            )
            groups = [branches] if rows.is_shared else [(branch,) for branch in branches]
            batch += [Tree(prompt_ids=prompt, branches=group) for group in groups]
        batches.append(batch)
    return batches


def fit_line(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Least squares: intercept, slope, and the share of the variance that they explain."""
    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    slope, intercept = np.polyfit(x, y, 1)
    left = float(((y - intercept - slope * x) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    return {"intercept": float(intercept), "slope": float(slope), "r2": 1 - left}


def row_of(name: str, curve: Curve, series: dict[str, list[dict]], *, precision: str) -> dict:
    """A curve as results keep it."""
    first = next(iter(series.values()))
    row = {
        "work": WORK + name, "setting": f"{precision}, model S, SFT", "question": curve.question, "x_label": curve.x_label,
        "unit": curve.y_label, "series": series,
    }  # fmt: skip
    if curve.has_unshared:
        row["ratio"] = [
            {"x": a["x"], "ratio": round(b["median_s"] / a["median_s"], 3)}
            for a, b in zip(series["shared"], series["unshared"], strict=True)
        ]
    else:
        row["fit"] = {"step": fit_line([(p["x"], p["median_s"]) for p in first])}
    return {**row, "command": "python -m benchmarks.offline.scaling", **provenance(), "versions": cells.versions()}


def told(row: dict) -> str:
    """A curve in words."""
    if "fit" in row:
        fit = row["fit"]["step"]
        return f"{row['work']}: {fit['intercept']:.3f} s and {1000 * fit['slope']:.4f} s a thousand, R2 {fit['r2']:.4f}"
    ratios = ", ".join(f"{r['x']:g}: {r['ratio']:.2f} x" for r in row["ratio"])
    return f"{row['work']}: unshared over shared {ratios}"


def chart_of(row: dict) -> Chart:
    """A curve as the report draws it; the fit is the quiet line."""
    roles = {"step": "policy", "shared": "policy", "unshared": "reference"}
    series = [
        Series(label=kind, role=roles[kind], points=tuple((p["x"], p["median_s"]) for p in points),
               band=tuple((p["x"], p["min_s"], p["max_s"]) for p in points))
        for kind, points in row["series"].items()
    ]  # fmt: skip
    if "fit" in row:
        fit, last = row["fit"]["step"], row["series"]["step"][-1]["x"]
        ends = tuple((x, fit["intercept"] + fit["slope"] * x) for x in (0.0, last))
        series.append(Series(label="fitted line", role="neutral", points=ends))
    return Chart(
        question=row["question"],
        x_label=row["x_label"],
        y_label=row["unit"],
        series=tuple(series),
        x_zero=True,
        y_zero=True,
    )


if __name__ == "__main__":
    sys.exit(main())
