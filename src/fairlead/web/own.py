"""A rater's own figures: what was chosen, how fast, how long it will take. Nothing of others, and nothing that tells how others voted."""

from dataclasses import dataclass

from fairlead.store.annotation.database import Rows
from fairlead.web.status import Pace
from fairlead.web.totals import work_of_raters

CHOICES = {
    "left": "Left",
    "right": "Right",
    "tie": "Equally good",
    "both_bad": "Both bad",
    "ranked": "Ranked",
    "skip": "Skipped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFigures:
    """For the page of own votes."""

    chosen: tuple[tuple[str, int], ...]
    """Words of a choice and how often, those that never occurred left out."""
    num_days: int
    """Days on which something was rated."""
    hours_left: float | None
    """For what is still to come, at the usual time for an item; None before it is known."""

    @property
    def left_share(self) -> float | None:
        """Of the choices between two; half is expected, for sides are drawn. None below ten."""
        counts = dict(self.chosen)
        num = counts.get("Left", 0) + counts.get("Right", 0)
        return counts.get("Left", 0) / num if num >= 10 else None


def own_figures(rows: Rows, project_id: str, person_id: str, *, pace: Pace) -> OwnFigures:
    """Read from the totals that verdicts keep current."""
    work = work_of_raters(rows, project_id, person_id=person_id)
    chosen = tuple((words, sum(row.num for row in work if row.choice == choice)) for choice, words in CHOICES.items())
    hours_left = pace.num_left * pace.median_s / 3600 if pace.median_s is not None else None
    return OwnFigures(
        chosen=tuple(pair for pair in chosen if pair[1]), num_days=len({row.day for row in work}), hours_left=hours_left
    )
