"""A run in, one HTML text out. Templates lie in `templates/`; autoescaping is on and no template switches it off."""

import datetime as dt
import functools
import math
import re

import jinja2

from fairlead.report.context import PageContext
from fairlead.report.lineage import draw_lineage
from fairlead.report.run import RunReport
from fairlead.report.stages import (
    count_gates,
    dollars,
    duration,
    first_agreement_stage,
    view_costs,
    view_figure,
    view_overrides,
    view_stage,
)

MAX_STRIP_COLUMNS = 6
# Characters that HTML may not hold (controls, lone surrogates); a model can write them, a browser or an encoder chokes on them.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def build_report(run: RunReport, *, is_live: bool = False) -> str:
    """Render the page of a run.

    Args:
        is_live: the page asks the server that it came from for news, and may do so.
    The same run gives the same text: no clock, no random number, no file is read.
    """
    html = _environment().get_template("page.html").render(page=page_context(run), is_live=is_live)
    return _NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", html)


def page_context(run: RunReport) -> PageContext:
    """Word everything that the page shows."""
    results = [result for stage in run.stages for result in stage.summary.verdicts]
    reference = first_agreement_stage(run.stages)
    rows = math.ceil(len(run.stages) / MAX_STRIP_COLUMNS) or 1
    cached = sum(stage.cached for stage in run.stages)
    return PageContext(
        name=run.name, created=run.created, created_words=_moment(run.created), scope=run.scope, model=run.model, answer=run.answer,
        figures=tuple(view_figure(item) for item in run.key_figures), gate_count=count_gates(results),
        strip_columns=math.ceil(len(run.stages) / rows) or 1,
        stages=tuple(view_stage(stage, order=i, shows_reference=i == reference) for i, stage in enumerate(run.stages, start=1)),
        overrides=view_overrides(run.stages), costs=view_costs(run.stages),
        total_time=duration(sum(stage.seconds for stage in run.stages if not stage.cached)),
        total_cost=dollars(sum(stage.summary.cost_dollars for stage in run.stages)),
        total_cached=f"{cached} of {len(run.stages)} stages reused from an earlier run; their time is not in the sum." if cached else "",
        lineage=draw_lineage(run.lineage) if run.lineage else None, command=run.command,
    )  # fmt: skip


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader("fairlead.report"), jinja2.PackageLoader("fairlead.report", "static")]),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _moment(created: str) -> str:
    """`1 March 2026, 10:00 UTC`; the text itself when it is not a date."""
    try:
        moment = dt.datetime.fromisoformat(created)
    except ValueError:
        return created
    zone = f" {moment.tzname()}" if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"
