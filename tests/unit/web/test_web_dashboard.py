"""Readings of the dashboard against numbers worked out by hand and plain loops; the pages show them; what is kept is kept a minute."""

import math
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.stats.intervals import Interval
from fairlead.store.annotation.schema import Assignment, Item
from fairlead.web import events, importing, projects, verdicts
from fairlead.web.dashboard import agreement, criteria, flow, gate, gauges, keeping, raters, sheet
from fairlead.web.dashboard.agreement import matrix_of, pair_counts, read_agreement, rolling_chart
from fairlead.web.frames import is_swapped


@pytest.fixture
def three(database, project, join):
    """ann and bob on all twelve pairs: equal on nine; ann votes left always in her frame's truth, bob differs on three."""
    ann, bob = join("ann"), join("bob")
    for number in range(12):
        for who in (ann, bob):
            assignment = take(database, who, project)
            is_a = number % 2 == 0 if who is ann or number >= 3 else number % 2 == 1
            choice = "left" if is_a != is_swapped(assignment.shown) else "right"
            verdicts.submit(database, who, assignment.id, vote(choice, active_ms=1000 * (number + 1)))
    return ann, bob


def loop_pairs(votes):
    """Naive: for each two raters, over items."""
    by_item = {}
    for item, rater, label in zip(votes.items.tolist(), votes.raters.tolist(), votes.labels.tolist(), strict=True):
        by_item.setdefault(item, {})[rater] = label
    shared, equal = Counter(), Counter()
    for labels in by_item.values():
        for first in labels:
            for second in labels:
                if first != second:
                    shared[first, second] += 1
                    equal[first, second] += labels[first] == labels[second]
    return shared, equal


def test_the_sheet_holds_every_verdict_in_the_canonical_frame(database, project, three):
    found = sheet.sheet_of(database, project.id).value
    assert len(found.items) == 24 and found.rater_names == ("ann", "bob") and not found.is_calibration.any()
    assert found.lengths.min() > 0 and np.isfinite(found.active_s).all()
    with database.read() as rows:
        from fairlead.store.annotation.schema import Verdict

        stored = {(v.item_id, v.person_id): v.verdict for v in rows.query(Verdict)}
    for i in range(24):
        assert sheet.LABELS[found.labels[i]] == stored[found.item_ids[found.items[i]], found.rater_ids[found.raters[i]]]


def read_anew(database, project):
    with database.read() as rows:
        return sheet.as_sheet(sheet.read(rows, project.id, None), sheet.names_of(rows))


def test_a_later_sheet_reads_what_changed_and_equals_a_new_one(database, project, three, monkeypatch):
    ann, bob = three
    monkeypatch.setattr(keeping, "MAX_AGE_S", -1.0)
    sheet.sheet_of(database, project.id)
    with database.read() as rows:
        own = rows.scalars(
            sa.select(Assignment).where(Assignment.person_id == ann.person_id).order_by(Assignment.position)
        ).all()
    verdicts.submit(database, ann, own[3].id, vote("tie", active_ms=5000))
    verdicts.withdraw_last(database, bob, project.id, key="a-key-of-bob")
    found, new = sheet.sheet_of(database, project.id).value, read_anew(database, project)
    assert len(found.items) == 23 and (found.labels == sheet.LABELS.index("tie")).sum() == 1

    def as_set(one):
        columns = (one.labels, one.strengths, one.swapped, one.positions, one.at_ms, one.active_s, one.versions)
        return {
            (one.item_ids[one.items[i]], one.rater_names[one.raters[i]], *(column[i] for column in columns))
            for i in range(len(one.items))
        }

    assert as_set(found) == as_set(new) and set(found.item_ids) == set(new.item_ids)


def test_agreement_by_hand(database, project, three):
    """Items are handed out by votes first, so both get the same order: 9 of 12 pairs equal is 75 %."""
    reading = read_agreement(sheet.sheet_of(database, project.id).value)
    values = {row.name: row.value for row in reading.statistics}
    same = sum(len(set(labels)) == 1 for labels in _labels(sheet.sheet_of(database, project.id).value).values())
    assert values["Percent agreement"].value == pytest.approx(same / 12) and values["Percent agreement"].n == 12
    assert values["Percent agreement"].low < same / 12 < values["Percent agreement"].high
    cell = reading.matrix[0][1]
    assert cell.agreement.value == pytest.approx(same / 12) and reading.matrix[0][0] is None
    assert "gate of 65 %" in reading.conflict and reading.light in ("red", "amber", "green")
    assert rolling_chart(reading).series[0].points[0][0] == 12


def _labels(found):
    labels = {}
    for item, label in zip(found.items.tolist(), found.labels.tolist(), strict=True):
        labels.setdefault(item, []).append(label)
    return labels


def test_pairs_of_raters_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    rows = [
        (f"i{i}", f"r{r}", str(rng.integers(2)))
        for i in range(40)
        for r in rng.choice(6, rng.integers(1, 5), replace=False)
    ]
    from fairlead.stats.votes import votes_from_rows

    votes = votes_from_rows([rows[i] for i in rng.permutation(len(rows))])
    shared, equal = pair_counts(votes)
    by_loop = loop_pairs(votes)
    for i in range(6):
        for j in range(6):
            assert (shared[i, j], equal[i, j]) == (by_loop[0][i, j], by_loop[1][i, j])


