"""What all events about verdicts say, derived at once: the same rows as `verdicts.apply` makes of them one by one, for a replay.

Of each assignment the newest event says what holds. Events are read in pieces, so that a million of them need no more memory than some
thousands; what counts verdicts is then counted from them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from fairlead.store.annotation import totals
from fairlead.store.annotation.database import Rows, run
from fairlead.store.annotation.many import insert_many
from fairlead.store.annotation.schema import SUBMITTED, Assignment, Event, Progress, Verdict, table_of
from fairlead.store.annotation.steering import Check
from fairlead.web.frames import as_stored
from fairlead.web.queue import LEASE_MS

WITHDRAWN = "verdict.withdrawn"
_KINDS = (SUBMITTED, WITHDRAWN)
_LEASE = sa.update(Assignment).where(Assignment.id == sa.bindparam("own")).values(leased_until=sa.bindparam("until"))
_NUM_A_PIECE = 5_000


def derive_verdicts(rows: Rows) -> int:
    """Make verdicts, and what counts them, from their events; none of it may be there. Return how many events were read."""
    rows.flush()
    num = 0
    for piece in _pieces(rows):
        num += len(piece)
        insert_many(rows, table_of(Verdict), [_columns(found) for found in piece if found.is_newest and found.kind == SUBMITTED])  # fmt: skip
        withdrawn = [{"own": row.assignment_id, "until": row.at + LEASE_MS} for row in piece if row.kind == WITHDRAWN]
        if withdrawn:
            run(rows, _LEASE, withdrawn)
    _mark(rows)
    _count(rows)
    totals.fill(rows.connection())
    totals.fill_tallies(rows.connection())
    rows.expire_all()
    return num


def _pieces(rows: Rows) -> Iterator[Sequence[Any]]:
    """Events about verdicts in their order, with the assignments that they name."""
    later = aliased(Event)
    is_newest = ~sa.exists().where(
        later.assignment_id == Event.assignment_id, later.number > Event.number, later.kind.in_(_KINDS)
    )
    query = (
        sa.select(Event.number, Event.at, Event.kind, Event.content, Event.assignment_id, Assignment.shown, Assignment.item_id,
                  Assignment.person_id, Assignment.project_id, is_newest.label("is_newest"))
        .join(Assignment, Assignment.id == Event.assignment_id).where(Event.kind.in_(_KINDS), Event.number > sa.bindparam("last"))
        .order_by(Event.number).limit(_NUM_A_PIECE)
    )  # fmt: skip
    last = 0
    while piece := rows.execute(query, {"last": last}).all():
        yield piece
        last = piece[-1].number


def _columns(found: Any) -> dict[str, Any]:
    return {
        "assignment_id": found.assignment_id, "project_id": found.project_id, "item_id": found.item_id, "person_id": found.person_id,
        "event_number": found.number, **as_stored(found.content, shown=found.shown),
    }  # fmt: skip


def _mark(rows: Rows) -> None:
    """Assignments with a verdict are done, others are open; only those that say otherwise are written."""
    is_done = sa.exists().where(Verdict.assignment_id == Assignment.id)
    for state, is_wrong in (
        ("open", (Assignment.state != "open") & ~is_done),
        ("done", (Assignment.state != "done") & is_done),
    ):
        rows.execute(sa.update(Assignment).where(is_wrong).values(state=state).execution_options(synchronize_session=False))  # fmt: skip


def _count(rows: Rows) -> None:
    """Votes and skips of each item, and whether anchors were answered as expected."""
    is_skip = sa.case((Verdict.verdict == "skip", 1), else_=0)
    counted = (
        sa.select(Verdict.item_id, sa.func.count().label("num"), sa.func.sum(is_skip).label("skips")).group_by(Verdict.item_id).subquery()
    )  # fmt: skip
    votes = counted.c.num - counted.c.skips
    rows.execute(
        sa.update(Progress).where(Progress.item_id == counted.c.item_id)
        .values(num_votes=votes, num_skips=counted.c.skips, num_lacking=Progress.num_lacking - votes)
        .execution_options(synchronize_session=False)
    )  # fmt: skip
    rows.execute(
        sa.update(Check).where(Verdict.assignment_id == Check.assignment_id, Verdict.verdict != "skip")
        .values(is_right=Verdict.verdict == Check.expected).execution_options(synchronize_session=False)
    )  # fmt: skip
