"""The lead's page of who rates what: anchors and drift, calibration rounds, how far work may go, settings."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from fairlead.stats.rolling import PAUSE_BELOW, SCALE_ABOVE
from fairlead.store.annotation.schema import Item, Person
from fairlead.store.annotation.steering import Anchor, Round
from fairlead.web import anchors, drift, looking, policy, projects, rounds, steering
from fairlead.web.errors import invalid
from fairlead.web.inclusion import choice_state
from fairlead.web.pages.context import actor, around, check_csrf, render, see
from fairlead.web.people import now_ms
from fairlead.web.verdicts import new_key

router = APIRouter()
Text = Annotated[str, Form()]
Number = Annotated[int, Form()]


@router.get("/p/{project_id}/steering")
def steering_page(request: Request, project_id: str) -> Response:
    """Where raters stand and what steers them."""
    policy.may_see_votes(actor(request))
    database = around(request).database
    with database.read() as rows:
        project = projects.get_project(rows, project_id)
    projects.require_kind(project, ("comparison",))
    looking.look_if_due(database, project_id)
    with database.read() as rows:
        watched = drift.watched(rows, project_id)
        held = rows.execute(
            sa.select(Round, Person.name).outerjoin(Person, Person.id == Round.person_id)
            .where(Round.project_id == project_id).order_by(Round.number.desc())
        ).all()  # fmt: skip
        gold = rows.execute(
            sa.select(Anchor, Item).join(Item, Item.id == Anchor.item_id)
            .where(Anchor.project_id == project_id, Anchor.kind == "gold", Anchor.qualifies == "", ~Anchor.is_retired)
        ).all()  # fmt: skip
        seen = looking.last_look(rows, project_id)
        choice = choice_state(rows, project)
    return render(
        request, "steering.html", project=project, settings=steering.steering_of(project), watched=watched, rounds=held, num_gold=len(gold),
        look=seen[0] if seen else None, age_s=(now_ms() - seen[1]) // 1000 if seen else 0, run_lengths=drift.run_lengths(), drift=drift,
        choice=choice, pause_below=PAUSE_BELOW, scale_above=SCALE_ABOVE, key=new_key(), sequence_now=now_ms(),
    )  # fmt: skip


@router.post("/p/{project_id}/steering")
def change(
    request: Request, project_id: str, votes_per_item: Number, anchor_per_cent: Annotated[float, Form()], every_items: Number,
    every_days: Number, cap_before_round: Number, pilot_raters: Number, test_items: Number, test_per_cent: Annotated[float, Form()],
    random_per_cent: Annotated[float, Form()], choice_batch: Number, matches: Annotated[bool, Form()] = False, reason: Text = "", csrf: Text = "",
) -> Response:  # fmt: skip
    """Change the settings."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    steering.change_settings(
        around(request).database, project_id, by=who.person_id, votes_per_item=votes_per_item, reason=reason, anchor_share=anchor_per_cent / 100,
        every_items=every_items, every_days=every_days, cap_before_round=cap_before_round, pilot_raters=pilot_raters,
        test_items=test_items, test_share=test_per_cent / 100, matches=matches,
        random_share=random_per_cent / 100, choice_batch=choice_batch,
    )  # fmt: skip
    return see(f"/p/{project_id}/steering")


@router.post("/p/{project_id}/scale")
def scale(request: Request, project_id: str, reason: Text = "", csrf: Text = "") -> Response:
    """Let more raters begin than the pilot's."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    steering.scale(around(request).database, project_id, by=who.person_id, reason=reason)
    return see(f"/p/{project_id}/steering")


@router.post("/p/{project_id}/rounds")
def open_round(request: Request, project_id: str, reason: Text, key: Text, csrf: Text = "") -> Response:
    """Ask everybody to calibrate again."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    rounds.open_round(around(request).database, project_id, reason=reason, by=who.person_id, key=key)
    return see(f"/p/{project_id}/steering")


@router.post("/p/{project_id}/alarms/{number}")
def answer_alarm(
    request: Request, project_id: str, number: int, act: Text, reason: Text = "", csrf: Text = ""
) -> Response:
    """Ask the rater to calibrate again, have the votes since the change rated again, or close the alarm."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    database = around(request).database
    if act == "ask":
        drift.ask_again(database, project_id, number, by=who.person_id)
    elif act == "rerate":
        drift.rate_again(database, project_id, number, by=who.person_id)
    elif act == "close":
        drift.close(database, project_id, number, by=who.person_id, reason=reason)
    else:
        raise invalid("This is no answer to an alarm. Choose ask, rerate or close.")
    return see(f"/p/{project_id}/steering")


@router.post("/p/{project_id}/anchors")
def make_anchors(request: Request, project_id: str, csrf: Text = "") -> Response:
    """Make anchors of the calibration pairs on which raters agree."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    anchors.anchors_from_calibration(around(request).database, project_id, by=who.person_id)
    return see(f"/p/{project_id}/steering")
