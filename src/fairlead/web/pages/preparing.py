"""What a page shows while its figures are made for the first time, from all votes of a large project: those that totals give at once."""

from fastapi import Request
from fastapi.responses import Response

from fairlead.web import policy
from fairlead.web.errors import NotYet
from fairlead.web.pages.context import actor, around, render
from fairlead.web.projects import get_project
from fairlead.web.quality import quality_of
from fairlead.web.status import status_of


def preparing_page(request: Request, error: NotYet) -> Response:
    """Counts for everybody who may open the page that was asked for, agreement for those who may see votes."""
    who, database = actor(request), around(request).database
    with database.read() as rows:
        project = get_project(rows, error.project_id)
        counts = status_of(rows, project)
    kept = quality_of(database, project.id) if who.role in policy.ROLES[2:] else None
    return render(
        request, "preparing.html", status=error.status, project=project, counts=counts, message=error.message, path=str(request.url.path),
        figures=kept.value.figures if kept else (), age_s=kept.age_s() if kept else 0,
    )  # fmt: skip
