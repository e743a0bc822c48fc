"""Training curves of a metrics file as charts for the report."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fairlead.core.summary import Chart, Series, SeriesRole, Threshold
from fairlead.stats.intervals import Interval, difference_interval, undefined
from fairlead.stats.numerics import two_sided_z
from fairlead.telemetry.sinks import read_metrics

_MAX_POINTS = 80  # more than a chart this wide can show


def metric_chart(
    path: Path, question: str, names: Sequence[tuple[str, str, SeriesRole]], *, y_label: str, thresholds: tuple[Threshold, ...] = (),
    y_zero: bool = False,
) -> tuple[Chart, ...]:  # fmt: skip
    """One chart of some metrics over the optimiser step; empty when none was recorded.

    Args:
        names: (metric, label at the line's end, role).
    """
    metrics = read_metrics(path)
    series = tuple(
        Series(label=label, role=role, points=_thin(metrics[name])) for name, label, role in names if metrics.get(name)
    )
    if not series:
        return ()
    return (
        Chart(
            question=question,
            x_label="optimiser step",
            y_label=y_label,
            series=series,
            thresholds=thresholds,
            y_zero=y_zero,
        ),
    )


def _thin(points: Sequence[tuple[int, float]]) -> tuple[tuple[float, float], ...]:
    """Means over equal stretches of steps."""
    groups = np.array_split(np.asarray(points, dtype=float), min(_MAX_POINTS, len(points)))
    return tuple((float(g[:, 0].mean()), float(g[:, 1].mean())) for g in groups if np.isfinite(g[:, 1]).all())


def last_metric(path: Path, name: str, *, share: float = 0.1) -> float:
    """Mean of a metric over the last share of the run (NaN when it was not recorded)."""
    points = read_metrics(path).get(name, [])
    tail = points[-max(1, int(len(points) * share)) :]
    return float(np.mean([v for _, v in tail])) if tail else float("nan")


def metric_change(path: Path, name: str, *, error: str, share: float = 0.1) -> Interval:
    """From the first share of the run to the last one: the difference of a metric's means, with its 95 % interval.

    Args:
        error: metric that holds the standard error of each row; rows are of different samples, so that their errors add up.
    Returns:
        n is the number of rows at either end; without an interval where a row has no error.
    """
    metrics = read_metrics(path)
    points, errors = metrics.get(name, []), dict(metrics.get(error, []))
    num = max(1, int(len(points) * share))
    return difference_interval(_mean_of(points[:num], errors), _mean_of(points[-num:], errors))


def _mean_of(points: Sequence[tuple[int, float]], errors: Mapping[int, float]) -> Interval:
    """Mean of some rows."""
    if not points:
        return undefined("no rows", n=0)
    mean, num = float(np.mean([value for _, value in points])), len(points)
    half = two_sided_z(0.95) * math.hypot(*(errors.get(step, math.nan) for step, _ in points)) / num
    return Interval(mean, mean - half, mean + half, num)
