"""Counts of a project that verdicts keep current, and what the lead's pages read from them: milliseconds, however many verdicts there are.

    kept by `count` in the transaction of each verdict; made again by `store.annotation.totals.fill`; equal to counting all votes (tested)

    labels_of_items    how many items have each combination of labels -> agreement of any kind (`stats.agreement.report_of_counts`)
    work_of_raters     verdicts, skips, left and right, labels by strength, seconds, days, guideline versions
    concord_of_raters  a rater's labels against the majority of the others -> agreement, what chance would give, confusions
    num_verdicts       of a project, skips among them: one row

Slices by a field of the prompt, rolling figures, pairs of raters and lengths of texts are not in them: those need the votes themselves.

Example:
    with database.read() as rows:
        table = labels_of_items(rows, project.id)
    report_of_counts(table.counts, table.times, seed=0)["krippendorff_alpha"]
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from fairlead.stats.arrays import IntArray
from fairlead.store.annotation.database import Rows, run
from fairlead.store.annotation.schema import Assignment, Event, Progress, Verdict, table_of
from fairlead.store.annotation.totals import Concord, Tally, Work, majority_of_others, read_pattern, write_pattern

DAY_MS = 24 * 3600 * 1000
LABELS = ("a", "b")
"""First of the labels wherever labels are numbered; those that occur besides follow by name."""
_ADD_WORK = sa.text(
    "INSERT INTO work (project_id, person_id, day, guideline_version, choice, strength, num, num_timed, active_ms) "
    "VALUES (:project_id, :person_id, :day, :guideline_version, :choice, :strength, :num, :num_timed, :active_ms) "
    "ON CONFLICT (project_id, person_id, day, guideline_version, choice, strength) DO UPDATE SET num = work.num + excluded.num, "
    "num_timed = work.num_timed + excluded.num_timed, active_ms = work.active_ms + excluded.active_ms"
)
_ADD_CONCORD = sa.text(
    "INSERT INTO concord (project_id, person_id, label, others, num) VALUES (:project_id, :person_id, :label, :others, :num) "
    "ON CONFLICT (project_id, person_id, label, others) DO UPDATE SET num = concord.num + excluded.num"
)
_ADD_TALLY = sa.text(
    "INSERT INTO tallies (project_id, num_verdicts) VALUES (:project_id, :num) "
    "ON CONFLICT (project_id) DO UPDATE SET num_verdicts = tallies.num_verdicts + excluded.num_verdicts"
)
_VERDICT = table_of(Verdict).c
_VOTERS = sa.select(_VERDICT.person_id, _VERDICT.verdict).where(
    _VERDICT.item_id == sa.bindparam("item"), _VERDICT.verdict.in_(sa.bindparam("labels", expanding=True)),
    _VERDICT.assignment_id != sa.bindparam("own"),
)  # fmt: skip


def count(
    rows: Rows, assignment: Assignment, progress: Progress, *, before: tuple[str, Event] | None, after: tuple[str, Event] | None
) -> None:  # fmt: skip
    """Bring the totals up to date with one assignment.

    Args:
        before: verdict in the canonical frame and its event, as they were counted; None where there was none.
        after: what stands now; None when it was withdrawn.
    """
    for given, by in ((before, -1), (after, 1)):
        if given is not None:
            run(rows, _ADD_WORK, _work(given[1], by))
    if (before is None) != (after is None):
        run(rows, _ADD_TALLY, {"project_id": assignment.project_id, "num": 1 if before is None else -1})
    labels = read_pattern(progress.pattern)
    was, now = (None if given is None else given[0] for given in (before, after))
    changed = labels.copy()
    if was is not None:
        changed[was] -= 1
    if now is not None:
        changed[now] += 1
    progress.pattern = write_pattern(changed)
    if progress.use == "anchor":  # votes on anchors say nothing of how raters agree on pairs
        return
    del labels["skip"], changed["skip"]
    shifts = _shifts(rows, assignment, labels, changed, was=was, now=now)
    found = [
        {"project_id": assignment.project_id, "person_id": person_id, "label": label, "others": others, "num": num}
        for (person_id, label, others), num in shifts.items() if num
    ]  # fmt: skip
    if found:
        run(rows, _ADD_CONCORD, found)


def _work(event: Event, by: int) -> dict[str, Any]:
    time = event.content["active_ms"]
    return {
        "project_id": event.project_id, "person_id": event.person_id, "day": event.at // DAY_MS, "choice": event.content["choice"],
        "guideline_version": event.content["guideline_version"], "strength": event.content["strength"], "num": by,
        "num_timed": 0 if time is None else by, "active_ms": by * (time or 0),
    }  # fmt: skip


def _shifts(
    rows: Rows, assignment: Assignment, labels: Counter[str], changed: Counter[str], *, was: str | None, now: str | None
) -> Counter[tuple[str, str, str]]:  # fmt: skip
    """What changes in `concord`, by person, label and others: this rater's own vote, and those of others whose majority it moves."""
    found: Counter[tuple[str, str, str]] = Counter()

    def add(person_id: str, label: str, others: str | None, by: int) -> None:
        if others is not None:
            found[person_id, label, others] += by

    if was is not None and was != "skip":
        add(assignment.person_id, was, majority_of_others(labels, without=was), -1)
    if now is not None and now != "skip":
        add(assignment.person_id, now, majority_of_others(changed, without=now), 1)
    rest = labels.copy()
    if was is not None and was in rest:
        rest[was] -= 1
    moved = {
        label: (earlier, later)
        for label, num in rest.items()
        if num > 0
        and (earlier := majority_of_others(labels, without=label))
        != (later := majority_of_others(changed, without=label))
    }
    if moved:
        voters = run(rows, _VOTERS, {"item": assignment.item_id, "labels": sorted(moved), "own": assignment.id})  # fmt: skip
        for person_id, label in voters:
            earlier, later = moved[label]
            add(person_id, label, earlier, -1)
            add(person_id, label, later, 1)
    return found


