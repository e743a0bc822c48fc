"""How fast votes come in: by day, from totals that verdicts keep current, and when the pairs are done at this pace."""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.core.summary import Chart, Series
from fairlead.stats.intervals import Interval, mean_interval, undefined
from fairlead.store.annotation.database import Rows
from fairlead.web.totals import DayRow, work_by_day

PACE_DAYS = 7
"""Days behind the pace: a week has every weekday once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Votes by day (UTC)."""

    chart: Chart | None
    first_day: str
    num_days: int
    """From the first to the last day with a vote or skip."""
    pace: Interval
    """Votes a day over the last week, days without votes among them."""

    def days_left(self, num_votes: int) -> int | None:
        """Days for so many more votes at this pace; None while it is unknown."""
        return math.ceil(num_votes / self.pace.value) if self.pace.value > 0 else None


def flow_of(rows: Rows, project_id: str) -> Flow:
    """As of now."""
    return read_flow(work_by_day(rows, project_id))


def read_flow(work: Sequence[DayRow]) -> Flow:
    """Count by day, from the first to the last day with a vote or skip."""
    if not work:
        return Flow(chart=None, first_day="", num_days=0, pace=undefined("no votes", n=0))
    first, last = work[0].day, work[-1].day
    days = range(last - first + 1)
    votes, skips, raters = np.zeros(len(days)), np.zeros(len(days)), np.zeros(len(days))
    for row in work:
        place = row.day - first
        votes[place], skips[place], raters[place] = row.num_votes, row.num_skips, row.num_raters
    chart = Chart(
        question="How many votes came in each day?", x_label="day", y_label="votes", y_zero=True, style="line" if len(days) > 1 else "points",
        series=(Series(label="votes", role="people", points=tuple((d + 1.0, float(votes[d])) for d in days)),
                Series(label="skips", role="neutral", points=tuple((d + 1.0, float(skips[d])) for d in days)),
                Series(label="raters at work", role="reference", points=tuple((d + 1.0, float(raters[d])) for d in days))),
    )  # fmt: skip
    day = dt.date(1970, 1, 1) + dt.timedelta(days=first)
    return Flow(
        chart=chart,
        first_day=f"{day.day} {day:%B %Y}",
        num_days=len(days),
        pace=mean_interval(votes[-PACE_DAYS:].astype(np.float64)),
    )
