"""Votes on items of three or more completions, whole: what pages that speak of every pair of a ranking are made from.

The sheet (`dashboard.sheet`) holds of each ranking what it says of the first two completions, one independent pair an item; here are all
k (k - 1) / 2 of them.

Example:
    votes = ranked_votes(database, project_id)
    counts_by_item(votes)["item"]        # [P, 4] votes for a, for b, ties, both bad on each pair of its completions
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from fairlead.stats.arrays import FloatArray
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import IS_RANKED, Assignment, Item, Person, Verdict
from fairlead.web.dashboard.keeping import keep
from fairlead.web.frames import Ranking, pairs_of, verdict_on

SAID = ("a", "b", "tie", "both_bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedVote:
    """One vote on such an item; skips are none."""

    item_id: str
    rater: str
    """Name in the application, for the lead only."""
    verdict: str
    ranking: Ranking
    """Canonical positions, best first; empty for both bad."""
    shown: str
    """Canonical positions from left to right, a digit each."""
    position: int
    """Place in the rater's own sequence."""

    def on(self, first: int, second: int) -> str:
        """What it says of two completions: a, b, tie or both_bad; both bad says so of every pair."""
        return "both_bad" if self.verdict == "both_bad" else verdict_on(self.ranking, first, second)


def ranked_votes(database: Database, project_id: str) -> Sequence[RankedVote]:
    """All of a project, in the order of their events; at most a minute old."""
    return keep(database, project_id, "ranked", lambda: _read(database, project_id), recall=lambda: _none(database, project_id)).value  # fmt: skip


def _rankings(project_id: str) -> sa.Select[str]:
    return sa.select(Item.id).where(Item.project_id == project_id, Item.use != "anchor", IS_RANKED)


def _none(database: Database, project_id: str) -> tuple[list[RankedVote], float] | None:
    """Nothing to read where no item is ranked, which is seen at once."""
    with database.read() as rows:
        return None if rows.scalar(_rankings(project_id).limit(1)) else ([], 0.0)


def _read(database: Database, project_id: str) -> list[RankedVote]:
    wanted = _rankings(project_id)
    query = (  # from the items, by the index of their votes: SQLite would go through all votes of the project in their order
        sa.select(Verdict.item_id, Person.name, Verdict.verdict, Verdict.ranking, Assignment.shown, Assignment.position, Verdict.event_number)
        .join(Assignment, Assignment.id == Verdict.assignment_id).join(Person, Person.id == Verdict.person_id)
        .where(Verdict.item_id.in_(wanted), Verdict.verdict != "skip")
    )  # fmt: skip
    with database.read() as rows:
        return [
            RankedVote(item_id=item_id, rater=name, verdict=verdict, ranking=ranking, shown=shown, position=position)
            for item_id, name, verdict, ranking, shown, position, _ in sorted(
                rows.execute(query), key=lambda row: row[-1]
            )
        ]


def counts_by_item(votes: Sequence[RankedVote]) -> Mapping[str, FloatArray]:
    """By item: [P, 4] votes of each kind (`SAID`) on every pair of its completions, in the order of `pairs_of`."""
    found: dict[str, FloatArray] = {}
    for vote in votes:
        pairs = list(pairs_of(len(vote.shown)))
        counts = found.setdefault(vote.item_id, np.zeros((len(pairs), len(SAID))))
        for place, (first, second) in enumerate(pairs):
            counts[place, SAID.index(vote.on(first, second))] += 1
    return found