def num_verdicts(rows: Rows, project_id: str) -> int:
    """Verdicts that stand, skips and votes on anchors among them."""
    return rows.scalar(sa.select(Tally.num_verdicts).where(Tally.project_id == project_id)) or 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelTable:
    """Items by the labels that they got. Legend: D combinations, K labels."""

    label_names: tuple[str, ...]
    counts: IntArray
    """[D, K]"""
    times: IntArray
    """[D] items with these counts."""
    num_skips: int

    @property
    def num_votes(self) -> int:
        """Skips left out."""
        return int((self.counts.sum(1) * self.times).sum())


def labels_of_items(rows: Rows, project_id: str, *, uses: Sequence[str] = ()) -> LabelTable:
    """Count items by their labels, skips left out.

    Args:
        uses: production, calibration and so on; all but hidden anchors where empty.
    """
    of = [Progress.project_id == project_id, Progress.use.in_(uses) if uses else Progress.use != "anchor"]
    found = rows.execute(sa.select(Progress.pattern, sa.func.count()).where(*of).group_by(Progress.pattern)).all()
    merged: Counter[tuple[tuple[str, int], ...]] = Counter()
    num_skips = 0
    for pattern, times in found:
        labels = read_pattern(pattern)
        num_skips += times * labels.pop("skip", 0)
        merged[tuple(sorted(labels.items()))] += times
    names = label_order(label for labels in merged for label, _ in labels)
    counts = np.zeros((len(merged), len(names)), dtype=np.int64)
    for row, labels in enumerate(sorted(merged)):
        for label, num in labels:
            counts[row, names.index(label)] = num
    times = np.array([merged[labels] for labels in sorted(merged)], dtype=np.int64)
    return LabelTable(label_names=names, counts=counts, times=times, num_skips=num_skips)


def labels_by_use(rows: Rows, project_id: str) -> dict[str, Counter[str]]:
    """Votes and skips by label, for each use of items but hidden anchors. Read from an index alone."""
    found = rows.execute(
        sa.select(Progress.use, Progress.pattern, sa.func.count()).where(Progress.project_id == project_id, Progress.use != "anchor")
        .group_by(Progress.use, Progress.pattern)
    )  # fmt: skip
    table: dict[str, Counter[str]] = {}
    for use, pattern, times in found:
        own = table.setdefault(use, Counter())
        for label, num in read_pattern(pattern).items():
            own[label] += num * times
    return table


def label_order(labels: Any) -> tuple[str, ...]:
    """a, b, then the others by name."""
    return (*LABELS, *sorted(set(labels) - set(LABELS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRow:
    """Verdicts of a rater that have a day, a guideline version, a choice and a strength in common."""

    person_id: str
    day: int
    guideline_version: int
    choice: str
    strength: int
    num: int
    num_timed: int
    active_ms: int


def work_of_raters(rows: Rows, project_id: str, *, person_id: str | None = None) -> list[WorkRow]:
    """All that raters did, by rater and day; add up what a page asks for."""
    of = [Work.project_id == project_id, Work.num > 0, *([Work.person_id == person_id] if person_id else [])]
    columns = (
        Work.person_id,
        Work.day,
        Work.guideline_version,
        Work.choice,
        Work.strength,
        Work.num,
        Work.num_timed,
        Work.active_ms,
    )
    found = rows.execute(sa.select(*columns).where(*of).order_by(Work.person_id, Work.day)).all()
    return [WorkRow(**row._mapping) for row in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayRow:
    """Verdicts of a day."""

    day: int
    num_votes: int
    num_skips: int
    num_raters: int


def work_by_day(rows: Rows, project_id: str) -> list[DayRow]:
    """Days with a verdict, in order, added up by the database."""
    skips = sa.func.sum(sa.case((Work.choice == "skip", Work.num), else_=0))
    found = rows.execute(
        sa.select(Work.day, sa.func.sum(Work.num) - skips, skips, sa.func.count(Work.person_id.distinct()))
        .where(Work.project_id == project_id, Work.num > 0).group_by(Work.day).order_by(Work.day)
    )  # fmt: skip
    return [DayRow(day=row[0], num_votes=int(row[1]), num_skips=int(row[2]), num_raters=row[3]) for row in found]


def choices_of_raters(rows: Rows, project_id: str) -> dict[str, Counter[str]]:
    """By person: verdicts by choice on the screen, added up by the database."""
    found = rows.execute(
        sa.select(Work.person_id, Work.choice, sa.func.sum(Work.num)).where(Work.project_id == project_id, Work.num > 0)
        .group_by(Work.person_id, Work.choice).order_by(Work.person_id)
    )  # fmt: skip
    table: dict[str, Counter[str]] = {}
    for person_id, choice, num in found:
        table.setdefault(person_id, Counter())[choice] = int(num)
    return table


def concord_of_raters(rows: Rows, project_id: str) -> dict[str, dict[tuple[str, str], int]]:
    """By person: votes by (own label, majority of the others)."""
    found = rows.execute(
        sa.select(Concord.person_id, Concord.label, Concord.others, Concord.num).where(Concord.project_id == project_id, Concord.num > 0)
    ).all()  # fmt: skip
    table: dict[str, dict[tuple[str, str], int]] = {}
    for person_id, label, others, num in found:
        table.setdefault(person_id, {})[label, others] = num
    return table
