"""Which item a rater gets next, and in which order its completions stand.

Calibration items come first, the same to every rater; who passes gets items that lack votes, those that have most of them first, so that
items are finished rather than begun. An item in another rater's hands counts as voted on until its lease ends. No rater gets an item
twice. The side is the one that fewer raters of the item have seen; where both are even, the one this rater has had less, else a draw.
Three or more stand in a drawn order that repeats as few of the places of earlier raters as it can.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Item, Progress, Project
from fairlead.web.budget import is_spent
from fairlead.web.calibration import is_let_in
from fairlead.web.errors import missing
from fairlead.web.people import new_id, now_ms
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project

LEASE_MS = 30 * 60 * 1000
"""How long an item waits for a rater who has it on screen or next in line."""
SIDE_SLACK = 2
"""A rater who has seen one side this much more often gets the other where the item leaves the choice."""
NUM_DRAWS = 24
"""Random orders of three or more completions from which the most different one is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Why there is no item now: paused, budget (spent), finished, waiting (others hold what is left), or calibration (rated, and not passed)."""

    reason: str


def next_assignment(
    database: Database, actor: Actor, project_id: str, *, without: Collection[str] = ()
) -> Assignment | Nothing:
    """Lease the next item to a rater; an open one is given again first.

    Args:
        without: assignments that the browser has already.
    """
    with database.write() as rows:
        project = rows.scalar(sa.select(Project).where(Project.id == project_id).with_for_update()) or get_project(
            rows, project_id
        )
        if project.state != "open":
            return Nothing(reason="paused")
        if project.kind != "comparison":
            return Nothing(reason="finished")
        if is_spent(rows, project_id):
            return Nothing(reason="budget")
        held = rows.scalar(
            sa.select(Assignment).where(Assignment.project_id == project_id, Assignment.person_id == actor.person_id,
                                        Assignment.state == "open", Assignment.id.not_in(without)).order_by(Assignment.position).limit(1)
        )  # fmt: skip
        if held is not None:
            held.leased_until = now_ms() + LEASE_MS
            return held
        item_id = _next_item(rows, project, actor)
        return item_id if isinstance(item_id, Nothing) else _assign(rows, project, actor, item_id)


def _next_item(rows: Rows, project: Project, actor: Actor) -> str | Nothing:
    mine = sa.select(Assignment.item_id).where(Assignment.item_id == Progress.item_id, Assignment.person_id == actor.person_id)  # fmt: skip
    decided = sa.select(Decision.item_id).where(
        Decision.item_id == Progress.item_id, Decision.person_id == actor.person_id
    )
    candidates = sa.select(Progress.item_id).where(Progress.project_id == project.id, ~mine.exists(), ~decided.exists())
    calibration = rows.scalar(candidates.where(Progress.use == "calibration").order_by(Progress.rank).limit(1))
    if calibration is not None:
        return calibration
    if project.calibration_items and not is_let_in(rows, project.id, actor.person_id):
        return Nothing(reason="calibration")
    others = (
        sa.select(sa.func.count()).select_from(Assignment)
        .where(Assignment.item_id == Progress.item_id, Assignment.state == "open", Assignment.leased_until > now_ms())
        .scalar_subquery()
    )  # fmt: skip
    lacking = candidates.where(Progress.use == "production", Progress.num_votes < project.votes_per_item)
    free = lacking.where(Progress.num_votes + others < project.votes_per_item)
    found = rows.scalar(free.order_by(Progress.num_votes.desc(), Progress.rank).limit(1))
    if found is not None:
        return found
    return Nothing(reason="finished" if rows.scalar(lacking.limit(1)) is None else "waiting")


def _assign(rows: Rows, project: Project, actor: Actor, item_id: str) -> Assignment:
    lead = sa.case((Assignment.shown == "10", 1), (Assignment.shown == "01", -1), else_=0)
    own = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(lead), 0)).where(
        Assignment.project_id == project.id, Assignment.person_id == actor.person_id
    )
    position, own_lead = rows.execute(own).one()
    item = rows.get(Item, item_id)
    assert item is not None, f"there is progress on an item {item_id} that is not there"
    assignment = Assignment(
        id=new_id(), project_id=project.id, item_id=item_id, person_id=actor.person_id, position=position, state="open",
        shown=_draw_shown(rows, item, own_lead=own_lead), leased_until=now_ms() + LEASE_MS,
    )  # fmt: skip
    rows.add(assignment)
    return assignment


def _draw_shown(rows: Rows, item: Item, *, own_lead: int) -> str:
    """Args: own_lead: how much oftener the second of a pair has stood on the left for this rater."""
    before = list(rows.scalars(sa.select(Assignment.shown).where(Assignment.item_id == item.id)))
    if len(item.completions) > 2:
        return _draw_order(before, num=len(item.completions))
    lead = sum(1 if shown == "10" else -1 for shown in before) or (own_lead if abs(own_lead) >= SIDE_SLACK else 0)
    return ("01" if lead > 0 else "10") if lead else secrets.choice(("01", "10"))


def _draw_order(before: Collection[str], *, num: int) -> str:
    """Of some random orders the one that puts completions where they stood least often."""
    drawn = ["".join(map(str, secrets.SystemRandom().sample(range(num), num))) for _ in range(NUM_DRAWS)]
    return min(drawn, key=lambda order: sum(digit == old for shown in before for digit, old in zip(order, shown, strict=True)))  # fmt: skip


def hand_out(rows: Rows, project: Project, actor: Actor, item_id: str) -> Assignment:
    """Give a certain item to a rater, in the running transaction."""
    return _assign(rows, project, actor, item_id)


def own_assignment(rows: Rows, actor: Actor, assignment_id: str) -> Assignment:
    """An assignment of this rater, or a refusal that says no more than that.

    Raises:
        Refused: it is not there, or somebody else's.
    """
    found = rows.get(Assignment, assignment_id)
    if found is None or found.person_id != actor.person_id:
        raise missing("This item")
    return found


def item_of(rows: Rows, assignment: Assignment) -> Item:
    """The item of an assignment."""
    found = rows.get(Item, assignment.item_id)
    assert found is not None, f"assignment {assignment.id} names no item"
    return found
