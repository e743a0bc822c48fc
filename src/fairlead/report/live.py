"""The training that is going on, read from its work folder: the same figures, charts and samples as in a report, half way.

A training writes `live.json` (what it is), `metrics.jsonl`, `alerts.jsonl` and `samples.jsonl` there; nothing here writes or waits.
Who holds the lock of its folder trains it; where nobody does, the process was ended and the page says so.

Example:
    run = read_live(home)          # a RunReport for build_report, or None while nothing trains
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError
from fairlead.core.gates import figure, some
from fairlead.core.summary import Chart, Figure, SamplePair, Series, SeriesRole, StageSummary, Table, Threshold
from fairlead.report.run import RunReport, StageReport
from fairlead.report.stages import duration
from fairlead.store.work import FOLDER, is_in_use
from fairlead.telemetry import PHASES, phase_words
from fairlead.telemetry.alert_table import ALERTS, STOPPED, alert_table
from fairlead.telemetry.metrics import METRICS, Metric, describe
from fairlead.telemetry.sinks import read_metrics

MAX_POINTS = 400
_NOTHING = "Nothing trains at the moment. A training is shown as soon as it logs its first step: fairlead run RECIPE"
_PACE_ROWS = 20
"""Rows whose mean pace says how long it still takes."""
_WATCHED: tuple[tuple[str, tuple[tuple[str, str, SeriesRole], ...], bool], ...] = (
    ("How far does the policy move from its reference?", (("rl/kl_k1", "KL", "policy"),), True),
    ("Does the reward rise?", (("rl/score", "score", "reward"), ("rl/reward", "after penalties", "policy")), False),
    ("Do replies grow?", (("rl/length_tokens", "length", "policy"),), True),
    ("Does it still explore?", (("rl/entropy", "entropy", "policy"),), True),
    (
        "Do replies become alike?",
        (("rl/distinct_2", "different pairs", "policy"), ("rl/repetition", "repeated", "neutral")),
        True,
    ),
    ("What does a nat of KL cost?", (("rl/kl_coef", "coefficient", "neutral"),), True),
    (
        "How fast is each phase?",
        (
            (PHASES["generate"], "generate", "policy"),
            (PHASES["score"], "score", "reward"),
            (PHASES["update"], "update", "neutral"),
        ),
        True,
    ),
)
"""Charts of on-policy training, KL first; other trainings get one a metric."""
_KEY = {
    "rl/kl_k1": "KL", "rl/score": "score", "rl/length_tokens": "length", "dpo/kl_k1": "log-ratio of chosen", "dpo/accuracy": "accuracy of the batch",
    "reward/accuracy": "accuracy of the batch", "sft/loss": "loss",
}  # fmt: skip
"""Figures of the answer, the first three that are logged."""
_LEFT = "Nobody trains it any more: its process ended before it was done. The same command goes on from its last checkpoint."
Curves = Mapping[str, Sequence[tuple[int, float]]]


def find_work(home: Path, *, run: str = "") -> Path | None:
    """Work folder of the training (of `recipe/stage`, where that is given) that runs, or else was left, and logged last; None without any."""
    found = [path for path in home.glob("work/**/live.json") if (path.parent / "metrics.jsonl").is_file()]
    if run:
        found = [path for path in found if json.loads(path.read_text(encoding="utf-8"))["run"] == run]
    logged = {path.parent: (path.parent / "metrics.jsonl").stat().st_mtime_ns for path in found}
    return max(logged, key=lambda work: (_runs(home, work), logged[work])) if logged else None


def nothing_trains(home: Path) -> str:
    """What is said while nothing trains, and where the report of the run that ended last lies."""
    reports = sorted(home.glob("*/report.html"), key=lambda path: path.stat().st_mtime_ns)
    return f"{_NOTHING}. The newest report: {reports[-1]}" if reports else _NOTHING


def _runs(home: Path, work: Path) -> bool:
    """Whether a process trains there now; a member of an ensemble stands under the folder of its stage."""
    return is_in_use(home / FOLDER / work.relative_to(home / FOLDER).parts[0])


def read_live(home: Path, *, run: str = "") -> RunReport | None:
    """What trains now as a report of one stage; None while nothing does.

    Args:
        run: `recipe/stage` to look for; empty takes whatever logged last.
    Raises:
        DataError: its metrics are damaged; the line is named.
    """
    work = find_work(home, run=run)
    if work is None:
        return None
    try:
        facts = json.loads((work / "live.json").read_text(encoding="utf-8"))
        curves: Curves = read_metrics(work / "metrics.jsonl")
    except DataError:
        if (work / "metrics.jsonl").is_file():
            raise
        return None  # it ended between two looks
    except (OSError, ValueError):  # the same
        return None
    step = max((curve[-1][0] for curve in curves.values()), default=0)
    figures = tuple(_figure(name, label, curves) for name, label in _KEY.items() if name in curves)[:3]
    alerts = _rows(work / ALERTS)
    warned = (
        f" {some(len(alerts), 'alert')}, the last: {alerts[-1]['level']} {alerts[-1]['rule']}."
        if alerts
        else " No alert."
    )
    heard = (
        f"its last row is of {datetime.fromisoformat(_written(work)):%H:%M:%S} UTC"
        if curves
        else "no row was logged yet"
    )
    is_stopped = bool(alerts) and alerts[-1]["step"] == step and STOPPED in alerts[-1]["results"]
    runs = _runs(home, work)
    state = "was stopped at" if is_stopped else "is at" if runs else "ended at"
    pace = _pace(curves, facts["num_steps"] - step, runs=runs)
    headline = f"{facts['title']} {state} step {step} of {facts['num_steps']}{pace}; {heard}.{warned}"
    said = "Training was stopped by a rule." if is_stopped else "Training goes on." if runs else _LEFT
    summary = StageSummary(stage=facts["title"], headline=said, charts=_charts(curves), tables=_tables(alerts, curves),
                           samples=tuple(SamplePair(**row) for row in _rows(work / "samples.jsonl")))  # fmt: skip
    stage = StageReport(
        title=facts["title"], summary=summary, seconds=0.0, cached=False, artifact_id="not finished", memory_mb=None
    )
    name = facts["run"].partition("/")[0] or facts["title"]
    recipe = _recipe(home, name)
    return RunReport(name=name, created=_written(work), scope=str(recipe.get("scope", "")), model=str(recipe.get("model", "")),
                     answer=headline, key_figures=figures, stages=(stage,), lineage=(), command=f"fairlead report {name} --follow")  # fmt: skip


def _pace(curves: Curves, num_left: int, *, runs: bool) -> str:
    rows = [seconds for _, seconds in curves.get("train/step_s", ())][-_PACE_ROWS:]
    if not rows:
        return ""
    left = num_left * sum(rows) / len(rows)
    phases = phase_words({phase: curves[name][-1][1] for phase, name in PHASES.items() if name in curves})
    told = f", {figure(rows[-1])} s a step" + (f" ({phases})" if phases else "")
    return told + (f", about {duration(left)} left" if runs and num_left > 0 else "")


def _recipe(home: Path, name: str) -> Mapping[str, Any]:
    """What the run's folder says of it; empty where it has none."""
    try:
        found = json.loads((home / name / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _figure(name: str, label: str, curves: Curves) -> Figure:
    """The last value; of KL with the interval of its round."""
    step, value = curves[name][-1]
    error = dict(curves.get(f"{name}_error", ())).get(step)
    low, high = (None, None) if error is None else (value - 1.96 * error, value + 1.96 * error)
    note = f"step {step}" if error is not None else f"step {step}; no interval: a mean over one step"
    return Figure(name=label, value=value, low=low, high=high, unit=describe(name).unit, note=note)


def _charts(curves: Curves) -> tuple[Chart, ...]:
    charts = [_chart(question, names, curves, y_zero=y_zero) for question, names, y_zero in _WATCHED]
    if not any(chart.series for chart in charts):
        own = [m for m in METRICS if m.name in curves and m.area not in ("training", "train") and not m.is_live]
        charts = [
            _chart(m.meaning.split(";")[0], ((m.name, m.name.split("/")[-1], "policy"),), curves, y_zero=False)
            for m in own[:6]
        ]
    return tuple(chart for chart in charts if chart.series)


def _chart(question: str, names: Sequence[tuple[str, str, SeriesRole]], curves: Curves, *, y_zero: bool) -> Chart:
    there = [row for row in names if row[0] in curves]
    healthy = describe(there[0][0]).healthy if there and there[0][0] == "rl/kl_k1" else None
    limits = (Threshold(label="warn", value=healthy[1], kind="warn"),) if healthy else ()
    series = tuple(Series(label=label, role=role, points=_thin(curves[name])) for name, label, role in there)
    unit = describe(there[0][0]).unit if there else ""
    return Chart(
        question=question, x_label="optimiser step", y_label=unit, series=series, thresholds=limits, y_zero=y_zero
    )


def _tables(alerts: Sequence[Mapping[str, Any]], curves: Curves) -> tuple[Table, ...]:
    order = {m.name: (m.is_diagnostic, i) for i, m in enumerate(METRICS)}
    names = sorted(curves, key=lambda name: order.get(name, (False, len(order))))
    columns = ("metric", "value", "unit", "healthy", "state", "meaning")

    def rows(*, is_diagnostic: bool) -> tuple[tuple[str | float, ...], ...]:
        found = [describe(name) for name in names if describe(name).is_diagnostic == is_diagnostic]
        return tuple(_metric_row(metric, curves[metric.name][-1][1]) for metric in found)

    every = Table(title="Every metric, at its last step", columns=columns, rows=rows(is_diagnostic=False),
                  caption="KL first. A healthy range is where a run that works is usually found.")  # fmt: skip
    losses = Table(title="Diagnostics, at their last step", columns=columns, rows=rows(is_diagnostic=True),
                   caption="Losses, and what makes them up: they say whether the optimiser works, not whether the policy is well.")  # fmt: skip
    return (alert_table(alerts, is_over=False), *(table for table in (every, losses) if table.rows))


def _metric_row(metric: Metric, value: float) -> tuple[str | float, ...]:
    """Its value, the range, and whether it lies outside."""
    return (
        metric.name,
        value,
        metric.unit,
        metric.range_words(),
        "" if metric.is_healthy(value) else "outside",
        metric.meaning,
    )


def _thin(points: Sequence[tuple[int, float]]) -> tuple[tuple[float, float], ...]:
    every = -(-len(points) // MAX_POINTS)
    return tuple((float(x), y) for i, (x, y) in enumerate(points) if i % every == 0 or i == len(points) - 1)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def _written(work: Path) -> str:
    return datetime.fromtimestamp((work / "metrics.jsonl").stat().st_mtime, UTC).isoformat(timespec="seconds")
