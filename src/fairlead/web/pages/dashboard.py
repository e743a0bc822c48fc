"""The lead's pages of figures: agreement, raters, the calibration test. Everything on them is at most a minute old and says so."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fairlead.report.charts import draw_chart
from fairlead.stats.published import REFERENCE_ROWS
from fairlead.stats.sequential import operating_curve
from fairlead.store.annotation.schema import Project
from fairlead.web import policy, rounds
from fairlead.web.calibration import TEST, outcomes_of, read_calibration
from fairlead.web.dashboard.agreement import agreement_of, rolling_chart
from fairlead.web.dashboard.criteria import criteria_of
from fairlead.web.dashboard.gate import curve_charts, evidence_chart, standing_gauge
from fairlead.web.dashboard.raters import raters_of
from fairlead.web.demonstrations.reviews import reviews_of
from fairlead.web.pages.context import actor, around, render
from fairlead.web.projects import get_project, require_kind

router = APIRouter()


def project_for_lead(request: Request, project_id: str, *, kinds: Sequence[str] = ("comparison", "chat")) -> Project:
    """The project of a page that shows all votes, or a refusal: also where its kind has no such page."""
    policy.may_see_votes(actor(request))
    with around(request).database.read() as rows:
        project = get_project(rows, project_id)
    require_kind(project, kinds)
    return project


@router.get("/p/{project_id}/agreement")
def agreement_page(request: Request, project_id: str) -> Response:
    """Agreement overall, by slice, by pair of raters; why the limits conflict; what others reached."""
    project = project_for_lead(request, project_id, kinds=("comparison", "demonstration"))
    if project.kind == "demonstration":
        found = reviews_of(around(request).database, project_id)
        return render(request, "reviews.html", project=project, reading=found.value, age_s=found.age_s())
    kept = agreement_of(around(request).database, project_id)
    chart = rolling_chart(kept.value)
    rolling = draw_chart(chart, chart_id="rolling") if chart else None
    return render(request, "agreement.html", project=project, reading=kept.value, age_s=kept.age_s(), rolling=rolling,
                  criteria=criteria_of(around(request).database, project_id).value,
                  published=REFERENCE_ROWS)  # fmt: skip


@router.get("/p/{project_id}/raters")
def raters_page(request: Request, project_id: str) -> Response:
    """Every rater in small pictures."""
    project = project_for_lead(request, project_id, kinds=("comparison",))
    kept = raters_of(around(request).database, project_id)
    num_out = sum(card.num_out > 0 for card in kept.value.cards)
    return render(request, "raters.html", project=project, reading=kept.value, age_s=kept.age_s(), num_out=num_out)


@router.get("/p/{project_id}/calibration")
def calibration_page(request: Request, project_id: str) -> Response:
    """Where each rater stands, and what the test does to raters of each true agreement."""
    project = project_for_lead(request, project_id, kinds=("comparison",))
    with around(request).database.read() as rows:
        found = read_calibration(rows, project_id)
        round_ = rounds.current_round(rows, project_id, None)
        answers = (
            {each.name: outcomes_of(rows, round_, each.person_id) for each in found.standings}
            if found and round_
            else {}
        )
    standings = [(standing, standing_gauge(standing, TEST)) for standing in found.standings] if found else []
    evidence = evidence_chart(TEST, answers)
    drawn = (*([evidence] if evidence else []), *curve_charts(TEST))
    charts = [draw_chart(chart, chart_id=f"test-{number}") for number, chart in enumerate(drawn)]
    return render(request, "calibration.html", project=project, calibration=found, standings=standings, test=TEST, charts=charts,
                  curve=operating_curve(TEST, [TEST.p0, 0.70, TEST.p1]))  # fmt: skip
