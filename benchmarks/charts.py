"""Charts of the report as a picture for the documentation: the same geometry and template, in one SVG file with colours of its own."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import jinja2

from fairlead.core.summary import Chart
from fairlead.report.charts import HEIGHT, WIDTH, draw_chart

COLUMNS = 2
GAP, TITLE = 24, 22
STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; fill: #56606a; }
.question { font-size: 14px; font-weight: 600; fill: #1a1d21; }
.ground { fill: #ffffff; }
.grid { stroke: #d5dae0; opacity: 0.6; }
.axis { stroke: #56606a; fill: none; }
.role-policy { --line: #0072b2; } .role-reference { --line: #6b747d; } .role-neutral { --line: #444b53; }
.role-neutral .line { stroke-width: 1; } .role-neutral .point { fill: none; }
.band { fill: var(--line); opacity: 0.18; }
.line { fill: none; stroke: var(--line); stroke-width: 2.25; stroke-linejoin: round; }
.role-reference .line { stroke-dasharray: 7 4; } .role-neutral .line { stroke-dasharray: 2 3; }
.point { fill: var(--line); }
.leader { stroke: #d5dae0; fill: none; }
.label { font-weight: 600; fill: var(--line); }
"""


def write_svg(path: Path, charts: Sequence[Chart]) -> None:
    """Draw charts in two columns, each under its question."""
    macros = jinja2.Environment(loader=jinja2.PackageLoader("fairlead.report"), autoescape=True, undefined=jinja2.StrictUndefined,
                                trim_blocks=True, lstrip_blocks=True).get_template("chart.html").module  # fmt: skip
    columns, rows = min(COLUMNS, len(charts)), -(-len(charts) // COLUMNS)
    width, height = columns * (WIDTH + GAP) + GAP, rows * (HEIGHT + TITLE + GAP) + GAP
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
             f'<style>{STYLE}</style><rect class="ground" width="{width}" height="{height}"/>']  # fmt: skip
    for i, chart in enumerate(charts):
        x, y = GAP + i % COLUMNS * (WIDTH + GAP), GAP + i // COLUMNS * (HEIGHT + TITLE + GAP)
        figure = str(macros.chart_figure(draw_chart(chart, chart_id=f"chart-{i}")))  # pyright: ignore[reportAttributeAccessIssue]
        found = re.search(r"<svg (.*?</svg>)", figure, re.DOTALL)
        assert found is not None, f"nothing to draw for {chart.question!r}"
        parts.append(f'<text class="question" x="{x}" y="{y + 10}">{escape(chart.question)}</text>')
        parts.append(f'<svg x="{x}" y="{y + TITLE}" width="{WIDTH}" height="{HEIGHT}" {found[1]}')
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [line.strip() for part in parts for line in part.splitlines()]
    path.write_text("\n".join(line for line in lines if line) + "\n</svg>\n", encoding="utf-8")
