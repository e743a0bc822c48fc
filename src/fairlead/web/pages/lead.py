"""The lead's pages: how a project goes, the guideline's next version, people, votes out."""

import functools
from collections.abc import Sequence
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response

from fairlead.core.gates import some
from fairlead.report.charts import draw_chart
from fairlead.store.annotation.schema import Person
from fairlead.store.annotation.totals import Work
from fairlead.web import needs, people, policy, projects
from fairlead.web.abilities import abilities_of
from fairlead.web.calibration import waive
from fairlead.web.dashboard.flow import flow_of
from fairlead.web.errors import Refused, missing
from fairlead.web.examples import with_example
from fairlead.web.exporting import write_archive
from fairlead.web.pages import talking, writing
from fairlead.web.pages.context import actor, around, check_csrf, render, see
from fairlead.web.quality import quality_of
from fairlead.web.rated import write_archive_as
from fairlead.web.sending import send
from fairlead.web.status import status_of
from fairlead.web.verdicts import new_key

router = APIRouter()
Text = Annotated[str, Form()]
Texts = Annotated[Sequence[str], Form()]


@router.get("/p/{project_id}")
def overview(request: Request, project_id: str) -> Response:
    """How far the project is, and how well raters agree."""
    who = actor(request)
    policy.may_see_votes(who)
    database = around(request).database
    with database.read() as rows:
        project = projects.get_project(rows, project_id)
    if project.kind == "demonstration":
        return writing.overview(request, project)
    if project.kind == "chat":
        return talking.overview(request, project)
    with database.read() as rows:
        counts, flow = status_of(rows, project), flow_of(rows, project_id)
    kept = quality_of(database, project_id)
    num_wanted, num_all = counts.num_wanted, counts.num_items - counts.num_calibration
    done = f"{counts.num_finished:,} of {some(num_all, 'pair')} {'is' if 1 in (counts.num_finished, num_all) else 'are'} finished"
    return render(
        request, "overview.html", project=project, counts=counts, headline=f"{project.name}: {done}", figures=kept.value.figures,
        gates=kept.value.gates, notes=kept.value.notes, table=kept.value.raters, age_s=kept.age_s(), flow=flow if flow.chart else None,
        flow_chart=draw_chart(flow.chart, chart_id="flow") if flow.chart else None, num_wanted=num_wanted, days_left=flow.days_left(num_wanted),
    )  # fmt: skip


@router.post("/p/{project_id}/state")
def set_state(request: Request, project_id: str, state: Text, reason: Text = "", csrf: Text = "") -> Response:
    """Pause or open again."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    projects.set_project_state(around(request).database, project_id, state=state, by=who.person_id, reason=reason)
    return see(f"/p/{project_id}")


@router.post("/p/{project_id}/waive")
def waive_calibration(
    request: Request, project_id: str, person_id: Text, reason: Text = "", csrf: Text = ""
) -> Response:
    """Let a rater into production on record."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_change_project(who)
    waive(around(request).database, project_id, person_id, by=who.person_id, reason=reason)
    return see(f"/p/{project_id}/calibration")


@router.get("/p/{project_id}/guideline/edit")
def edit_page(request: Request, project_id: str, example: str = "") -> Response:
    """The newest version, to be written on.

    Args:
        example: an item that is put at the end of the text as a borderline example.
    """
    policy.may_edit_guideline(actor(request))
    with around(request).database.read() as rows:
        project = projects.get_project(rows, project_id)
        newest = projects.current_guideline(rows, project_id)
        text = with_example(rows, project_id, newest.text, example) if example else newest.text
    return render(
        request,
        "edit.html",
        project=project,
        text=text,
        rules=projects.rules_of(newest),
        max_criteria=projects.MAX_CRITERIA,
        next_version=newest.version + 1,
        error="",
    )


def _criteria(*columns: Sequence[str]) -> tuple[projects.Criterion, ...]:
    """Rows of the form that have a name."""
    found: list[projects.Criterion] = []
    for name, question, points, low, high in zip(*columns, strict=False):
        if name.strip():
            found.append(projects.Criterion(name=name.strip(), question=question.strip(), low=low.strip(), high=high.strip(),
                                            points=int(points) if points.isascii() and points.isdigit() and len(points) < 4 else 0))  # fmt: skip
    return tuple(found)


