"""Which item a rater gets next, and in which order its completions stand.

The pairs of a test that the rater has begun come first (`qualification`), then those of a calibration round, the same to every rater; who
passes gets items that lack votes, those that lack the fewest first, so that items are finished rather than begun, and among them hidden
anchors (`anchors`). Only items whose language and skills the rater has are given (`matching`). An item in another rater's hands counts as
voted on until its lease ends. No rater gets an item twice, other than as an anchor. The side is the one that fewer raters of the item have seen;
where both are even, the one this rater has had less, else a draw.
Three or more stand in a drawn order that repeats as few of the places of earlier raters as it can.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.feedback.anchors import is_anchor_due
from fairlead.store.annotation.database import Database, Rows, run
from fairlead.store.annotation.leading import Budget, Decision
from fairlead.store.annotation.schema import Assignment, Item, Progress, Project, copy_of, table_of
from fairlead.store.annotation.skills import Qualification
from fairlead.store.annotation.steering import Rater, Round
from fairlead.web import anchors, choosing, qualification, rounds
from fairlead.web.budget import is_spent
from fairlead.web.calibration import is_let_in
from fairlead.web.errors import missing
from fairlead.web.frames import is_swapped
from fairlead.web.looking import look_if_due
from fairlead.web.matching import matched_needs
from fairlead.web.people import new_id, now_ms
from fairlead.web.policy import Actor
from fairlead.web.steering import SITTING_MS, Steering, rater_of, steering_of

LEASE_MS = 30 * 60 * 1000
"""How long an item waits for a rater who has it on screen or next in line."""
SIDE_SLACK = 2
"""A rater who has seen one side this much more often gets the other where the item leaves the choice."""
NUM_DRAWS = 24
"""Random orders of three or more completions from which the most different one is taken."""
MAX_DRAWS = 2
"""Batches of the active choice that one request may open: of the first somebody else may have taken what fits."""
LOOK_AHEAD = 200
"""Items that lack equally many votes and that are looked at before those that lack more: a rater who is far ahead of the others has
voted on all that were begun, and need not walk past them each time."""
_ANY_RANK = 2**62


def _is_unseen(items: sa.Subquery, person: Any) -> sa.ColumnElement[bool]:
    had = sa.select(Assignment.id).where(Assignment.item_id == items.c.item_id, Assignment.person_id == person)
    decided = sa.select(Decision.item_id).where(Decision.item_id == items.c.item_id, Decision.person_id == person)
    return ~had.exists() & ~decided.exists()


def _is_free(items: sa.Subquery, person: Any, now: Any) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Not had by this rater, and not all that it lacks is in other hands."""
    others = (
        sa.select(sa.func.count()).select_from(Assignment)
        .where(Assignment.item_id == items.c.item_id, Assignment.state == "open", Assignment.leased_until > now)
        .scalar_subquery()
    )  # fmt: skip
    return _is_unseen(items, person), others < items.c.num_lacking


