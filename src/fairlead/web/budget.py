"""What a project costs and may cost. Every price, payment, limit and override is an event; the table holds what they add up to.

Every rated or skipped pair is paid: a skip took reading as well. A new price counts from its event on.

Example:
    set_budget(database, project_id, Terms(dollars_per_vote=0.30, limit_dollars=500), by=lead)
    is_spent(rows, project_id)     # True: raters get a page that says so
"""

import math
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from fairlead.feedback.costs import DOLLARS_PER_PAIR, USABLE_P, BudgetState, Entry, Ledger, budget_state
from fairlead.stats.arrays import BoolArray, IntArray
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Budget, Decision
from fairlead.store.annotation.schema import Event, Progress
from fairlead.web import totals
from fairlead.web.errors import invalid
from fairlead.web.events import check_key, record, repeated
from fairlead.web.projects import get_project

SET, PAID, OVERRIDDEN = "budget.set", "budget.paid", "budget.overridden"
KINDS = (SET, PAID, OVERRIDDEN)
MAX_DOLLARS = 1e9
MAX_NOTE = 500  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Price and limit of a project."""

    dollars_per_vote: float = DOLLARS_PER_PAIR
    limit_dollars: float | None = None
    """None for no limit."""

    def __post_init__(self) -> None:
        for name, value in (("price of a vote", self.dollars_per_vote), ("limit", self.limit_dollars)):
            if value is not None and not (math.isfinite(value) and 0 <= value <= MAX_DOLLARS):
                raise invalid(f"The {name} is {value:g} dollars. Choose a number from 0 to {MAX_DOLLARS:,.0f}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The ledger of a project."""

    terms: Terms
    num_paid: int
    """Votes and skips."""
    votes_dollars: float
    other_human: float
    ai: float
    is_overridden: bool

    def ledger(self, num_usable: int) -> Ledger:
        """As `feedback.costs` reads it."""
        entries = (
            Entry(kind="human", dollars=self.votes_dollars + self.other_human),
            Entry(kind="ai", dollars=self.ai),
        )
        return Ledger(entries=entries, num_usable=num_usable)

    def state(self, num_usable: int = 0) -> BudgetState:
        """How far the limit goes."""
        return budget_state(
            self.ledger(num_usable), budget=self.terms.limit_dollars, next_cost=self.terms.dollars_per_vote
        )


def costs_of(rows: Rows, project_id: str) -> Costs:
    """What was paid so far."""
    found = rows.get(Budget, project_id)
    num_paid = totals.num_verdicts(rows, project_id)
    if found is None:
        terms = Terms()
        return Costs(
            terms=terms,
            num_paid=num_paid,
            votes_dollars=num_paid * terms.dollars_per_vote,
            other_human=0.0,
            ai=0.0,
            is_overridden=False,
        )
    return Costs(
        terms=Terms(dollars_per_vote=found.dollars_per_vote, limit_dollars=found.limit_dollars), num_paid=num_paid,
        votes_dollars=max(found.settled_dollars + (num_paid - found.settled_votes) * found.dollars_per_vote, 0.0),
        other_human=found.other_human, ai=found.other_ai, is_overridden=found.is_overridden,
    )  # fmt: skip


def usable_pairs(rows: Rows, project_id: str) -> int:
    """Pairs whose votes (ties count half) give one side 0.6 or more, or that an adjudicator gave to one side; from totals, so quick."""
    table = totals.labels_of_items(rows, project_id)
    num = int(table.times[_is_usable(table.counts)].sum()) if len(table.counts) else 0
    decided = rows.execute(
        sa.select(Decision.verdict, Progress.pattern).join(Progress, Progress.item_id == Decision.item_id).where(Decision.project_id == project_id)
    ).all()  # fmt: skip
    for verdict, pattern in decided:
        labels = totals.read_pattern(pattern)
        own = np.array([[labels["a"], labels["b"], labels.total() - labels["a"] - labels["b"] - labels["skip"]]])
        num += int(verdict in ("a", "b")) - int(_is_usable(own)[0])
    return num


def _is_usable(counts: IntArray) -> BoolArray:
    """[D] of votes for a, for b and others [D, K]."""
    total = counts.sum(1)
    p_a = (counts[:, 0] + counts[:, 2:].sum(1) / 2) / np.maximum(total, 1)
    return (total > 0) & (np.maximum(p_a, 1 - p_a) >= USABLE_P)


def is_spent(rows: Rows, project_id: str) -> bool:
    """Would the next vote go beyond the limit? Asked at every item, so nothing is added up."""
    found = rows.get(Budget, project_id)
    if found is None or found.limit_dollars is None or found.is_overridden:
        return False
    return not costs_of(rows, project_id).state().may_spend


