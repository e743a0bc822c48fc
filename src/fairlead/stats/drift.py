"""Drift: has a rater, or a run, changed since it was calibrated?

A cumulative sum adds the evidence of each observation for "changed" against "as before", never falls below 0, and alarms at h.
Raters are watched on anchors (items with known labels served again), never on raw agreement, which falls when completions become
more alike. An alarm means recalibration and a second rating of what came after the change, never silent discard.

Legend:
    N  observations in order of time

Example:
    run = bernoulli_cusum(is_anchor_right, p0=0.80, p1=0.65, h=4.0)
    run.alarm, run.change_point
    bernoulli_run_length(0.80, p0=0.80, p1=0.65, h=4.0)  # 1284 anchors between false alarms
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from fairlead.core.errors import DataError, explain
from fairlead.stats.arrays import FloatArray
from fairlead.stats.numerics import solve_sparse

SIEGMUND_OVERSHOOT = 1.166
"""What a normal walk overshoots a boundary by, twice (one per boundary); Siegmund 1985, Sequential Analysis, eq. 10.17."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cusum:
    """A cumulative sum along the observations."""

    path: FloatArray
    """[N] the sum after each observation."""
    alarm: int | None
    """Number of the first observation at which the sum reached h; None when it never did."""
    change_point: int | None
    """Most likely first observation after the change: the one after the sum last was 0; None without an alarm."""


def bernoulli_cusum(correct: ArrayLike, *, p0: float, p1: float, h: float) -> Cusum:
    """Watch a share of right answers fall from p0 to p1.

    Args:
        correct: [N] whether each anchor was labelled right.
        h: alarm level, nats of evidence; choose it by `bernoulli_run_length`.
    Source: Page 1954, Biometrika 41; Reynolds and Stoumbos 1999, Journal of Quality Technology 31.
    """
    up, down = _evidence(p0, p1)
    return _cusum(np.where(np.asarray(correct, dtype=np.bool_), -down, up), h)


def cusum(x: ArrayLike, *, k: float = 0.5, h: float = 8.0) -> Cusum:
    """Watch [N] independent standardised observations rise; pass -x to watch them fall.

    Args:
        x: deviations from the level before, in standard deviations. Whiten what is autocorrelated first (`ar1_residuals`).
        k: half the shift that matters, standard deviations.
        h: alarm level, standard deviations.
    """
    return _cusum(np.asarray(x, dtype=np.float64) - k, h)


def ar1_residuals(x: ArrayLike) -> FloatArray:
    """Standardised residuals of [N] observations after the part that the previous one predicts, [N - 1]."""
    values = np.asarray(x, dtype=np.float64)
    if len(values) < 3:
        return np.zeros(max(len(values) - 1, 0))
    centred = values - values.mean()
    before, after = centred[:-1], centred[1:]
    power = float(before @ before)
    residuals = after - (float(before @ after) / power if power > 0 else 0.0) * before
    spread = float(residuals.std(ddof=1))
    return residuals / spread if spread > 0 else residuals


def bernoulli_run_length(p: float, *, p0: float, p1: float, h: float, resolution: int = 200) -> float:
    """Mean number of anchors until the alarm when the share of right answers is p all along.

    At p = p0 this is the time between false alarms; at p1 or one half it is the delay of detection. The sum moves on a lattice
    of `resolution` steps per right answer (which is exact; a wrong answer is rounded to the lattice), so it is a finite Markov
    chain: L(s) = 1 + p L(max(0, s - down)) + (1 - p) L(s + up) with L = 0 from h on.
    """
    up, down = _evidence(p0, p1)
    cell = down / resolution
    num_states, rise = math.ceil(h / cell - 1e-9), round(up / cell)
    state = np.arange(num_states, dtype=np.int64)
    stays = state[state + rise < num_states]
    rows = np.concatenate([state, state, stays])
    columns = np.concatenate([state, np.maximum(state - resolution, 0), stays + rise])
    values = np.concatenate([np.ones(num_states), np.full(num_states, -p), np.full(len(stays), p - 1)])
    return float(solve_sparse(rows, columns, values, np.ones(num_states))[0])


def cusum_run_length(shift: float, *, k: float = 0.5, h: float = 8.0) -> float:
    """Mean number of standard normal observations, shifted by `shift`, until `cusum` alarms.

    Source: Siegmund 1985; within a few percent of the exact value.
    """
    drift, level = shift - k, h + SIEGMUND_OVERSHOOT
    if abs(drift) < 1e-6:
        return level * level
    return (math.exp(-2 * drift * level) + 2 * drift * level - 1) / (2 * drift * drift)


def _cusum(steps: FloatArray, h: float) -> Cusum:
    totals = np.concatenate([[0.0], np.cumsum(steps)])
    path = (totals - np.minimum.accumulate(totals))[1:]
    over = np.flatnonzero(path >= h)
    if len(over) == 0:
        return Cusum(path=path, alarm=None, change_point=None)
    alarm = int(over[0])
    zeros = np.flatnonzero(path[:alarm] <= 0)
    return Cusum(path=path, alarm=alarm, change_point=int(zeros[-1]) + 1 if len(zeros) else 0)


def _evidence(p0: float, p1: float) -> tuple[float, float]:
    """What a wrong answer adds and a right answer takes away, nats."""
    if not 0 < p1 < p0 < 1:
        raise DataError(explain("drift", f"{p0} to {p1}", "is not a fall of a share", expected="0 < p1 < p0 < 1",
                                remedy="Give the share when calibrated as p0 and the share to detect as p1"))  # fmt: skip
    return math.log((1 - p1) / (1 - p0)), math.log(p0 / p1)