# Asked for each item that is handed out, so made once, and of columns: building a statement takes ten times as long as running it.
_A, _P, _R, _I = table_of(Assignment).c, table_of(Progress).c, table_of(Rater).c, table_of(Item).c
_PROJECT_ID, _PERSON_ID = sa.bindparam("project"), sa.bindparam("person")
_OF_NEEDS = (_P.project_id == _PROJECT_ID, _P.use == "production", _P.needs == sa.bindparam("needs"))
_ABOVE = (*_OF_NEEDS, _P.num_lacking > sa.bindparam("above"))
_LEVEL = sa.select(sa.func.min(_P.num_lacking)).where(*_ABOVE)
_CHOSEN_FROM = sa.bindparam("chosen_from", type_=sa.BigInteger)
_BELOW = sa.select(sa.case((sa.func.min(_P.num_lacking) >= _CHOSEN_FROM, 0), else_=_ANY_RANK)).where(*_ABOVE)
_AHEAD = (
    sa.select(_P.item_id, _P.rank, _P.num_lacking)
    .where(*_OF_NEEDS, _P.num_lacking == _LEVEL.scalar_subquery(), _P.rank < _BELOW.scalar_subquery())
    .order_by(_P.rank).limit(LOOK_AHEAD).subquery()
)  # fmt: skip
_NEAR = (
    sa.select(_AHEAD.c.num_lacking, _AHEAD.c.rank, _AHEAD.c.item_id).where(*_is_free(_AHEAD, _PERSON_ID, sa.bindparam("now")))
    .order_by(_AHEAD.c.rank).limit(1)
)  # fmt: skip
_PROJECT = (
    sa.select(
        table_of(Project),
        sa.exists().where(Budget.project_id == _PROJECT_ID, Budget.limit_dollars.is_not(None)),
        sa.exists().where(Qualification.project_id == _PROJECT_ID, Qualification.person_id == _PERSON_ID, Qualification.state == "open"),
        sa.exists().where(Round.project_id == _PROJECT_ID),
    ).where(table_of(Project).c.id == _PROJECT_ID).with_for_update()
)  # fmt: skip
"""The project; has it a limit of its budget, this rater an open test, the project a calibration round?"""
_IS_OPEN = sa.and_(_A.project_id == _R.project_id, _A.person_id == _R.person_id, _A.state == "open")
_RATER = (
    sa.select(table_of(Rater), table_of(Assignment)).join_from(table_of(Rater), table_of(Assignment), _IS_OPEN, isouter=True)
    .where(_R.project_id == _PROJECT_ID, _R.person_id == _PERSON_ID).order_by(_A.position)
)  # fmt: skip
"""A rater with each of the assignments that are open, or none."""
_LEASE = (
    sa.update(table_of(Assignment))
    .where(_A.id == sa.bindparam("assignment"))
    .values(leased_until=sa.bindparam("until"))
)
_ASSIGNMENT = sa.select(table_of(Assignment)).where(_A.id == sa.bindparam("assignment"))
_SHOWN = (
    sa.select(_I.completions, _A.shown).select_from(table_of(Item)).outerjoin(table_of(Assignment), _A.item_id == _I.id)
    .where(_I.id == sa.bindparam("item"))
)  # fmt: skip
_ADD = sa.insert(table_of(Assignment))
_MOVED_ON = ("num_given", "side_lead", "num_production", "items_since", "sitting", "place", "given_at", "num_missed")
"""What handing an item out changes of its rater."""
_MOVE_ON = sa.update(table_of(Rater)).where(_R.project_id == _PROJECT_ID, _R.person_id == _PERSON_ID).values(
    {name: sa.bindparam(f"new_{name}") for name in _MOVED_ON}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Why there is no item now: paused, budget (spent), empty (nothing was imported yet), finished, waiting (others hold what is left),
    unmatched (what is left asks for a language or skill that this rater does not have), calibration (rated, and not passed), cap (the
    project's first round has not passed, and this rater has had what is allowed before that), or pilot (as many raters as the pilot has
    have begun, and the project is not scaled)."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """What is open is used up; there are pairs that the active choice may open."""

    needs: Sequence[str]
    otherwise: Nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Next:
    """An item for a rater, and as what."""

    item_id: str
    use: str
    """test, calibration, production or anchor."""
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
    found: Assignment | Nothing | _Draw = Nothing(reason="waiting")
    for _ in range(MAX_DRAWS + 1):
        with database.write() as rows:
            found = _give(rows, actor, project_id, without)
        if not isinstance(found, _Draw):
            return found
        if not choosing.draw(database, project_id, found.needs):  # of what is read outside of the transaction
            return found.otherwise
    return found.otherwise if isinstance(found, _Draw) else found


def _give(rows: Rows, actor: Actor, project_id: str, without: Collection[str]) -> Assignment | Nothing | _Draw:
    who = {"project": project_id, "person": actor.person_id}
    row = run(rows, _PROJECT, who).one_or_none()
    if row is None:
        raise missing("This project")
    project, (has_limit, has_test, has_round) = copy_of(Project, row), row[-3:]
    if project.state != "open":
        return Nothing(reason="paused")
    if project.kind != "comparison":
        return Nothing(reason="finished")
    if has_limit and is_spent(rows, project_id):
        return Nothing(reason="budget")
    rater, given = _rater(rows, project_id, actor.person_id)
    held = next((each for each in given if each.id not in without), None)
    if held is not None:
        held.leased_until = now_ms() + LEASE_MS
        run(rows, _LEASE, {"assignment": held.id, "until": held.leased_until})
        return held
    tested = qualification.next_item(rows, project_id, actor.person_id) if has_test else None
    newest = rounds.current_round(rows, project_id, actor.person_id) if has_round else None
    found = _Next(item_id=tested, use="test") if tested else _next_item(rows, project, rater, newest)
    return _assign(rows, rater, found) if isinstance(found, _Next) else found


def _rater(rows: Rows, project_id: str, person_id: str) -> tuple[Rater, list[Assignment]]:
    """A rater, and what is on the screen or next in line."""
    found = run(rows, _RATER, {"project": project_id, "person": person_id}).all()
    if found:
        num = len(_R)
        return copy_of(Rater, found[0]), [copy_of(Assignment, row, at=num) for row in found if row[num] is not None]
    rater = rater_of(rows, project_id, person_id)
    rows.expunge(rater)
    return rater, []


def _next_item(rows: Rows, project: Project, rater: Rater, newest: Round | None) -> _Next | Nothing | _Draw:
    settings = steering_of(project)
    needs, is_all = matched_needs(rows, project, rater.person_id)
    if newest is not None:
        item_id = rounds.next_in_round(rows, newest, rater.person_id, needs=needs)
        if item_id is not None:
            return _Next(item_id=item_id, use="calibration")
        if not is_let_in(rows, rater, newest):
            return Nothing(reason="calibration" if rater.num_given or is_all else "unmatched")
    is_chosen = choosing.is_on(project)
    item_id = _lacking_item(rows, project, rater.person_id, needs=needs, is_chosen=is_chosen)
    if isinstance(item_id, Nothing):
        if item_id.reason == "finished":
            item_id = Nothing(reason=_why_finished(rows, project.id, needs, is_all=is_all))
        unopened = (sa.select(Progress.item_id).where(*choosing.unopened(project, each)).limit(1) for each in needs)
        is_more = is_chosen and any(rows.scalar(each) is not None for each in unopened)
        return _Draw(needs=needs, otherwise=item_id) if is_more else item_id
    if newest is not None:
        if rater.num_production >= settings.cap_before_round and not rounds.has_passed(rows, project.id):
            return Nothing(reason="cap")
        if rater.num_production == 0 and not settings.scaled_because and _num_begun(rows, project.id) >= settings.pilot_raters:  # fmt: skip
            return Nothing(reason="pilot")
    return _anchor_instead(rows, rater, settings, needs=needs) or _Next(item_id=item_id, use="production")


def _num_begun(rows: Rows, project_id: str) -> int:
    begun = sa.select(sa.func.count()).select_from(Rater).where(Rater.project_id == project_id, Rater.num_production > 0)  # fmt: skip
    return rows.scalar(begun) or 0


def _lacking_item(
    rows: Rows, project: Project, person_id: str, *, needs: Sequence[str], is_chosen: bool
) -> str | Nothing:
    """The item that lacks the fewest votes and that this rater may still give one to.

    Args:
        is_chosen: of those that nobody has begun only what the active choice has opened, which stands in front.
    """
    asked = {
        "project": project.id, "person": person_id, "now": now_ms(), "chosen_from": project.votes_per_item if is_chosen else _ANY_RANK,
    }  # fmt: skip
    near = [found for each in needs if (found := _nearest(rows, {**asked, "needs": each})) is not None]
    if near:
        return min(near)[2]
    lacking = sa.select(Progress.item_id, Progress.rank, Progress.num_lacking).where(
        Progress.project_id == project.id, Progress.use == "production", Progress.num_lacking > 0
    )
    if is_chosen:
        lacking = lacking.where((Progress.num_lacking < project.votes_per_item) | (Progress.rank < 0))
    anywhere = lacking.where(Progress.needs.in_(needs)).subquery()
    order = (anywhere.c.num_lacking, anywhere.c.rank)
    found = rows.scalar(
        sa.select(anywhere.c.item_id).where(*_is_free(anywhere, person_id, now_ms())).order_by(*order).limit(1)
    )
    if found is not None:
        return found
    is_left = rows.scalar(sa.select(anywhere.c.item_id).where(_is_unseen(anywhere, person_id)).limit(1)) is not None
    return Nothing(reason="waiting" if is_left else "finished")


def _nearest(rows: Rows, asked: Mapping[str, Any]) -> tuple[int, int, str] | None:
    """Votes that it lacks, rank and id of the free item that lacks the fewest, of those that ask for the same."""
    level: int | None = 0
    while level is not None:
        found = run(rows, _NEAR, {**asked, "above": level}).one_or_none()
        if found is not None:
            return found.num_lacking, found.rank, found.item_id
        level = run(rows, _LEVEL, {**asked, "above": level}).scalar()
    return None


def _why_finished(rows: Rows, project_id: str, needs: Sequence[str], *, is_all: bool) -> str:
    """For a rater who has had all that matches: is there anything else, or was there never anything?"""
    of_project = sa.select(Progress.item_id).where(Progress.project_id == project_id, Progress.use == "production")
    if rows.scalar(of_project.limit(1)) is None:
        ratable = (
            sa.select(Progress.item_id).where(Progress.project_id == project_id, Progress.use != "anchor").limit(1)
        )
        is_empty = rows.scalar(ratable) is None  # anchors alone are not handed out: they hide among other items
        return "empty" if is_empty else "finished"
    others = of_project.where(Progress.num_lacking > 0, Progress.needs.not_in(needs)).limit(1)
    return "unmatched" if not is_all and rows.scalar(others) is not None else "finished"


def _anchor_instead(rows: Rows, rater: Rater, settings: Steering, *, needs: Sequence[str]) -> _Next | None:
    """An anchor, when one is due at this place of the sitting and there is one."""
    is_break = now_ms() - rater.given_at > SITTING_MS
    sitting, place = (rater.sitting + 1, 0) if is_break else (rater.sitting, rater.place)
    rule = settings.anchors
    if rule is None or not is_anchor_due(rule, key=(rater.project_id, rater.person_id, sitting), place=place):
        return None
    chosen = anchors.choose(rows, rater, rule, needs=needs)
    if chosen is None:
        rater.num_missed += 1
        return None
    item_id, choice = chosen
    return _Next(item_id=item_id, use="anchor", swapped=choice.swapped, expected=choice.expected)


def _assign(rows: Rows, rater: Rater, found: _Next) -> Assignment:
    """Hand an item out and move the rater's counters on."""
    now = now_ms()
    shown = _draw_shown(rows, found.item_id, own_lead=rater.side_lead)
    if found.swapped is not None and is_swapped(shown) != found.swapped:
        shown = shown[::-1]
    values = {
        "id": new_id(), "project_id": rater.project_id, "item_id": found.item_id, "person_id": rater.person_id, "position": rater.num_given,
        "state": "open", "shown": shown, "leased_until": now + LEASE_MS,
    }  # fmt: skip
    rows.flush()
    run(rows, _ADD, values)
    assignment = Assignment(**values)
    if found.use == "anchor":
        anchors.serve(rows, assignment, found.expected)
    if now - rater.given_at > SITTING_MS:
        rater.sitting, rater.place = rater.sitting + 1, 0
    rater.num_given += 1
    rater.side_lead += {"10": 1, "01": -1}.get(shown, 0)
    rater.num_production += found.use == "production"
    rater.items_since += found.use == "production"
    rater.place += found.use not in ("calibration", "test")
    rater.given_at = now
    who = {"project": rater.project_id, "person": rater.person_id}
    run(rows, _MOVE_ON, who | {f"new_{name}": getattr(rater, name) for name in _MOVED_ON})
    return assignment


def _draw_shown(rows: Rows, item_id: str, *, own_lead: int) -> str:
    """Args: own_lead: how much oftener the second of a pair has stood on the left for this rater."""
    found = run(rows, _SHOWN, {"item": item_id}).all()
    num, before = len(found[0].completions), [row.shown for row in found if row.shown is not None]
    if num > 2:
        return _draw_order(before, num=num)
    lead = sum(1 if shown == "10" else -1 for shown in before) or (own_lead if abs(own_lead) >= SIDE_SLACK else 0)
    return ("01" if lead > 0 else "10") if lead else secrets.choice(("01", "10"))


def _draw_order(before: Collection[str], *, num: int) -> str:
    """Of some random orders the one that puts completions where they stood least often."""
    drawn = ["".join(map(str, secrets.SystemRandom().sample(range(num), num))) for _ in range(NUM_DRAWS)]
    return min(drawn, key=lambda order: sum(digit == old for shown in before for digit, old in zip(order, shown, strict=True)))  # fmt: skip


def hand_out(rows: Rows, project: Project, actor: Actor, item_id: str) -> Assignment:
    """Give a certain item to a rater, in the running transaction."""
    rater, _ = _rater(rows, project.id, actor.person_id)
    return _assign(rows, rater, _Next(item_id=item_id, use="production"))


def own_assignment(rows: Rows, actor: Actor, assignment_id: str) -> Assignment:
    """An assignment of this rater, or a refusal that says no more than that.

    Raises:
        Refused: it is not there, or somebody else's.
    """
    found = run(rows, _ASSIGNMENT, {"assignment": assignment_id}).one_or_none()
    if found is None or found.person_id != actor.person_id:
        raise missing("This item")
    return copy_of(Assignment, found)
