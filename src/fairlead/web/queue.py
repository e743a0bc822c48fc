"""Which item a rater gets next, and in which order its completions stand.

The pairs of a calibration round come first, the same to every rater; who passes gets items that lack votes, those that lack the fewest first,
so that items are finished rather than begun, and among them hidden anchors (`anchors`). An item in another rater's hands counts as voted on
until its lease ends. No rater gets an item twice, other than as an anchor. The side is the one that fewer raters of the item have seen;
where both are even, the one this rater has had less, else a draw.
Three or more stand in a drawn order that repeats as few of the places of earlier raters as it can.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.feedback.anchors import is_anchor_due
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Item, Progress, Project
from fairlead.store.annotation.steering import Rater
from fairlead.web import anchors, rounds
from fairlead.web.budget import is_spent
from fairlead.web.calibration import is_let_in
from fairlead.web.errors import missing
from fairlead.web.frames import is_swapped
from fairlead.web.looking import look_if_due
from fairlead.web.people import new_id, now_ms
from fairlead.web.policy import Actor
from fairlead.web.projects import get_project
from fairlead.web.steering import SITTING_MS, Steering, rater_of, steering_of

LEASE_MS = 30 * 60 * 1000
"""How long an item waits for a rater who has it on screen or next in line."""
SIDE_SLACK = 2
"""A rater who has seen one side this much more often gets the other where the item leaves the choice."""
NUM_DRAWS = 24
"""Random orders of three or more completions from which the most different one is taken."""
LOOK_AHEAD = 200
"""Items that lack equally many votes and that are looked at before those that lack more: a rater who is far ahead of the others has
voted on all that were begun, and need not walk past them each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Why there is no item now: paused, budget (spent), finished, waiting (others hold what is left), calibration (rated, and not passed), cap (the
    project's first round has not passed, and this rater has had what is allowed before that), or pilot (as many raters as the pilot has
    have begun, and the project is not scaled)."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Next:
    """An item for a rater, and as what."""

    item_id: str
    use: str
    """calibration, production or anchor."""
    swapped: bool | None = None
    """Is the second of the first two completions to stand before the first? None where it is to be drawn."""
    expected: str = ""
    """Answer of an anchor."""


def next_assignment(
    database: Database, actor: Actor, project_id: str, *, without: Collection[str] = ()
) -> Assignment | Nothing:
    """Lease the next item to a rater; an open one is given again first.

    Args:
        without: assignments that the browser has already.
    """
    look_if_due(database, project_id)
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
        rater = rater_of(rows, project_id, actor.person_id)
        found = _next_item(rows, project, rater)
        return found if isinstance(found, Nothing) else _assign(rows, rater, found)


def _next_item(rows: Rows, project: Project, rater: Rater) -> _Next | Nothing:
    settings = steering_of(project)
    newest = rounds.current_round(rows, project.id, rater.person_id)
    if newest is not None:
        item_id = rounds.next_in_round(rows, newest, rater.person_id)
        if item_id is not None:
            return _Next(item_id=item_id, use="calibration")
        if not is_let_in(rows, rater, newest):
            return Nothing(reason="calibration")
    item_id = _lacking_item(rows, project.id, rater.person_id)
    if isinstance(item_id, Nothing):
        return item_id
    if newest is not None:
        if rater.num_production >= settings.cap_before_round and not rounds.has_passed(rows, project.id):
            return Nothing(reason="cap")
        if rater.num_production == 0 and not settings.scaled_because and _num_begun(rows, project.id) >= settings.pilot_raters:  # fmt: skip
            return Nothing(reason="pilot")
    return _anchor_instead(rows, rater, settings) or _Next(item_id=item_id, use="production")


def _num_begun(rows: Rows, project_id: str) -> int:
    begun = sa.select(sa.func.count()).select_from(Rater).where(Rater.project_id == project_id, Rater.num_production > 0)  # fmt: skip
    return rows.scalar(begun) or 0


