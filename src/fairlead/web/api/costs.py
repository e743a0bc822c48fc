"""What a project costs and may cost."""

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Person
from fairlead.web import budget, policy
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import KeySent, Sent
from fairlead.web.api.plain import plain
from fairlead.web.projects import get_project

router = APIRouter(tags=["costs"])


class LineShown(BaseModel):
    """A price, a payment or an override."""

    at: int
    who: str
    words: str


class CostsShown(BaseModel):
    """The ledger, in dollars."""

    dollars_per_vote: float
    limit_dollars: float | None
    """Null for no limit."""
    num_paid: int
    """Votes and skips."""
    votes_dollars: float
    other_human: float
    """To people beside votes."""
    ai: float
    """To models."""
    total: float
    left: float | None
    """Of the limit; null without one."""
    num_usable: int
    """Pairs whose votes give one side 0.6 or more."""
    per_usable_pair: float | None
    """Null while there is none."""
    may_spend: bool
    """False: raters get no further pairs."""
    is_overridden: bool
    lines: list[LineShown]
    """What is on record, newest first."""


class TermsSent(Sent):
    """Price and limit from now on; a new limit ends an override."""

    dollars_per_vote: float
    limit_dollars: float | None = None


class PaymentSent(KeySent):
    """What was paid beside votes; a negative sum corrects an earlier entry."""

    kind: str
    """human or ai."""
    dollars: float
    note: str


class ReasonSent(Sent):
    """Why."""

    reason: str


@router.get("/projects/{project_id}/costs")
def get_costs(who: Who, data: Data, project_id: str) -> CostsShown:
    """The ledger of a project."""
    policy.may_see_votes(who)
    return _costs(data, project_id)


def _costs(data: Database, project_id: str) -> CostsShown:
    with data.read() as rows:
        get_project(rows, project_id)
        num_usable, found = budget.usable_pairs(rows, project_id), budget.costs_of(rows, project_id)
        leads = sa.select(Person.id, Person.name).where(Person.role.in_(policy.ROLES[2:]))
        lines = budget.lines_of(rows, project_id, names={row[0]: row[1] for row in rows.execute(leads)})
    ledger, state = found.ledger(num_usable), found.state(num_usable)
    return CostsShown(
        dollars_per_vote=found.terms.dollars_per_vote, limit_dollars=found.terms.limit_dollars, num_paid=found.num_paid,
        votes_dollars=found.votes_dollars, other_human=found.other_human, ai=found.ai, total=ledger.total, left=plain(state.left),
        num_usable=num_usable, per_usable_pair=plain(ledger.per_usable_pair), may_spend=state.may_spend or found.is_overridden,
        is_overridden=found.is_overridden, lines=[LineShown(at=line.at, who=line.who, words=line.words) for line in lines],
    )  # fmt: skip


@router.post("/projects/{project_id}/costs")
def set_terms(who: Who, data: Data, project_id: str, sent: TermsSent) -> CostsShown:
    """Set price and limit."""
    policy.may_change_project(who)
    terms = budget.Terms(dollars_per_vote=sent.dollars_per_vote, limit_dollars=sent.limit_dollars)
    budget.set_budget(data, project_id, terms, by=who.person_id)
    return _costs(data, project_id)


@router.post("/projects/{project_id}/costs/payment")
def add_payment(who: Who, data: Data, project_id: str, sent: PaymentSent) -> CostsShown:
    """Enter a payment beside votes; the same key twice is one payment."""
    policy.may_change_project(who)
    budget.add_payment(data, project_id, kind=sent.kind, dollars=sent.dollars, note=sent.note, by=who.person_id, key=sent.key)  # fmt: skip
    return _costs(data, project_id)


@router.post("/projects/{project_id}/costs/override")
def override(who: Who, data: Data, project_id: str, sent: ReasonSent) -> CostsShown:
    """Go on beyond the limit, on record."""
    policy.may_change_project(who)
    budget.override(data, project_id, reason=sent.reason, by=who.person_id)
    return _costs(data, project_id)
