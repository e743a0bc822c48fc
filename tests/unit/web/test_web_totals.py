"""Totals that verdicts keep current equal counting all votes, whatever was changed and taken back; agreement from them is the same."""

import random

import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.preferences.agreement import read_agreement
from fairlead.preferences.raters import rater_table, read_raters
from fairlead.stats.agreement import agreement_report, report_of_counts
from fairlead.stats.votes import votes_from_rows
from fairlead.store.annotation import totals as tables
from fairlead.store.annotation.schema import Assignment, Event, Person, Progress, Verdict, table_of
from fairlead.web import bulk, importing, projects, quality, totals, verdicts
from fairlead.web.frames import is_swapped
from naive import totals_naive as naive


@pytest.fixture
def busy(database, join):
    """A project with two hundred changes of mind by five raters, all labels among them."""
    rules = projects.Rules(ties="allowed", both_bad=True)
    project = projects.create_project(database, "busy", votes_per_item=5, calibration_items=0, rules=rules)
    importing.add_items(database, project.id, pairs(8))
    draw, actors, given = random.Random(3), [join(f"rater {i}") for i in range(5)], {}
    for step in range(200):
        actor = draw.choice(actors)
        mine = given.setdefault(actor.person_id, [])
        choice = draw.choice(["left", "left", "right", "tie", "both_bad", "skip"])
        sent = vote(choice, active_ms=draw.choice([None, 4000, 61_000]))
        if mine and draw.random() < 0.15:
            verdicts.withdraw_last(database, actor, project.id, key=f"undo-key-{step}")
        elif len(mine) < 8 and (not mine or draw.random() < 0.5):
            assignment = take(database, actor, project)
            mine.append(assignment.id)
            verdicts.submit(database, actor, assignment.id, sent)
        else:
            verdicts.submit(database, actor, draw.choice(mine), sent)
        if len(mine) and not standing(database, actor):
            mine.clear()
    return project


def standing(database, actor):
    with database.read() as rows:
        return rows.scalar(sa.select(sa.func.count()).select_from(Verdict).where(Verdict.person_id == actor.person_id))


def all_votes(database):
    with database.read() as rows:
        found = rows.execute(sa.select(Verdict, Event).join(Event, Event.number == Verdict.event_number)).all()
    return [(v.item_id, v.person_id, v.verdict) for v, _ in found], [
        (v.person_id, e.at, v.guideline_version, e.content["choice"], e.content["strength"], v.active_ms)
        for v, e in found
    ]


def kept(database, project):
    with database.read() as rows:
        patterns = dict(rows.execute(sa.select(Progress.item_id, Progress.pattern).where(Progress.pattern != "")).all())
        work = {
            (row.person_id, row.day, row.guideline_version, row.choice, row.strength): (
                row.num,
                row.num_timed,
                row.active_ms,
            )
            for row in totals.work_of_raters(rows, project.id)
        }
        table = totals.concord_of_raters(rows, project.id)
    return patterns, work, {(who, *labels): num for who, found in table.items() for labels, num in found.items()}


def test_totals_equal_counting_all_votes(database, busy):
    votes, given = all_votes(database)
    assert len(votes) > 20 and len({label for *_, label in votes}) == 5
    expected = (naive.patterns(votes), naive.work(given), naive.concord(votes))
    assert kept(database, busy) == expected
    with database.write() as rows:
        tables.fill(rows.connection())
    assert kept(database, busy) == expected
    verdicts.rebuild(database)
    assert kept(database, busy) == expected


@pytest.mark.parametrize("num_a_piece", [1, 7])
def test_a_replay_in_pieces_gives_the_same_rows(database, busy, monkeypatch, num_a_piece):
    """Of an assignment that was rated in several pieces, taken back or both, the newest event holds, whatever stood there before."""
    monkeypatch.setattr(bulk, "_NUM_A_PIECE", num_a_piece)
    derived = [table_of(kind) for kind in (Verdict, Progress, tables.Work, tables.Concord, tables.Tally)]

    def stored():
        """Rows that count none may be there or not."""
        with database.engine.connect() as connection:
            found = {table.name: sorted(map(str, connection.execute(sa.select(table)))) for table in derived}
            states = sorted(map(tuple, connection.execute(sa.select(Assignment.id, Assignment.state))))
        none = {"work": ", 0, 0, 0)", "concord": ", 0)"}
        return {
            name: [row for row in rows if not row.endswith(none.get(name, "none"))] for name, rows in found.items()
        }, states

    before = stored()
    assert {state for _, state in before[1]} == {"open", "done"}
    with database.write() as rows:
        rows.execute(sa.update(Assignment).values(state=sa.case((Assignment.state == "open", "done"), else_="open")))
    with database.read() as rows:
        num = rows.scalar(sa.select(sa.func.count()).select_from(Event))
    assert verdicts.rebuild(database) == num
    assert stored() == before


def test_the_number_of_verdicts_is_kept_by_each_and_equals_counting_them(database, busy):
    """What the budget asks at every item: one row, equal to the sums of votes and skips over all items, after changes, withdrawals, a rebuild."""
    other = projects.create_project(database, "nobody voted here", votes_per_item=1, calibration_items=0)
    given = sa.func.sum(Progress.num_votes + Progress.num_skips)

    def found():
        with database.read() as rows:
            assert totals.num_verdicts(rows, other.id) == 0
            assert totals.num_verdicts(rows, busy.id) == rows.scalar(sa.select(given))
            return totals.num_verdicts(rows, busy.id)

    num = found()
    assert num == len(all_votes(database)[0]) > 20
    with database.write() as rows:
        rows.execute(sa.update(tables.Tally).values(num_verdicts=-7))
    verdicts.rebuild(database)
    assert found() == num


def test_agreement_from_totals_is_that_of_the_votes(database, busy):
    votes, _ = all_votes(database)
    decided = [row for row in votes if row[2] != "skip"]
    with database.read() as rows:
        table = totals.labels_of_items(rows, busy.id)
    slow = agreement_report(votes_from_rows(decided, label_names=table.label_names), seed=0, num_resamples=50)
    fast = report_of_counts(table.counts, table.times, seed=0, num_resamples=50)
    assert fast == {name: interval for name, interval in slow.items() if name in fast} and len(fast) == 4
    assert table.num_votes == len(decided) and table.num_skips == len(votes) - len(decided)
    with database.read() as rows:
        assert totals.labels_of_items(rows, busy.id, uses=["calibration"]).num_votes == 0


def test_the_overview_reads_the_same_from_totals_as_from_all_votes(database, busy):
    with database.read() as rows:
        found = rows.execute(
            sa.select(Verdict.item_id, Person.name, Verdict.verdict, Assignment.shown)
            .join(Person, Person.id == Verdict.person_id).join(Assignment, Assignment.id == Verdict.assignment_id)
            .where(Verdict.verdict != "skip")
        ).all()  # fmt: skip
    names = ["a", "b", *sorted({row.verdict for row in found} - {"a", "b"})]
    votes = votes_from_rows(
        [tuple(row)[:3] for row in found], label_names=names, swapped=[is_swapped(row.shown) for row in found]
    )
    reading = read_agreement(votes, seed=0, num_resamples=quality.NUM_RESAMPLES)
    raters = rater_table(read_raters(votes, orders=None, outcomes={}))
    shown = quality.quality_of(database, busy.id).value
    assert shown.raters == quality.Shown.of(raters)
    assert shown.gates == tuple(map(quality.Judged.of, reading.verdicts())) and shown.notes == reading.notes()