def _lacking_item(rows: Rows, project_id: str, person_id: str) -> str | Nothing:
    """The item that lacks the fewest votes and that this rater may still give one to."""
    lacking = sa.select(Progress.item_id, Progress.rank, Progress.num_lacking).where(
        Progress.project_id == project_id, Progress.use == "production", Progress.num_lacking > 0
    )
    levels = lacking.with_only_columns(sa.func.min(Progress.num_lacking))
    level = rows.scalar(levels)
    while level is not None:
        near = lacking.where(Progress.num_lacking == level).order_by(Progress.rank).limit(LOOK_AHEAD).subquery()
        found = rows.scalar(sa.select(near.c.item_id).where(*_is_free(near, person_id)).order_by(near.c.rank).limit(1))
        if found is not None:
            return found
        level = rows.scalar(levels.where(Progress.num_lacking > level))
    anywhere = lacking.subquery()
    order = (anywhere.c.num_lacking, anywhere.c.rank)
    found = rows.scalar(sa.select(anywhere.c.item_id).where(*_is_free(anywhere, person_id)).order_by(*order).limit(1))
    if found is not None:
        return found
    is_left = rows.scalar(sa.select(anywhere.c.item_id).where(_is_unseen(anywhere, person_id)).limit(1)) is not None
    return Nothing(reason="waiting" if is_left else "finished")


def _is_unseen(items: sa.Subquery, person_id: str) -> sa.ColumnElement[bool]:
    had = sa.select(Assignment.id).where(Assignment.item_id == items.c.item_id, Assignment.person_id == person_id)
    decided = sa.select(Decision.item_id).where(Decision.item_id == items.c.item_id, Decision.person_id == person_id)
    return ~had.exists() & ~decided.exists()


def _is_free(items: sa.Subquery, person_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Not had by this rater, and not all that it lacks is in other hands."""
    others = (
        sa.select(sa.func.count()).select_from(Assignment)
        .where(Assignment.item_id == items.c.item_id, Assignment.state == "open", Assignment.leased_until > now_ms())
        .scalar_subquery()
    )  # fmt: skip
    return _is_unseen(items, person_id), others < items.c.num_lacking


def _anchor_instead(rows: Rows, rater: Rater, settings: Steering) -> _Next | None:
    """An anchor, when one is due at this place of the sitting and there is one."""
    is_break = now_ms() - rater.given_at > SITTING_MS
    sitting, place = (rater.sitting + 1, 0) if is_break else (rater.sitting, rater.place)
    rule = settings.anchors
    if rule is None or not is_anchor_due(rule, key=(rater.project_id, rater.person_id, sitting), place=place):
        return None
    chosen = anchors.choose(rows, rater, rule)
    if chosen is None:
        rater.num_missed += 1
        return None
    item_id, choice = chosen
    return _Next(item_id=item_id, use="anchor", swapped=choice.swapped, expected=choice.expected)


def _assign(rows: Rows, rater: Rater, found: _Next) -> Assignment:
    """Hand an item out and move the rater's counters on."""
    now = now_ms()
    item = rows.get(Item, found.item_id)
    assert item is not None, f"there is progress on an item {found.item_id} that is not there"
    shown = _draw_shown(rows, item, own_lead=rater.side_lead)
    if found.swapped is not None and is_swapped(shown) != found.swapped:
        shown = shown[::-1]
    assignment = Assignment(
        id=new_id(), project_id=rater.project_id, item_id=item.id, person_id=rater.person_id, position=rater.num_given, state="open",
        shown=shown, leased_until=now + LEASE_MS,
    )  # fmt: skip
    rows.add(assignment)
    if found.use == "anchor":
        anchors.serve(rows, assignment, found.expected)
    if now - rater.given_at > SITTING_MS:
        rater.sitting, rater.place = rater.sitting + 1, 0
    rater.num_given += 1
    rater.side_lead += {"10": 1, "01": -1}.get(shown, 0)
    rater.num_production += found.use == "production"
    rater.items_since += found.use == "production"
    rater.place += found.use != "calibration"
    rater.given_at = now
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
    return _assign(rows, rater_of(rows, project.id, actor.person_id), _Next(item_id=item_id, use="production"))


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
