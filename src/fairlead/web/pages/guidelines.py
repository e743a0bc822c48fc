"""The guideline's history with what each version did to agreement, and the guideline as a document."""

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from fairlead.store.annotation.schema import Guideline
from fairlead.web import documents, policy
from fairlead.web.dashboard.versions import difference, figures_of, rule_changes
from fairlead.web.pages.context import actor, around, render
from fairlead.web.pages.dashboard import project_for_lead
from fairlead.web.projects import KINDS, current_guideline, get_guideline, get_project

router = APIRouter()


@router.get("/p/{project_id}/guideline/history")
def history_page(request: Request, project_id: str) -> Response:
    """Versions, newest first, each with its differences and agreement before and after."""
    project = project_for_lead(request, project_id, kinds=KINDS)
    database = around(request).database
    with database.read() as rows:
        versions = list(
            rows.scalars(sa.select(Guideline).where(Guideline.project_id == project_id).order_by(Guideline.version))
        )
    kept = figures_of(database, project_id)
    entries = [
        {"version": now, "figures": kept.value.get(now.version), "lines": difference(before.text, now.text) if before else (),
         "changes": rule_changes(before, now) if before else (), "has_new_ties": before is not None and before.ties != now.ties}
        for before, now in zip([None, *versions], versions, strict=False)
    ]  # fmt: skip
    return render(request, "history.html", project=project, entries=entries[::-1], age_s=kept.age_s())


@router.get("/p/{project_id}/guideline/document")
def document_page(request: Request, project_id: str, version: int | None = None) -> Response:
    """For printing: the guideline with everything that it asks of a verdict."""
    policy.may_read_guideline(actor(request))
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
        found = get_guideline(rows, project_id, version) if version else current_guideline(rows, project_id)
    return render(
        request, "document.html", project=project, guideline=found, text=documents.as_markdown(project, found)
    )


@router.get("/p/{project_id}/guideline/document.md")
def document_file(request: Request, project_id: str, version: int | None = None) -> Response:
    """The same as a file of Markdown."""
    policy.may_read_guideline(actor(request))
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
        found = get_guideline(rows, project_id, version) if version else current_guideline(rows, project_id)
    headers = {"content-disposition": f'attachment; filename="guideline-{found.version}.md"'}
    return PlainTextResponse(
        documents.as_markdown(project, found), media_type="text/markdown; charset=utf-8", headers=headers
    )
