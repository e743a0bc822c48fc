"""The lead's pages of costs and of labels: what votes cost, when the budget stops the work, and what votes become."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response

from fairlead.report.charts import draw_chart
from fairlead.store.annotation.schema import Person
from fairlead.web import budget, policy
from fairlead.web.cases import order_for
from fairlead.web.dashboard.labels import METHODS, Unsure, labels_of
from fairlead.web.demonstrations.reviews import NUM_CHANGED, reviews_of
from fairlead.web.errors import invalid
from fairlead.web.excerpts import excerpt_of_item
from fairlead.web.pages.context import actor, around, check_csrf, render, see
from fairlead.web.pages.dashboard import project_for_lead
from fairlead.web.projects import KINDS
from fairlead.web.verdicts import new_key

router = APIRouter()
Text = Annotated[str, Form()]


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise invalid(f"The {name} is no number. Write dollars as 12.50.") from error


@router.get("/p/{project_id}/costs")
def costs_page(request: Request, project_id: str) -> Response:
    """The ledger."""
    project = project_for_lead(request, project_id)
    database = around(request).database
    with database.read() as rows:
        num_usable = budget.usable_pairs(rows, project_id)
        costs = budget.costs_of(rows, project_id)
        leads = {
            row[0]: row[1]
            for row in rows.execute(sa.select(Person.id, Person.name).where(Person.role.in_(policy.ROLES[2:])))
        }
        lines = budget.lines_of(rows, project_id, names=leads)
    return render(request, "costs.html", project=project, costs=costs, ledger=costs.ledger(num_usable), state=costs.state(num_usable),
                  num_usable=num_usable, lines=lines, key=new_key())  # fmt: skip


@router.post("/p/{project_id}/costs")
def set_costs(
    request: Request, project_id: str, dollars_per_vote: Text, limit_dollars: Text = "", csrf: Text = ""
) -> Response:
    """Set price and limit."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    limit = _number(limit_dollars, "limit") if limit_dollars.strip() else None
    terms = budget.Terms(dollars_per_vote=_number(dollars_per_vote, "price"), limit_dollars=limit)
    budget.set_budget(around(request).database, project_id, terms, by=who.person_id)
    return see(f"/p/{project_id}/costs")


@router.post("/p/{project_id}/costs/payment")
def add_payment(
    request: Request, project_id: str, kind: Text, dollars: Text, note: Text, key: Text, csrf: Text = ""
) -> Response:
    """Enter a payment beside votes."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    budget.add_payment(
        around(request).database,
        project_id,
        kind=kind,
        dollars=_number(dollars, "sum"),
        note=note,
        by=who.person_id,
        key=key,
    )
    return see(f"/p/{project_id}/costs")


@router.post("/p/{project_id}/costs/override")
def override(request: Request, project_id: str, reason: Text = "", csrf: Text = "") -> Response:
    """Go on beyond the limit, on record."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    budget.override(around(request).database, project_id, reason=reason, by=who.person_id)
    return see(f"/p/{project_id}/costs")


@router.get("/p/{project_id}/labels")
def labels_page(
    request: Request, project_id: str, method: Annotated[str, Query(max_length=40)] = "one_coin_side_bias"
) -> Response:
    """What votes become under each method."""
    project = project_for_lead(request, project_id, kinds=KINDS)
    if project.kind == "demonstration":
        found = reviews_of(around(request).database, project_id)
        return render(
            request, "replies.html", project=project, reading=found.value, most=NUM_CHANGED, age_s=found.age_s()
        )
    if method not in METHODS:
        raise invalid(f"method is no choice of this page. Choose one of {', '.join(METHODS)}.")
    database = around(request).database
    kept = labels_of(database, project_id)
    unsure, reader = kept.value.unsure.get(method, ()), actor(request).person_id
    with database.read() as rows:
        shown = [(pair, excerpt_of_item(rows, pair.item_id), _which(pair, reader)) for pair in unsure]
    chart = draw_chart(kept.value.chart, chart_id="certainty") if kept.value.chart else None
    return render(
        request,
        "labels.html",
        project=project,
        reading=kept.value,
        age_s=kept.age_s(),
        unsure=shown,
        method=method,
        methods=METHODS,
        chart=chart,
    )


def _which(pair: Unsure, reader: str) -> str:
    """Which replies of a ranking they are, as its page numbers them for this reader; empty for a pair."""
    if pair.num_completions == 2:
        return ""
    shown = order_for(pair.item_id, reader, pair.num_completions)
    one, other = sorted(shown.index(str(position)) + 1 for position in pair.pair)
    return f"replies {one} and {other}"
