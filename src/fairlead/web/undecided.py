"""Disputed items that a person may not decide, and those that nobody may: whoever voted on an item is no second opinion on it.

Example:
    waiting_of(rows, project_id, actor.person_id)     # Waiting(num_own=3, num_nobody=1)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Item, Person, Verdict
from fairlead.web.policy import ROLES

MAY_DECIDE = ROLES[ROLES.index("adjudicator") :]
_CHUNK = 500  # ids of one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Disputed items without a decision that wait for another person."""

    num_own: int
    """This person voted on them, or has them to rate: somebody else decides."""
    num_nobody: int
    """So did everybody who may decide: they wait until another adjudicator is invited."""


def waiting_of(rows: Rows, project_id: str, person_id: str) -> Waiting:
    """Counts for one reader, from the votes as they are now."""
    own = _num_disputed(rows, project_id, engaged(rows, project_id, [person_id]))
    return Waiting(num_own=own, num_nobody=num_undecidable(rows, project_id) if own else 0)


def num_undecidable(rows: Rows, project_id: str) -> int:
    """Disputed items that nobody may decide; all, where nobody has the role."""
    deciders = list(rows.scalars(sa.select(Person.id).where(Person.state == "active", Person.role.in_(MAY_DECIDE))))
    if not deciders:
        return rows.scalar(sa.select(sa.func.count()).select_from(_disputed(project_id).subquery())) or 0
    return _num_disputed(rows, project_id, engaged(rows, project_id, deciders))


def engaged(rows: Rows, project_id: str, people: Sequence[str]) -> list[str]:
    """Items that every one of these people voted on or has to rate."""
    voted = sa.select(Verdict.assignment_id).where(Verdict.assignment_id == Assignment.id, Verdict.verdict != "skip")
    found = (
        sa.select(Assignment.item_id)
        .where(Assignment.project_id == project_id, Assignment.person_id.in_(people), (Assignment.state == "open") | voted.exists())
        .group_by(Assignment.item_id).having(sa.func.count(Assignment.person_id.distinct()) == len(people))
    )  # fmt: skip
    return list(rows.scalars(found))


def _num_disputed(rows: Rows, project_id: str, items: Sequence[str]) -> int:
    """Of these items, by the index of the verdicts: their number is what a few people did, not what the project holds."""
    num = 0
    for start in range(0, len(items), _CHUNK):
        some = _disputed(project_id).where(Verdict.item_id.in_(items[start : start + _CHUNK]))
        num += rows.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0
    return num


def _disputed(project_id: str) -> sa.Select[str]:
    """Items on which votes differ and that nobody decided: two rankings differ where they say another thing of any pair of replies."""
    said = Verdict.verdict + sa.cast(Verdict.ranking, sa.Text)
    decided = sa.select(Decision.item_id).where(Decision.item_id == Verdict.item_id)
    return (
        sa.select(Verdict.item_id).join(Item, Item.id == Verdict.item_id)
        .where(Verdict.project_id == project_id, Verdict.verdict != "skip", Item.use != "anchor", ~decided.exists())
        .group_by(Verdict.item_id).having(sa.func.count(said.distinct()) > 1)
    )  # fmt: skip