def test_agreement_by_criterion_by_hand():
    """Two items of two replies: ann 5 1 / 4 2, bob 5 1 / 4 3. Three of four ratings are equal; ordinal alpha is high, for 2 and 3 are near."""
    from fairlead.stats.agreement import krippendorff_alpha
    from fairlead.stats.votes import votes_from_rows

    given = [
        ("i", "ann", {"help": [5, 1]}),
        ("j", "ann", {"help": [4, 2]}),
        ("i", "bob", {"help": [5, 1]}),
        ("j", "bob", {"help": [4, 3]}),
    ]
    (row,) = criteria.read_criteria(given)
    assert (row.name, row.num_ratings, row.percent.value, row.mean) == ("help", 8, 0.75, 25 / 8)
    plain = [
        (f"{item}/{place}", rater, str(value))
        for item, rater, said in given
        for place, value in enumerate(said["help"])
    ]
    assert (
        row.alpha.value == pytest.approx(krippendorff_alpha(votes_from_rows(plain), level="ordinal"))
        and row.alpha.value > 0.85
    )


def test_criteria_are_on_the_pages(browser, database, join):
    criterion = projects.Criterion(name="helpful", question="Does it help?", points=5, low="not at all", high="fully")
    made = projects.create_project(
        database, "rated", votes_per_item=2, calibration_items=0, rules=projects.Rules(criteria=(criterion,))
    )
    importing.add_items(database, made.id, pairs(3))
    for name, ratings in (("ann", (5, 1)), ("bob", (4, 2))):
        who = join(name)
        for _ in range(3):
            verdicts.submit(database, who, take(database, who, made).id, vote("left", criteria={"helpful": ratings}))
    lea = browser("lea", "lead")
    assert "Do they agree on the criteria?" in lea.get(f"/p/{made.id}/agreement").text
    with database.read() as rows:
        item = rows.scalar(sa.select(Item.id).where(Item.project_id == made.id).limit(1))
    assert "helpful" in lea.get(f"/p/{made.id}/items/{item}").text
    assert (
        "**helpful**, 1 to 5 (not at all to fully): Does it help?"
        in lea.client.get(f"/p/{made.id}/guideline/document.md").text
    )


def test_too_few_shared_pairs_are_not_shown_as_a_figure(database, project, join):
    for name in ("ann", "bob"):
        who = join(name)
        for _ in range(3):
            verdicts.submit(database, who, take(database, who, project).id, vote())
    cell = read_agreement(sheet.sheet_of(database, project.id).value).matrix[0][1]
    assert cell.heat == -1 and math.isnan(cell.agreement.value) and cell.agreement.n == 3


def test_left_share_and_speed_by_hand(database, project, join):
    ann = join("ann")
    for number in range(12):
        verdicts.submit(
            database,
            ann,
            take(database, ann, project).id,
            vote("left" if number < 9 else "right", active_ms=2000 + number),
        )
    card = raters.read_raters(sheet.sheet_of(database, project.id).value).cards[0]
    by_label = {gauge.label: gauge for gauge in card.gauges}
    assert by_label["Left share"].words.startswith("75 %") and by_label["Time for a pair"].words.startswith("2 s")
    assert by_label["Agrees with the others"].value is None
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) + 1 / (24 * math.log(2))
    assert by_label["Variety of verdicts"].words.startswith(f"{entropy:.1f} bits")


def test_a_gauge_is_out_only_when_its_whole_interval_is():
    measure = gauges.Measure(label="x", unit=" %", scale=100, low=0, high=1, healthy_low=0.4, healthy_high=0.6)
    assert gauges.draw(measure, Interval(0.8, 0.7, 0.9, 50)).is_out
    inside = gauges.draw(measure, Interval(0.65, 0.55, 0.75, 50))
    assert not inside.is_out and inside.words == "65 % [55, 75]" and inside.low < inside.value < inside.high


@pytest.fixture
def one_day(monkeypatch):
    """The clock of events stands still: no day ends between two votes."""
    now = time.time_ns()
    monkeypatch.setattr(events, "time", SimpleNamespace(time_ns=lambda: now))


def test_flow_counts_days_and_says_how_long_it_takes(database, project, one_day, three):
    with database.read() as rows:
        found = flow.flow_of(rows, project.id)
    assert found.pace.value == 24 and found.days_left(50) == 3 and found.chart.series[0].points == ((1.0, 24.0),)


def test_a_slow_reading_is_shown_once_more_and_made_again_beside_the_page(database, monkeypatch):
    import threading

    monkeypatch.setattr(keeping, "PATIENCE_S", -1.0)
    first = keeping.keep(database, "p", "slow", lambda: 1)
    monkeypatch.setattr(keeping, "MAX_AGE_S", -1.0)
    done = threading.Event()
    again = keeping.keep(database, "p", "slow", lambda: done.set() or 2)
    assert first.value == again.value == 1 and done.wait(60)


