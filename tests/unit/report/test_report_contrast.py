"""Text colours reach a contrast of 4.5 on every ground they stand on, in both themes; tables keep exact values."""

import importlib.resources
import re

import pytest

from fairlead.core.summary import Table
from fairlead.report.tables import view_table

_FILES = importlib.resources.files("fairlead.report")
CSS = "".join(
    _FILES.joinpath(name).read_text(encoding="utf-8")
    for name in ("static/colors.css", "templates/page.css", "static/chart.css")
)
PAIRS = [
    *((text, ground) for text in ("text", "quiet", "link") for ground in ("ground", "panel")),
    *((f"{role}-text", "ground") for role in ("policy", "reference", "reward", "people", "judge", "neutral")),
    *((f"{word}", f"{word}-tint") for word in ("pass", "warn", "stop")), *((word, "ground") for word in ("pass", "warn", "stop")),
    *(("text", tint) for tint in ("pass-tint", "warn-tint", "stop-tint", "gone", "new")), ("link", "stop-tint"),
]  # fmt: skip


def colours(name: str) -> tuple[str, str]:
    """Light and dark value of a variable."""
    match = re.search(rf"--{name}: (?:light-dark\((#\w{{6}}), (#\w{{6}})\)|(#\w{{6}}));", CSS)
    assert match, name
    return (match[1] or match[3], match[2] or match[3])


def luminance(colour: str) -> float:
    """WCAG 2.2 relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("text", "ground"), PAIRS)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(text: str, ground: str, theme: int):
    a, b = sorted((luminance(colours(text)[theme]), luminance(colours(ground)[theme])))
    assert (b + 0.05) / (a + 0.05) >= 4.5


def test_colours_of_the_design_are_kept():
    assert colours("policy")[0] == "#0072b2" and colours("reward")[0] == "#e69f00" and colours("people")[0] == "#009e73"
    assert colours("judge")[0] == "#cc79a7" and colours("stop-mark")[0] == "#d55e00"


def test_numbers_are_shown_short_and_kept_exact():
    view = view_table(
        Table(
            title="t", columns=("a", "b", "c"), rows=((1 / 3, 12345, "x"), (-2.0, None, None), (float("nan"), 1, "1"))
        )
    )
    assert [cell.text for cell in view.rows[0]] == ["0.333", "12,345", "x"]
    assert [cell.value for cell in view.rows[0]] == ["0.3333333333333333", "12345", "x"]
    assert [cell.text for cell in view.rows[1]] == ["\N{MINUS SIGN}2", "–", "–"] and [
        c.value for c in view.rows[1]
    ] == ["-2", "", ""]
    assert view.rows[2][0].text == "not finite" and view.number_columns == (True, True, False)


def test_rows_of_uneven_length_are_filled():
    view = view_table(Table(title="t", columns=("a", "b"), rows=((1,), (1, 2, 3))))
    assert view.columns == ("a", "b", "") and {len(row) for row in view.rows} == {3}
