"""Totals that every verdict keeps current, so that a page on a million verdicts adds up some thousand rows. Derived; `rebuild` makes them again.

    progress.pattern   on every item: how often it got each label, as `a:2 b:1`; items with equal patterns are counted by an index
    work               what each rater did: verdicts by day, guideline version, choice on the screen and strength, with the time they took
    concord            each rater's labels against the majority of the other raters of the same item
    readings           figures that need the votes themselves, as they were last made
    tallies            how many verdicts and skips a project has, for what asks at every item: is the budget spent?

What is read from them is in `web.totals`.
"""

from collections import Counter
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import Id, Number, Table, table_of


class Work(Table):
    """Verdicts of one rater that have all of this in common. A row may count none."""

    __tablename__ = "work"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id"), primary_key=True)
    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    """Days since 1970, UTC, of the event."""
    guideline_version: Mapped[int] = mapped_column(primary_key=True)
    choice: Mapped[str] = mapped_column(String(12), primary_key=True)
    """As the rater saw it: left, right, tie, both_bad, skip or ranked."""
    strength: Mapped[int] = mapped_column(primary_key=True)
    """0 to 3."""
    num: Mapped[int]
    num_timed: Mapped[int]
    """Of them, those with a time."""
    active_ms: Mapped[int] = mapped_column(Number)
    """Sum over those."""


class Concord(Table):
    """Votes of one rater by label, against what most of the other raters of the item say. A row may count none."""

    __tablename__ = "concord"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    person_id: Mapped[str] = mapped_column(Id, ForeignKey("people.id"), primary_key=True)
    label: Mapped[str] = mapped_column(String(12), primary_key=True)
    """What the rater says, in the canonical frame."""
    others: Mapped[str] = mapped_column(String(12), primary_key=True)
    """What the majority of the others says. Votes without one (nobody else, or they tie) have no row."""
    num: Mapped[int]


class Tally(Table):
    """Verdicts of a project, skips among them. No row before the first."""

    __tablename__ = "tallies"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    num_verdicts: Mapped[int] = mapped_column(Number)


class Reading(Table):
    """Service: figures of a large project as they were last made, for a server that starts again (`web.dashboard.remembered`)."""

    __tablename__ = "readings"
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(Id, primary_key=True)
    at: Mapped[int] = mapped_column(Number)
    body: Mapped[str]
    """JSON with NaN, which databases refuse in columns of JSON."""


_PATTERN = """
UPDATE progress SET pattern = COALESCE((
  SELECT {joined} FROM (
    SELECT verdict, COUNT(*) AS n FROM verdicts WHERE verdicts.item_id = progress.item_id GROUP BY verdict ORDER BY verdict
  ) AS labels
), '')
"""
_WORK = """
INSERT INTO work (project_id, person_id, day, guideline_version, choice, strength, num, num_timed, active_ms)
SELECT project_id, person_id, day, guideline_version, choice, strength, COUNT(*), COUNT(active_ms), COALESCE(SUM(active_ms), 0) FROM (
  SELECT v.project_id, v.person_id, e.at / 86400000 AS day, v.guideline_version, v.active_ms, {choice} AS choice, {strength} AS strength
  FROM verdicts v JOIN events e ON e.number = v.event_number
) AS given GROUP BY project_id, person_id, day, guideline_version, choice, strength
"""
_LABELS = """
SELECT v.project_id, v.person_id, v.verdict, p.pattern, COUNT(*)
FROM verdicts v JOIN progress p ON p.item_id = v.item_id WHERE v.verdict <> 'skip' AND p."use" <> 'anchor'
GROUP BY v.project_id, v.person_id, v.verdict, p.pattern
"""


def read_pattern(pattern: str) -> Counter[str]:
    """Labels of an item, `skip` among them."""
    return Counter({label: int(num) for label, num in (part.split(":") for part in pattern.split())})


def write_pattern(labels: Mapping[str, int]) -> str:
    """The same labels in any order give the same text."""
    return " ".join(f"{label}:{num}" for label, num in sorted(labels.items()) if num)


def majority_of_others(labels: Mapping[str, int], *, without: str) -> str | None:
    """The label that most of the others gave; None where they tie or there are none.

    Args:
        labels: votes of an item by label, skips left out.
        without: label of the one who is not among the others.
    """
    others = {label: num - (label == without) for label, num in labels.items()}
    most = max(others.values(), default=0)
    top = [label for label, num in others.items() if num == most]
    return top[0] if most > 0 and len(top) == 1 else None


def fill(connection: sa.Connection) -> None:
    """Make all totals but tallies from the verdicts that are there; those that were there are forgotten."""
    is_sqlite = connection.dialect.name == "sqlite"
    joined = (
        "group_concat(verdict || ':' || n, ' ')"
        if is_sqlite
        else "string_agg(verdict || ':' || n, ' ' ORDER BY verdict COLLATE \"C\")"
    )
    choice, strength = ("json_extract(e.content, '$.choice')", "json_extract(e.content, '$.strength')") if is_sqlite else (
        "e.content->>'choice'", "CAST(e.content->>'strength' AS INTEGER)")  # fmt: skip
    connection.execute(sa.text("DELETE FROM work"))
    connection.execute(sa.text("DELETE FROM concord"))
    connection.exec_driver_sql(_PATTERN.format(joined=joined))
    connection.exec_driver_sql(_WORK.format(choice=choice, strength=strength))
    _fill_concord(connection)


def _fill_concord(connection: sa.Connection) -> None:
    """From patterns: votes with the same label on items with the same labels have the same others."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for project_id, person_id, label, pattern, num in connection.exec_driver_sql(_LABELS):
        labels = read_pattern(pattern)
        del labels["skip"]
        others = majority_of_others(labels, without=label)
        if others is not None:
            found[project_id, person_id, label, others] += num
    if found:
        names = ("project_id", "person_id", "label", "others", "num")
        connection.execute(sa.insert(table_of(Concord)), [dict(zip(names, (*key, num), strict=True)) for key, num in found.items()])  # fmt: skip


def fill_tallies(connection: sa.Connection) -> None:
    """Make the tallies again."""
    connection.execute(sa.text("DELETE FROM tallies"))
    counted = "SELECT project_id, COUNT(*) FROM verdicts GROUP BY project_id"
    connection.exec_driver_sql(f"INSERT INTO tallies (project_id, num_verdicts) {counted}")