def test_the_first_reading_of_a_large_project_is_made_beside_the_page(browser, database, project, three, monkeypatch):
    monkeypatch.setattr(keeping, "LARGE", 3)
    lea = browser("lea", "lead")
    answer = lea.get(f"/p/{project.id}/agreement")
    assert answer.status_code == 503 and "made for the first time" in answer.text
    assert (
        f'href="/p/{project.id}/labels"' in answer.text
        and "Percent agreement" in answer.text
        and "95 % interval" in answer.text
    )
    end = time.monotonic() + 60
    while (answer := lea.get(f"/p/{project.id}/agreement")).status_code == 503 and time.monotonic() < end:
        time.sleep(0.05)
    assert answer.status_code == 200 and "Which raters agree with each other?" in answer.text


def test_the_curve_of_the_test_is_that_of_the_statistics():
    from fairlead.stats.sequential import operating_curve
    from fairlead.web.calibration import TEST

    chances, lengths = gate.curve_charts(TEST)
    passes = dict(chances.series[0].points)
    assert passes[0.75] == pytest.approx(float(operating_curve(TEST, [0.75]).passes[0])) and passes[0.5] < 0.05
    assert max(y for _, y in lengths.series[0].points) <= TEST.cap


def test_readings_are_kept_a_minute_and_say_their_age(database, monkeypatch):
    made = []
    for _ in range(3):
        keeping.keep(database, "p", "x", lambda: made.append(1))
    assert len(made) == 1
    monkeypatch.setattr(keeping, "MAX_AGE_S", -1.0)
    assert keeping.keep(database, "p", "x", lambda: made.append(1)).age_s() == 0 and len(made) == 2


def test_along_the_work_there_are_no_more_windows_than_a_chart_shows():
    """5,100 pairs in windows of a hundred begin every 25 pairs, 201 times; every 26, the last at the newest pair, 193 times."""
    from fairlead.stats.votes import votes_from_rows

    votes = votes_from_rows([(f"item {i}", who, "ab"[i % 3 % 2]) for i in range(5100) for who in ("ann", "bob")])
    points = agreement.rolling_of(votes, 5100)
    assert len(points) == 193 <= agreement.MAX_POINTS and points[-1].last_item == 5099
    assert points[1].last_item - points[0].last_item == 26


def test_the_pages_show_the_figures(browser, project, one_day, three):
    lea = browser("lea", "lead")
    page = lea.get(f"/p/{project.id}/agreement").text
    assert "Which raters agree with each other?" in page and "InstructGPT" in page and "Computed " in page
    assert (
        "<svg" in lea.get(f"/p/{project.id}/raters").text
        and "a day over the last day" in lea.get(f"/p/{project.id}").text
    )
    assert "Whom does the test pass?" in lea.get(f"/p/{project.id}/calibration").text
    assert lea.client.get("/static/charts/chart.css").status_code == 200


def test_pages_without_votes_teach(browser, project):
    lea = browser("lea", "lead")
    for path in ("", "/agreement", "/raters", "/calibration"):
        answer = lea.get(f"/p/{project.id}{path}")
        assert answer.status_code == 200 and 'class="empty"' in answer.text


def test_answers_on_hidden_anchors_are_drawn_under_the_level_of_the_alarm(database, project, join):
    """Evidence goes up by log(.35 / .20) for a wrong answer; ten in a row are beyond the level of 4."""
    ann = join("ann")
    for _ in range(4):
        verdicts.submit(database, ann, take(database, ann, project).id, vote("left"))
    found = sheet.sheet_of(database, project.id).value
    for answers, is_out in (([True] * 6, False), ([True] * 6 + [False] * 10, True)):
        (spark,) = raters.read_raters(found, anchors={ann.person_id: answers}).cards[0].sparks
        assert spark.is_out is is_out and spark.words == f"{sum(answers)} of {len(answers)} right"
    assert raters.read_raters(found).cards[0].sparks == ()


def test_of_many_raters_the_matrix_shows_those_who_agree_least(monkeypatch):
    """Four raters on twenty items: three say a, dan says b; bob and cas differ on five more."""
    from fairlead.stats.votes import votes_from_rows

    rows = [(f"item {i}", who, "b" if who == "dan" else "a") for i in range(20) for who in ("ann", "bob", "cas", "dan")]
    rows += [(f"more {i}", who, label) for i in range(5) for who, label in (("bob", "b"), ("cas", "a"))]
    votes = votes_from_rows(rows, label_names=("a", "b"))
    assert matrix_of(votes)[0] == ("ann", "bob", "cas", "dan")
    monkeypatch.setattr("fairlead.web.dashboard.agreement.MAX_RATERS", 2)
    shown, cells = matrix_of(votes)
    # equal of shared: ann 40 of 60, bob and cas 40 of 65 each, dan 0 of 60; of the two in between the first is taken
    assert shown == ("bob", "dan") and cells[0][0] is None and (cells[0][1].agreement.value, cells[0][1].agreement.n) == (0.0, 20)  # fmt: skip
