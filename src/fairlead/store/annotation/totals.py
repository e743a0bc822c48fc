"""Totals that every verdict keeps current, so that a page on a million verdicts adds up some thousand rows. Derived; `rebuild` makes them again.

    progress.pattern   on every item: how often it got each label, as `a:2 b:1`; items with equal patterns are counted by an index
    work               what each rater did: verdicts by day, guideline version, choice on the screen and strength, with the time they took
    concord            each rater's labels against the majority of the other raters of the same item

What is read from them is in `web.totals`.
"""

import sqlalchemy as sa
from sqlalchemy import ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from fairlead.store.annotation.schema import Id, Number, Table


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
_CONCORD = """
INSERT INTO concord (project_id, person_id, label, others, num)
SELECT project_id, person_id, label, others, COUNT(*) FROM (
  SELECT v.assignment_id, MIN(v.project_id) AS project_id, MIN(v.person_id) AS person_id, MIN(v.verdict) AS label,
         MIN(t.verdict) AS others, COUNT(*) AS ties
  FROM verdicts v
  JOIN (SELECT item_id, verdict, COUNT(*) AS n FROM verdicts WHERE verdict <> 'skip' GROUP BY item_id, verdict) t ON t.item_id = v.item_id
  JOIN (
    SELECT s.assignment_id, MAX(u.n - CASE WHEN u.verdict = s.verdict THEN 1 ELSE 0 END) AS top FROM verdicts s
    JOIN (SELECT item_id, verdict, COUNT(*) AS n FROM verdicts WHERE verdict <> 'skip' GROUP BY item_id, verdict) u ON u.item_id = s.item_id
    WHERE s.verdict <> 'skip' GROUP BY s.assignment_id
  ) m ON m.assignment_id = v.assignment_id
  WHERE v.item_id NOT IN (SELECT id FROM items WHERE "use" = 'anchor')
    AND m.top > 0 AND t.n - CASE WHEN t.verdict = v.verdict THEN 1 ELSE 0 END = m.top
  GROUP BY v.assignment_id
) AS votes WHERE ties = 1 GROUP BY project_id, person_id, label, others
"""


def fill(connection: sa.Connection) -> None:
    """Make all totals from the verdicts that are there; those that were there are forgotten."""
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
    connection.exec_driver_sql(_CONCORD)
