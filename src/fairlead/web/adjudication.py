"""A disputed item with its votes, nobody named, and the decision on it. The decision replaces no vote: it stands beside them.

All replies of the item stand on the page and are decided, as raters were asked: a side of a pair, an order of a ranking, ratings by the
criteria of the guideline. Marked passages and edits of raters are read here; a decision has none of its own.

Example:
    case = read_case(rows, actor, project_id, item_id)
    decide(database, actor, project_id, item_id, Ruling(key="...", choice="left", reason="...", guideline_version=2))
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Item, Verdict
from fairlead.web import anchors, decisions
from fairlead.web.answers import check_criteria, check_order, check_text
from fairlead.web.cases import Case, case_of, order_for
from fairlead.web.dashboard.sheet import sheet_of
from fairlead.web.disputes import Wanted, order_of
from fairlead.web.errors import Refused, invalid, missing
from fairlead.web.events import check_key, record
from fairlead.web.policy import Actor
from fairlead.web.projects import get_guideline
from fairlead.web.ranked import counts_by_item, ranked_votes
from fairlead.web.undecided import engaged
from fairlead.web.verdicts import same_key

MAX_REASON = 2_000  # characters
CHOICES = ("left", "right", "tie", "both_bad", "ranked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What an adjudicator sends, in the frame of the page."""

    key: str
    choice: str
    """left, right or tie of a pair, ranked of three or more; both_bad of either."""
    reason: str
    guideline_version: int
    ranking: tuple[tuple[int, ...], ...] = ()
    """Places on the page, best first, equal ones together; of three or more replies only."""
    criteria: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    """By criterion: the rating of the reply at each place."""


def read_case(rows: Rows, actor: Actor, project_id: str, item_id: str) -> Case:
    """An item with its votes.

    Raises:
        Refused: it is not there, or the reader has it to rate: who votes does not see other votes before.
    """
    item = _item(rows, project_id, item_id)
    require_not_to_rate(rows, actor, item_id)
    return case_of(rows, item, actor.person_id)


def _item(rows: Rows, project_id: str, item_id: str) -> Item:
    item = rows.get(Item, item_id)
    if item is None or item.project_id != project_id:
        raise missing("This item")
    return item


def require_not_to_rate(rows: Rows, actor: Actor, item_id: str) -> None:
    """Refuse to show votes on an item that the reader has open to rate."""
    is_open = sa.select(Assignment.id).where(
        Assignment.item_id == item_id, Assignment.person_id == actor.person_id, Assignment.state == "open"
    )
    if rows.scalar(is_open.limit(1)) is not None:
        raise Refused(
            409, "to_rate", "You have this item to rate. Rate or skip it first, then look at the votes of others."
        )


def _require_no_own_vote(rows: Rows, actor: Actor, item_id: str) -> None:
    own = (Verdict.item_id == item_id, Verdict.person_id == actor.person_id, Verdict.verdict != "skip")
    if rows.scalar(sa.select(Verdict.assignment_id).where(*own).limit(1)) is not None:
        raise Refused(
            409,
            "own_vote",
            "You voted on this item, so another adjudicator decides it. Where there is none, a lead invites one.",
        )


def decide(database: Database, actor: Actor, project_id: str, item_id: str, ruling: Ruling) -> int:
    """Record a decision with its reason, or change an earlier one; return the number of its event. The same key twice is one decision.

    Raises:
        Refused: it is faulty, or the adjudicator voted on the item or has it to rate: nobody decides over an own vote.
    """
    check_key(ruling.key)
    check_text("reason", ruling.reason, MAX_REASON)
    if ruling.choice not in CHOICES:
        raise invalid("No decision was chosen. Choose one and send again.")
    if not ruling.reason.strip():
        raise invalid(
            "A decision needs a reason: raters and the next guideline learn from it. Write one or two sentences."
        )
    with database.write() as rows:
        item = _item(rows, project_id, item_id)
        content = _content(ruling, item, actor)
        repeat = same_key(rows, actor, ruling.key, kind=decisions.DECIDED, assignment_id=None, content=content)
        if repeat is not None:
            return repeat.number
        require_not_to_rate(rows, actor, item.id)
        _require_no_own_vote(rows, actor, item.id)
        guideline, num = get_guideline(rows, project_id, ruling.guideline_version), len(item.completions)
        check_order(guideline, choice=ruling.choice, ranking=ruling.ranking, num=num)
        check_criteria(guideline, ruling.criteria, num=num)
        if rows.scalar(sa.select(Verdict.assignment_id).where(Verdict.item_id == item_id).limit(1)) is None:
            raise Refused(409, "no_votes", "Nobody has voted on this item yet. Decide when there are votes to read.")
        event = record(
            rows, decisions.DECIDED, person_id=actor.person_id, project_id=project_id, key=ruling.key, content=content
        )
        decisions.follow(rows, event)
        return event.number


def _content(ruling: Ruling, item: Item, actor: Actor) -> dict[str, Any]:
    """As the event keeps it; an order and ratings only where they were given."""
    content: dict[str, Any] = {
        "item": item.id, "choice": ruling.choice, "shown": order_for(item.id, actor.person_id, len(item.completions)),
        "reason": ruling.reason.strip(), "guideline_version": ruling.guideline_version,
    }  # fmt: skip
    if ruling.ranking:
        content["ranking"] = [list(tied) for tied in ruling.ranking]
    if ruling.criteria:
        content["criteria"] = {name: list(given) for name, given in ruling.criteria.items()}
    return content


def make_anchor(database: Database, actor: Actor, project_id: str, item_id: str) -> None:
    """Serve a decided pair as a hidden anchor from now on: the decision is the expected answer.

    Raises:
        Refused: it is not decided, or not for one of the replies or a tie, or it is an anchor already.
    """
    with database.write() as rows:
        item = _item(rows, project_id, item_id)
        decision = rows.get(Decision, item_id)
        if decision is None:
            raise Refused(409, "undecided", "An anchor needs a known answer. Decide the pair first.")
        anchors.make_anchor_in(rows, item, answer=decision.verdict, by=actor.person_id, source="decision")


def revoke(database: Database, actor: Actor, project_id: str, item_id: str, *, key: str) -> None:
    """Take a decision back; the item is open again."""
    check_key(key)
    with database.write() as rows:
        _item(rows, project_id, item_id)
        content = {"item": item_id}
        if same_key(rows, actor, key, kind=decisions.REVOKED, assignment_id=None, content=content) is not None:
            return
        if rows.get(Decision, item_id) is None:
            raise Refused(409, "nothing", "There is no decision to take back.")
        decisions.follow(
            rows,
            record(rows, decisions.REVOKED, person_id=actor.person_id, project_id=project_id, key=key, content=content),
        )


def next_case(database: Database, actor: Actor, project_id: str, *, without: str = "") -> str | None:
    """The most disputed item that nobody decided and that this reader neither voted on nor has to rate; None when there is none."""
    sheet = sheet_of(database, project_id).value
    with database.read() as rows:
        decided = set(decisions.decisions_of(rows, project_id))
        own = set(engaged(rows, project_id, [actor.person_id]))
    ranked = counts_by_item(ranked_votes(database, project_id))
    places = order_of(sheet, Wanted(), decided=decided, flagged=set(), ranked=ranked)
    return next(
        (sheet.item_ids[i] for i in places if sheet.item_ids[i] not in own and sheet.item_ids[i] != without), None
    )