@router.post("/p/{project_id}/guideline/edit")
def publish(
    request: Request, project_id: str, text: Text, scale: Text, ties: Text, rationale: Text, csrf: Text = "",
    both_bad: Annotated[bool, Form()] = False, spans: Annotated[bool, Form()] = False, edits: Annotated[bool, Form()] = False,
    criterion_name: Texts = (), criterion_question: Texts = (), criterion_points: Texts = (), criterion_low: Texts = (), criterion_high: Texts = (),
) -> Response:  # fmt: skip
    """Publish the next version."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_edit_guideline(who)
    database = around(request).database
    given = (criterion_name, criterion_question, criterion_points, criterion_low, criterion_high)
    rules = projects.Rules(scale=scale, ties=ties, both_bad=both_bad, rationale=rationale, spans=spans, edits=edits,
                           criteria=_criteria(*given))  # fmt: skip
    try:
        version = projects.publish_guideline(
            database, project_id, text=text.replace("\r\n", "\n"), rules=rules, by=who.person_id
        )
    except Refused as error:
        if error.status != 422:
            raise
        with database.read() as rows:
            project, newest = projects.get_project(rows, project_id), projects.current_guideline(rows, project_id)
        return render(
            request,
            "edit.html",
            status=422,
            project=project,
            text=text,
            rules=rules,
            max_criteria=projects.MAX_CRITERIA,
            next_version=newest.version + 1,
            error=error.message,
        )
    return see(f"/p/{project_id}/guideline?version={version}")


@router.get("/p/{project_id}/export.zip")
def export(
    request: Request, project_id: str, format: Annotated[str, Query(max_length=40)] = "native",
    method: Annotated[str, Query(max_length=40)] = "auto",
) -> Response:  # fmt: skip
    """All votes, as `fairlead annotate export` writes them."""
    policy.may_export(actor(request))
    database = around(request).database
    write = (
        functools.partial(write_archive, database=database, project_id=project_id)
        if format == "native"
        else functools.partial(write_archive_as, database=database, project_id=project_id, to=format, method=method)
    )
    return send(write, filename="votes.zip")


@router.get("/people")
def people_page(request: Request) -> Response:
    """Everybody with an account."""
    policy.may_invite(actor(request), "rater")
    return _people(request, link="", role="")


@router.post("/people/invite")
def invite(
    request: Request, role: Text, key: Text, languages: Text = "", skills: Text = "", csrf: Text = ""
) -> Response:
    """Make a link and show it once."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_invite(who, role)
    here = around(request)
    found = needs.abilities_from(languages=languages, skills=skills)
    secret = people.make_invite(here.database, role=role, by=who.person_id, abilities=found, keyed=(key, here.secret))
    return _people(request, link=f"{here.place.url}/invite/{secret}", role=role)


def _people(request: Request, *, link: str, role: str) -> Response:
    who = actor(request)
    with around(request).database.read() as rows:
        given = sa.select(Work.person_id, sa.func.sum(Work.num).label("num")).group_by(Work.person_id).subquery()
        found = rows.execute(
            sa.select(Person, sa.func.coalesce(given.c.num, 0)).outerjoin(given, given.c.person_id == Person.id).order_by(Person.name)
        ).all()  # fmt: skip
        had = {person_id: needs.split(each) for person_id, each in abilities_of(rows).items()}
    roles = policy.ROLES if who.role == "admin" else policy.ROLES[:2]
    return render(request, "people.html", people=found, had=had, roles=roles, link=link, link_role=role, key=new_key())


@router.post("/people/{person_id}/state")
def set_person_state(request: Request, person_id: str, state: Text, csrf: Text = "") -> Response:
    """Disable a person, or let them in again."""
    check_csrf(request, csrf)
    who = actor(request)
    database = around(request).database
    policy.may_invite(who, "rater")
    with database.read() as rows:
        person = rows.get(Person, person_id)
    if person is None:
        raise missing("This person")
    policy.may_disable(who, person_id=person_id, role=person.role)
    people.set_state(database, person_id, state=state, by=who.person_id)
    return see("/people")