def set_budget(database: Database, project_id: str, terms: Terms, *, by: str) -> None:
    """Set price and limit from now on; a new limit ends an override."""
    with database.write() as rows:
        get_project(rows, project_id)
        content = {
            "dollars_per_vote": terms.dollars_per_vote,
            "limit_dollars": terms.limit_dollars,
            "votes": totals.num_verdicts(rows, project_id),
        }
        follow(rows, record(rows, SET, person_id=by, project_id=project_id, content=content))


def add_payment(
    database: Database, project_id: str, *, kind: str, dollars: float, note: str, by: str, key: str
) -> None:
    """Enter what was paid beside votes; a negative sum corrects an earlier entry. The same key twice is one payment."""
    check_key(key)
    if kind not in ("human", "ai"):
        raise invalid("A payment is to people or to models. Choose human or ai.")
    if (
        not (math.isfinite(dollars) and abs(dollars) <= MAX_DOLLARS)
        or not 1 <= len(note.strip()) <= MAX_NOTE
        or "\0" in note
    ):
        raise invalid("A payment needs a sum in dollars and what it was for. Write both.")
    with database.write() as rows:
        get_project(rows, project_id)
        content = {"kind": kind, "dollars": dollars, "note": note.strip()}
        if repeated(rows, by, key, kind=PAID, project_id=project_id, said=content) is not None:
            return
        costs = costs_of(rows, project_id)
        if (costs.ai if kind == "ai" else costs.other_human) + dollars < -1e-9:
            raise invalid("This takes more back than was entered. Correct the sum.")
        follow(rows, record(rows, PAID, person_id=by, project_id=project_id, key=key, content=content))


def override(database: Database, project_id: str, *, reason: str, by: str) -> None:
    """Let the work go on beyond the limit, on record."""
    if not 1 <= len(reason.strip()) <= MAX_NOTE or "\0" in reason:
        raise invalid("Going on beyond the budget needs a reason. Write one.")
    with database.write() as rows:
        get_project(rows, project_id)
        if not is_spent(rows, project_id):
            raise invalid(
                "The budget is not spent, so there is nothing to go beyond. Raise the limit if you plan more."
            )
        follow(rows, record(rows, OVERRIDDEN, person_id=by, project_id=project_id, content={"reason": reason.strip()}))


def follow(rows: Rows, event: Event) -> None:
    """Derive from an event what holds now."""
    assert event.project_id is not None, f"event {event.number} names no project"
    found = rows.get(Budget, event.project_id)
    if found is None:
        found = Budget(project_id=event.project_id, dollars_per_vote=DOLLARS_PER_PAIR, limit_dollars=None, settled_votes=0, settled_dollars=0.0,
                       other_human=0.0, other_ai=0.0, is_overridden=False)  # fmt: skip
        rows.add(found)
    content = event.content
    if event.kind == SET:
        found.settled_dollars += (content["votes"] - found.settled_votes) * found.dollars_per_vote
        found.settled_votes, found.dollars_per_vote = content["votes"], content["dollars_per_vote"]
        found.limit_dollars, found.is_overridden = content["limit_dollars"], False
    elif event.kind == PAID and content["kind"] == "ai":
        found.other_ai = max(found.other_ai + content["dollars"], 0.0)
    elif event.kind == PAID:
        found.other_human = max(found.other_human + content["dollars"], 0.0)
    else:
        found.is_overridden = True
    rows.flush()


def forget_derived(rows: Rows) -> None:
    """Before a replay."""
    rows.execute(sa.delete(Budget))


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One event of the ledger, in words."""

    at: int
    who: str
    words: str


def lines_of(rows: Rows, project_id: str, *, names: dict[str, str], num: int = 100) -> list[Line]:
    """Prices, payments and overrides, newest first. Only the events of `names` (person id: name) are searched, by their index."""
    found = rows.scalars(
        sa.select(Event).where(Event.project_id == project_id, Event.person_id.in_(list(names)), Event.kind.in_(KINDS))
        .order_by(Event.number.desc()).limit(num)
    ).all()  # fmt: skip
    return [Line(at=event.at, who=names[event.person_id or ""], words=_words(event)) for event in found]


def _words(event: Event) -> str:
    content = event.content
    if event.kind == SET:
        limit = "no limit" if content["limit_dollars"] is None else f"limit {content['limit_dollars']:,.2f} dollars"
        return f"{content['dollars_per_vote']:,.3f} dollars a vote from vote {content['votes']:,} on; {limit}"
    if event.kind == PAID:
        return f"{content['dollars']:,.2f} dollars to {'models' if content['kind'] == 'ai' else 'people'}: {content['note']}"
    return f"goes on beyond the limit: {content['reason']}"
