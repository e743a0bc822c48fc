"""Skills and their tests: the lead's page of who can rate what, and the rater's page of tests to take."""

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from fairlead.store.annotation.schema import Person
from fairlead.web import abilities, matching, needs, policy, projects, qualification, steering
from fairlead.web.pages.context import actor, around, check_csrf, render, see

router = APIRouter()
Text = Annotated[str, Form()]


@router.get("/p/{project_id}/skills")
def skills_page(request: Request, project_id: str) -> Response:
    """What waits for whom, and who passed which test."""
    policy.may_see_votes(actor(request))
    with around(request).database.read() as rows:
        project = projects.get_project(rows, project_id)
        projects.require_kind(project, ("comparison",))
        covered = matching.coverage(rows, project)
        tests = qualification.tests_of(rows, project_id)
        attempts = qualification.attempts(rows, project_id)
        raters = rows.execute(sa.select(Person.id, Person.name).where(Person.state == "active").order_by(Person.name)).all()  # fmt: skip
    settings = steering.steering_of(project)
    return render(
        request,
        "skills.html",
        project=project,
        covered=covered,
        tests=tests,
        attempts=attempts,
        raters=raters,
        settings=settings,
    )


@router.post("/p/{project_id}/skills")
def answer_test(
    request: Request, project_id: str, act: Text, need: Text = "", person_id: Text = "", number: Annotated[int, Form()] = 0, reason: Text = "",
    csrf: Text = "",
) -> Response:  # fmt: skip
    """Let a rater in without a test, or let one try again."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    database = around(request).database
    if act == "again":
        qualification.let_try_again(database, project_id, number, by=who.person_id)
    else:
        qualification.waive(database, project_id, person_id, need, by=who.person_id, reason=reason)
    return see(f"/p/{project_id}/skills")


@router.get("/p/{project_id}/qualification")
def qualification_page(request: Request, project_id: str) -> Response:
    """The tests of the project, and how one's own went."""
    who = actor(request)
    policy.may_rate(who)
    with around(request).database.read() as rows:
        project = projects.get_project(rows, project_id)
        tests = qualification.tests_of(rows, project_id)
        newest = {each.need: each for each in reversed(qualification.attempts(rows, project_id, who.person_id))}
    return render(request, "qualification.html", project=project, tests=tests, newest=newest)


@router.post("/p/{project_id}/qualification")
def begin(request: Request, project_id: str, need: Text, csrf: Text = "") -> Response:
    """Begin a test and go to its first pair."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_rate(who)
    qualification.begin(around(request).database, who, project_id, need)
    return see(f"/p/{project_id}/rate")


@router.post("/people/{person_id}/abilities")
def set_abilities(
    request: Request, person_id: str, languages: Text = "", skills: Text = "", csrf: Text = ""
) -> Response:
    """Write down what a person has."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_set_abilities(who)
    found = needs.abilities_from(languages=languages, skills=skills)
    abilities.set_abilities(around(request).database, person_id, found, by=who.person_id)
    return see("/people")
