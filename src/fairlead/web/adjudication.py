"""A disputed item with its votes, nobody named, and the decision on it. The decision replaces no vote: it stands beside them.

Example:
    case = read_case(rows, actor, project_id, item_id)
    decide(database, actor, project_id, item_id, Ruling(key="...", choice="left", reason="...", guideline_version=2))
"""

from dataclasses import dataclass

import sqlalchemy as sa
from markupsafe import Markup

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Flag, Item, Verdict
from fairlead.web import anchors, decisions
from fairlead.web.answers import check_text
from fairlead.web.dashboard.sheet import sheet_of
from fairlead.web.disputes import Wanted, drawn_for, order_of
from fairlead.web.errors import Refused, invalid, missing
from fairlead.web.events import record
from fairlead.web.importing import texts_of
from fairlead.web.policy import Actor
from fairlead.web.projects import get_guideline
from fairlead.web.rendering import to_html
from fairlead.web.showing import ROLES, Turn
from fairlead.web.verdicts import check_key, same_key

MAX_REASON = 2_000  # characters
CHOICES = ("left", "right", "tie", "both_bad")
_STRENGTHS = {0: "is better", 1: "is slightly better", 2: "is better", 3: "is much better"}
_OTHER = {"tie": "Equally good", "both_bad": "Both bad", "skip": "Skipped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One vote; who gave it is not told."""

    name: str
    """Rater A, Rater B: new letters for every item, so that nobody can be followed from one to the next."""
    words: str
    choice: str
    """left, right, tie, both_bad or skip, as on this page."""
    ratings: str
    """By criterion, left then right."""
    rationale: str
    note: str
    """Of a flag."""
    guideline_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A disputed item on the screen of one reader."""

    item_id: str
    use: str
    turns: tuple[Turn, ...]
    left: Markup
    right: Markup
    num_replies: int
    """Of a ranking more than two: votes and decision are on the first two."""
    said: tuple[Said, ...]
    decided: str
    """The choice that was made, as on this page; empty before."""
    reason: str
    decided_under: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What an adjudicator sends, in the frame of the page."""

    key: str
    choice: str
    reason: str
    guideline_version: int


def is_swapped(item_id: str, person_id: str) -> bool:
    """Does the second completion stand on the left for this reader?"""
    return bool(drawn_for(item_id, person_id) % 2)


def read_case(rows: Rows, actor: Actor, project_id: str, item_id: str) -> Case:
    """An item with its votes.

    Raises:
        Refused: it is not there, or the reader has it to rate: who votes does not see other votes before.
    """
    item = _item(rows, project_id, item_id)
    require_not_to_rate(rows, actor, item_id)
    return case_of(rows, item, actor.person_id)


def case_of(rows: Rows, item: Item, person_id: str) -> Case:
    """The item as this reader sees it."""
    whole, swapped = texts_of(rows, item), is_swapped(item.id, person_id)
    first, second = (completion.text for completion in whole.completions[:2])  # of which the column `verdict` speaks
    texts = (second, first) if swapped else (first, second)
    found = rows.execute(
        sa.select(Verdict, Flag.note).outerjoin(Flag, Flag.assignment_id == Verdict.assignment_id).where(Verdict.item_id == item.id)
    ).all()  # fmt: skip
    ordered = sorted(found, key=lambda row: drawn_for(item.id, row[0].person_id))
    decision = rows.get(Decision, item.id)
    return Case(
        item_id=item.id, use=item.use, turns=tuple(Turn(role=ROLES[turn.role], text=to_html(turn.content)) for turn in whole.prompt.messages),
        left=to_html(texts[0]), right=to_html(texts[1]), num_replies=len(whole.completions),
        said=tuple(_said(number, verdict, note or "", swapped=swapped) for number, (verdict, note) in enumerate(ordered)),
        decided=_on_page(decision.verdict, swapped=swapped) if decision else "", reason=decision.reason if decision else "",
        decided_under=decision.guideline_version if decision else None,
    )  # fmt: skip


def _said(number: int, verdict: Verdict, note: str, *, swapped: bool) -> Said:
    choice = _on_page(verdict.verdict, swapped=swapped)
    words = _OTHER.get(choice) or f"{choice.capitalize()} {_STRENGTHS[abs(verdict.strength)]}"
    return Said(name=f"Rater {_letters(number)}", words=words, choice=choice, ratings=_ratings(verdict, swapped=swapped),
                rationale=verdict.rationale, note=note, guideline_version=verdict.guideline_version)  # fmt: skip


def _ratings(verdict: Verdict, *, swapped: bool) -> str:
    """Of the two replies on this page."""
    places = (1, 0) if swapped else (0, 1)
    return "; ".join(f"{name} {given[places[0]]}, {given[places[1]]}" for name, given in verdict.criteria.items())


def _letters(number: int) -> str:
    return chr(65 + number) if number < 26 else f"{chr(64 + number // 26)}{chr(65 + number % 26)}"


def _on_page(verdict: str, *, swapped: bool) -> str:
    if verdict not in ("a", "b"):
        return verdict
    return "left" if (verdict == "a") != swapped else "right"


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


def decide(database: Database, actor: Actor, project_id: str, item_id: str, ruling: Ruling) -> int:
    """Record a decision with its reason, or change an earlier one; return the number of its event. The same key twice is one decision."""
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
        content = {"item": item_id, "choice": ruling.choice, "swapped": is_swapped(item_id, actor.person_id), "reason": ruling.reason.strip(),
                   "guideline_version": ruling.guideline_version}  # fmt: skip
        repeat = same_key(rows, actor, ruling.key, kind=decisions.DECIDED, assignment_id=None, content=content)
        if repeat is not None:
            return repeat.number
        require_not_to_rate(rows, actor, item.id)
        guideline = get_guideline(rows, project_id, ruling.guideline_version)
        if (ruling.choice == "tie" and guideline.ties != "allowed") or (
            ruling.choice == "both_bad" and not guideline.both_bad
        ):
            raise invalid(
                "This guideline does not allow this verdict, for raters or for you. Choose one of the two replies."
            )
        if rows.scalar(sa.select(Verdict.assignment_id).where(Verdict.item_id == item_id).limit(1)) is None:
            raise Refused(409, "no_votes", "Nobody has voted on this item yet. Decide when there are votes to read.")
        event = record(
            rows, decisions.DECIDED, person_id=actor.person_id, project_id=project_id, key=ruling.key, content=content
        )
        decisions.follow(rows, event)
        return event.number


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
    """The most disputed item that nobody decided and that this reader has not to rate; None when there is none."""
    sheet = sheet_of(database, project_id).value
    with database.read() as rows:
        decided = set(decisions.decisions_of(rows, project_id))
        own = set(
            rows.scalars(
                sa.select(Assignment.item_id).where(
                    Assignment.project_id == project_id,
                    Assignment.person_id == actor.person_id,
                    Assignment.state == "open",
                )
            )
        )
    places = order_of(sheet, Wanted(), decided=decided, flagged=set())
    return next(
        (sheet.item_ids[i] for i in places if sheet.item_ids[i] not in own and sheet.item_ids[i] != without), None
    )
