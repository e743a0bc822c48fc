"""Readings of the dashboard against numbers worked out by hand and plain loops; the pages show them; what is kept is kept a minute."""

import math
from collections import Counter

import numpy as np
import pytest
from web_example import take, vote

from fairlead.stats.intervals import Interval
from fairlead.web import verdicts
from fairlead.web.dashboard import flow, gate, gauges, keeping, raters, sheet
from fairlead.web.dashboard.agreement import pair_counts, read_agreement, rolling_chart
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
    assert found.lengths.min() > 0 and np.isfinite(found.active_s).all() and found.num_left_out == 0
    with database.read() as rows:
        from fairlead.store.annotation.schema import Verdict

        stored = {(v.item_id, v.person_id): v.verdict for v in rows.query(Verdict)}
    for i in range(24):
        assert sheet.LABELS[found.labels[i]] == stored[found.item_ids[found.items[i]], found.rater_ids[found.raters[i]]]


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


def test_flow_counts_days_and_says_how_long_it_takes(database, project, three):
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
    assert first.value == again.value == 1 and done.wait(5)


def test_the_first_reading_of_a_large_project_is_made_beside_the_page(browser, database, project, three, monkeypatch):
    import time

    monkeypatch.setattr(keeping, "LARGE", 3)
    lea = browser("lea", "lead")
    answer = lea.get(f"/p/{project.id}/agreement")
    assert answer.status_code == 503 and "made for the first time" in answer.text
    end = time.monotonic() + 20
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


def test_the_pages_show_the_figures(browser, project, three):
    lea = browser("lea", "lead")
    page = lea.get(f"/p/{project.id}/agreement").text
    assert "Which raters agree with each other?" in page and "InstructGPT" in page and "Computed " in page
    assert (
        "<svg" in lea.get(f"/p/{project.id}/raters").text
        and "votes a day over the last 1 day" in lea.get(f"/p/{project.id}").text
    )
    assert "Whom does the test pass?" in lea.get(f"/p/{project.id}/calibration").text
    assert lea.client.get("/static/charts/chart.css").status_code == 200


def test_pages_without_votes_teach(browser, project):
    lea = browser("lea", "lead")
    for path in ("", "/agreement", "/raters", "/calibration"):
        answer = lea.get(f"/p/{project.id}{path}")
        assert answer.status_code == 200 and 'class="empty"' in answer.text
