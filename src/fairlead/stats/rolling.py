"""Agreement along the work: kappa over the latest items, each figure with its interval, and what it asks for.

The statistic is Krippendorff's alpha, which is kappa for any number of votes an item. A project pauses when a whole interval lies below
0.4, because then the votes are noise whatever luck did, and may scale when the newest figure is above 0.6. Windows overlap and are looked
at often, so a pause means "look now", not a test at 5 %.

Legend:
    N  votes in the order in which items were finished
    W  items in a window

Example:
    points = rolling_alpha(votes, seed=0, window=100)
    points[-1].alpha, points[-1].action      # Interval(value=.31, low=.18, high=.39), pause
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.stats.agreement import bootstrap_counts
from fairlead.stats.coincidence import alpha_fixed, alpha_ordinal
from fairlead.stats.intervals import Interval
from fairlead.stats.votes import Votes, counts, refuse_repeats

Action = Literal["pause", "warn", "go_on", "may_scale", "not_measured"]

PAUSE_BELOW = 0.4
"""Kappa below which the guides call votes noise."""
SCALE_ABOVE = 0.6
"""Kappa that the guides ask for before more votes are bought."""
WINDOW = 100
"""Items: kappa to +-.18 at 70 % agreement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollingPoint:
    """Agreement on one window of items."""

    first_item: int
    """Number of the window's first item among those with two votes or more."""
    last_item: int
    alpha: Interval
    action: Action


def action_for(alpha: Interval) -> Action:
    """What a figure asks for: `pause` when all of its interval lies below 0.4, `may_scale` when the figure itself is above 0.6."""
    if not np.isfinite(alpha.value):
        return "not_measured"
    if alpha.high < PAUSE_BELOW:
        return "pause"
    if alpha.value < PAUSE_BELOW:
        return "warn"
    return "may_scale" if alpha.value > SCALE_ABOVE else "go_on"


def rolling_alpha(
    votes: Votes,
    *,
    seed: int,
    window: int = WINDOW,
    step: int | None = None,
    num_resamples: int = 2000,
    is_ordinal: bool = False,
) -> tuple[RollingPoint, ...]:
    """Alpha of the last `window` items, every `step` items, ending with the newest; items stand in order of their first vote.

    Items with one vote are left out beforehand. With fewer items than a window there is one point, on what there is.

    Args:
        step: items between points; None is a quarter of the window.
        is_ordinal: labels are ranks (strengths of preference).
    """
    if window < 2 or (step is not None and step < 1):
        raise DataError(explain("window", window, f"with step {step} makes no windows", expected="window >= 2, step >= 1",
                                remedy="Use window=100"))  # fmt: skip
    refuse_repeats(votes)
    _, first_votes = np.unique(votes.items, return_index=True)
    table = counts(votes)
    table = table[votes.items[np.sort(first_votes)]]
    table = table[table.sum(1) >= 2]
    stride = step or max(window // 4, 1)
    statistic = alpha_ordinal if is_ordinal else alpha_fixed(1 - np.eye(max(votes.num_labels, 1)))
    ends = sorted(
        {max(end, min(window, len(table))) for end in range(len(table), 0, -stride) if end >= window} or {len(table)}
    )
    points: list[RollingPoint] = []
    for end in ends:
        rows = table[max(end - window, 0) : end]
        if len(rows) == 0:
            continue
        alpha = bootstrap_counts({"alpha": statistic}, rows, seed=seed, num_resamples=num_resamples)["alpha"]
        points.append(
            RollingPoint(first_item=max(end - window, 0), last_item=end - 1, alpha=alpha, action=action_for(alpha))
        )
    return tuple(points)
