"""Hidden anchors: one in every batch and sitting, repeats with flipped sides, hidden from the rater, known to exports and the log; drift alarms."""

import dataclasses
import json
import re

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from web_example import pairs, take, vote

from fairlead.core.io import read_rows
from fairlead.feedback.anchors import AnchorRule
from fairlead.stats.drift import bernoulli_cusum, bernoulli_run_length
from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.schema import Assignment, Completion, Event, Item, Progress, Verdict
from fairlead.store.annotation.steering import Alarm, Anchor, Check, Rater, Round
from fairlead.web import anchors, drift, exporting, importing, projects, queue, rounds, steering, verdicts
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped
from fairlead.web.looking import look
from fairlead.web.people import accept_invite, actor_of, make_invite
from fairlead.web.policy import Actor

SQLITE = pytest.mark.parametrize("db", ["sqlite"], indirect=True)


def with_answers(made):
    """The reply that says good is the known answer."""
    return [
        dataclasses.replace(pair, answer="a" if pair.completions[0].text.startswith("good") else "b") for pair in made
    ]


def with_gold(database, *, num=150, num_gold=40, votes=1, **changes):
    made = projects.create_project(database, "anchored", votes_per_item=votes, calibration_items=0)
    importing.add_items(database, made.id, pairs(num))
    assert anchors.add_gold(database, made.id, with_answers(pairs(num_gold, prefix="gold")), by=None) == (num_gold, 0)
    if changes:
        steering.change_settings(database, made.id, by=None, votes_per_item=votes, **changes)
    return made


def rate(database, project, actor, num, *, is_right=lambda _: True):
    """Vote for the reply that says good, or against it; return the assignments."""
    done = []
    for i in range(num):
        found = queue.next_assignment(database, actor, project.id)
        if isinstance(found, queue.Nothing):
            break
        with database.read() as rows:
            item = rows.get(Item, found.item_id)
            a = rows.get(Completion, (project.id, item.completions[0])).record["text"]
        is_a = a.startswith("good") == is_right(i)
        verdicts.submit(database, actor, found.id, vote("left" if is_a != is_swapped(found.shown) else "right"))
        done.append(found)
    return done


def uses(database, done):
    with database.read() as rows:
        return [rows.get(Progress, assignment.item_id).use for assignment in done]


@settings(max_examples=5, deadline=None)
@given(share=st.sampled_from([0.05, 0.075, 0.1]), name=st.sampled_from(["ann", "bob", "cem"]))
def test_every_batch_of_a_sitting_holds_an_anchor(tmp_path_factory, share, name):
    """20 items a batch, from the beginning of the sitting; and no item comes twice."""
    with open_database(tmp_path_factory.mktemp("anchors") / "votes.db", is_durable=False) as database:
        with database.write() as rows:
            from fairlead.store.annotation.schema import Person

            rows.add(
                Person(id=name, name=name, pseudonym=name, password_hash="", role="rater", state="active", created_at=0)
            )
        made = with_gold(database, num=80, num_gold=12, anchor_share=share)
        actor = Actor(person_id=name, name=name, role="rater")
        done = rate(database, made, actor, 60)
        found = uses(database, done)
    assert len({assignment.item_id for assignment in done}) == 60
    rule = AnchorRule()
    batches = [found[start : start + rule.batch] for start in range(0, 60, rule.batch)]
    assert all("anchor" in batch for batch in batches) and "anchor" in found[: rule.first_within]
    assert found.count("anchor") <= 9


def test_a_break_begins_a_sitting_with_an_anchor_of_its_own(database, join, monkeypatch):
    made = with_gold(database)
    ann = join("ann")
    rate(database, made, ann, 25)
    later = queue.now_ms() + steering.SITTING_MS + 1000
    monkeypatch.setattr(queue, "now_ms", lambda: later)
    done = rate(database, made, ann, AnchorRule().first_within)
    assert "anchor" in uses(database, done)
    with database.read() as rows:
        assert rows.get(Rater, (made.id, ann.person_id)).sitting == 2  # the first item began sitting 1


def test_without_gold_own_pairs_come_again_with_sides_exchanged(database, join):
    made = projects.create_project(database, "plain", votes_per_item=1, calibration_items=0)
    importing.add_items(database, made.id, pairs(180))
    ann = join("ann")
    done = rate(database, made, ann, 180)
    by_item = {assignment.item_id: assignment for assignment in done}
    with database.read() as rows:
        checks = list(rows.scalars(sa.select(Check).order_by(Check.position)))
        roots = {check.item_id: rows.get(Anchor, check.item_id).root_id for check in checks}
        assert rows.get(Rater, (made.id, ann.person_id)).num_missed > 0  # before a hundred items there was none
    assert len(checks) >= 3
    for check in checks:
        first, again = by_item[roots[check.item_id]], by_item[check.item_id]
        assert (
            is_swapped(again.shown) != is_swapped(first.shown)
            and again.position - first.position > AnchorRule().gap
            and check.is_right
        )
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == len(done) == 180


def test_a_skip_or_an_undo_of_an_anchor_says_nothing_and_a_change_counts(database, join):
    made = with_gold(database)
    ann = join("ann")
    found = rate(database, made, ann, 5)
    anchor = found[uses(database, found).index("anchor")]

    def right():
        with database.read() as rows:
            return rows.get(Check, anchor.id).is_right

    with database.read() as rows:
        stored = rows.get(Verdict, anchor.id)
        wrong = "left" if (stored.verdict == "b") != is_swapped(anchor.shown) else "right"
    assert right() is True
    verdicts.submit(database, ann, anchor.id, vote(wrong))
    assert right() is False
    verdicts.submit(database, ann, anchor.id, vote("skip"))
    assert right() is None


def test_anchors_are_no_votes_on_pairs(database, join, tmp_path):
    made = with_gold(database, num=30)
    rate(database, made, join("ann"), 40)
    exporting.export_project(database, made, tmp_path)
    rows = [row.values for row in read_rows(tmp_path / "anchors.jsonl")]
    assert rows and all(row["correct"] and row["expected"] == row["label"] for row in rows)
    assert len(list(read_rows(tmp_path / "comparisons.jsonl"))) == 30
    assert json.loads((tmp_path / "manifest.json").read_text())["votes"] == 30


def test_gold_of_known_pairs_is_served_in_a_copy_and_a_second_import_changes_nothing(database, join):
    made = projects.create_project(database, "both", votes_per_item=1, calibration_items=0)
    importing.add_items(database, made.id, pairs(20))
    known = with_answers(pairs(5))
    assert anchors.add_gold(database, made.id, known, by=None) == (5, 0)
    assert anchors.add_gold(database, made.id, known, by=None) == (0, 5)
    with database.read() as rows:
        copies = [rows.get(Item, anchor.item_id) for anchor in rows.scalars(sa.select(Anchor))]
        assert {item.use for item in copies} == {"anchor"} and len({item.prompt_id for item in copies}) == 5
        assert rows.scalar(sa.select(sa.func.count()).select_from(Progress).where(Progress.use == "production")) == 20
    with pytest.raises(Refused, match="does not say which"):
        anchors.add_gold(database, made.id, pairs(1, prefix="plain"), by=None)


def test_known_answers_alone_are_nothing_to_rate_yet(database, browser):
    """Whoever comes between the import of anchors and that of pairs is not thanked for having rated everything."""
    made = with_gold(database, num=0, num_gold=3)
    ann = browser("ann")
    page = ann.get(f"/p/{made.id}/rate").text
    assert 'data-nothing="empty"' in page and "There is nothing to rate yet" in page
    importing.add_items(database, made.id, pairs(1))
    assert "data-nothing" not in ann.get(f"/p/{made.id}/rate").text


def test_a_lead_makes_and_retires_an_anchor(database, project, join):
    lea = join("lea", "lead")
    with database.read() as rows:
        item_id = rows.scalars(sa.select(Item.id)).first()
    with pytest.raises(Refused, match="no answer"):
        anchors.make_anchor(database, item_id, answer="skip", by=lea.person_id)
    with pytest.raises(Refused, match="not there"):
        anchors.make_anchor(database, "nothing", answer="a", by=lea.person_id)
    made = anchors.make_anchor(database, item_id, answer="a", by=lea.person_id)
    with pytest.raises(Refused, match="already"):
        anchors.make_anchor(database, item_id, answer="b", by=lea.person_id)
    anchors.retire_anchor(database, made, by=lea.person_id)
    assert anchors.make_anchor(database, item_id, answer="b", by=lea.person_id) != made
    with database.read() as rows:
        kinds = list(rows.scalars(sa.select(Event.kind).where(Event.kind.startswith("anchor")).order_by(Event.number)))
    assert kinds == ["anchor.made", "anchor.retired", "anchor.made"]


def serve_copy(rows, project, rater, root, *, answer):
    """Hand out a copy of an item as an anchor, a on the left."""
    item = anchors._copy(rows, root)
    rows.add(Anchor(item_id=item.id, project_id=project.id, root_id=root.id, kind="repeat", answer="", is_retired=False))  # fmt: skip
    rows.flush()
    made = Assignment(id=f"{rater.person_id[:20]}-{rater.num_given}", project_id=project.id, item_id=item.id, person_id=rater.person_id,
                      shown="01", position=rater.num_given, state="open", leased_until=2**53)  # fmt: skip
    rows.add(made)
    rater.num_given += 1
    anchors.serve(rows, made, answer)
    rows.flush()
    return made


def feed(database, project, actor, answers):
    """Store answers to anchors without the votes between them: thousands of items need not be rated to see an alarm."""
    with database.write() as rows:
        rater = steering.rater_of(rows, project.id, actor.person_id)
        root = rows.scalars(sa.select(Item).where(Item.use == "anchor").order_by(Item.id)).first()
        for is_right in answers:
            made = serve_copy(rows, project, rater, root, answer="a")
            made.state = "done"
            anchors.check(rows, made, rows.get(Progress, made.item_id), "a" if is_right else "b")
            rows.flush()
            drift.watch(rows, made)


def test_the_stated_run_lengths_are_those_of_the_tables():
    """FEEDBACK 5.5: .80 to .65 at 4.0: 1,284 in control, 55 to detect .65, 23 to detect coin-flipping."""
    assert drift.run_lengths() == pytest.approx((1284, 55, 23), rel=0.02)
    assert drift.run_lengths()[0] == bernoulli_run_length(0.8, p0=0.8, p1=0.65, h=4.0)


@SQLITE
def test_a_rater_who_turns_to_coin_flipping_is_caught_within_the_stated_length(database, join):
    """On average after 23 anchors; four times that is beyond all of eight raters, and the change is found close to where it was."""
    made = with_gold(database, num=2, num_gold=1)
    rng = np.random.default_rng(7)
    delays, places = [], []
    for name in ("ann", "bob", "cem", "dan", "eve", "fay", "gus", "hal"):
        actor = join(name)
        feed(database, made, actor, [*[True] * 40, *(rng.random(92) < 0.5)])
        with database.read() as rows:
            alarm = rows.scalar(sa.select(Alarm).where(Alarm.person_id == actor.person_id).order_by(Alarm.event_number))
        assert alarm is not None and alarm.position >= 40
        delays.append(alarm.position - 39)
        places.append(alarm.since)
    assert np.mean(delays) < 2 * drift.run_lengths()[2] and max(delays) <= 92
    assert all(40 <= place <= 39 + 92 for place in places)


def test_a_steady_rater_sets_off_no_alarm(database, join):
    made = with_gold(database, num=2, num_gold=1)
    ann = join("ann")
    feed(database, made, ann, (np.random.default_rng(3).random(150) < 0.85).tolist())
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Alarm)) == 0


def alarmed(database, join):
    made = with_gold(database, num=60, num_gold=30)
    ann = join("ann")
    rate(database, made, ann, 20)
    with database.write() as rows:  # eight anchors on screen, which are answered wrongly one by one
        rater = steering.rater_of(rows, made.id, ann.person_id)
        root = rows.scalars(sa.select(Item).where(Item.use == "anchor").order_by(Item.id)).first()
        given = [serve_copy(rows, made, rater, root, answer="a").id for _ in range(8)]
    for assignment_id in given:
        verdicts.submit(database, ann, assignment_id, vote("right"))
    with database.read() as rows:
        return made, ann, rows.scalars(sa.select(Alarm)).one()


def test_an_alarm_is_answered_by_a_new_round_and_by_votes_of_others_and_nothing_is_dropped(database, join):
    made, ann, alarm = alarmed(database, join)
    lea = join("lea", "lead")
    with database.read() as rows:
        before = rows.scalar(sa.select(sa.func.count()).select_from(Verdict))
    number = drift.ask_again(database, made.id, alarm.event_number, by=lea.person_id)
    with pytest.raises(Refused, match="asked already"):
        drift.ask_again(database, made.id, alarm.event_number, by=lea.person_id)
    num = drift.rate_again(database, made.id, alarm.event_number, by=lea.person_id)
    with pytest.raises(Refused, match="closed already"):
        drift.rate_again(database, made.id, alarm.event_number, by=lea.person_id)
    with database.read() as rows:
        assert rows.get(Round, (made.id, number)).person_id == ann.person_id
        asked = set(rows.scalars(sa.select(Progress.item_id).where(Progress.num_extra == 1)))
        mine = rows.execute(
            sa.select(Assignment.item_id).join(Progress, Progress.item_id == Assignment.item_id)
            .where(Assignment.person_id == ann.person_id, Assignment.position >= alarm.since, Progress.use == "production")
        ).all()  # fmt: skip
        assert asked == {row[0] for row in mine} and len(asked) == num > 0
        assert rows.scalar(sa.select(sa.func.count()).select_from(Verdict)) == before
        assert rows.get(Alarm, alarm.event_number).is_closed
    assert take(database, ann, made).item_id not in asked
    bob = join("bob")
    given = {assignment.item_id for assignment in rate(database, made, bob, 60)}
    assert asked <= given
    assert_replay(database)


def assert_replay(database):
    """What events derive is what the tables hold."""
    names = ("verdicts", "progress", "raters", "checks", "alarms", "rounds", "round_items", "anchors")
    tables = {name: Item.metadata.tables[name] for name in names}

    def stored():
        with database.engine.connect() as connection:
            return {name: sorted(map(str, connection.execute(sa.select(table)))) for name, table in tables.items()}

    before = stored()
    verdicts.rebuild(database)
    assert stored() == before


def test_an_alarm_is_closed_with_a_reason_and_the_sum_begins_again(database, join):
    made, ann, alarm = alarmed(database, join)
    with pytest.raises(Refused, match="needs a reason"):
        drift.close(database, made.id, alarm.event_number, by=ann.person_id, reason=" ")
    drift.close(database, made.id, alarm.event_number, by=ann.person_id, reason="the anchors were wrong")
    with database.read() as rows:
        (row,) = drift.watched(rows, made.id)
    assert (row.evidence, row.alarm) == (0.0, None)


def test_watching_all_raters_takes_as_many_statements_as_watching_one(database, join):
    """And says of each what a question about the rater alone says."""
    made, _, _ = alarmed(database, join)

    def look():
        asked = []
        listen = lambda *args: asked.append(args[2])  # noqa: E731
        sa.event.listen(database.engine, "before_cursor_execute", listen)
        with database.read() as rows:
            found = drift.watched(rows, made.id)
        sa.event.remove(database.engine, "before_cursor_execute", listen)
        return found, len(asked)

    first, num = look()
    for name in ("bob", "cem", "dan"):
        rate(database, made, join(name), 12, is_right=lambda i: i % 3 > 0)
    found, later = look()
    assert len(found) == len(first) + 3 and later == num
    with database.read() as rows:
        for row in found:
            answers = [is_right for _, is_right in anchors.checks_since(rows, made.id, row.person_id, position=-1)]
            path = bernoulli_cusum(answers, p0=drift.P0, p1=drift.P1, h=drift.LEVEL).path
            assert (row.num_anchors, row.num_right) == (len(answers), sum(answers)) and row.evidence == (
                path[-1] if len(path) else 0
            )
    assert sum(row.num_anchors > 0 for row in found) > 1


def test_agreed_calibration_pairs_become_anchors(database, join):
    made = projects.create_project(database, "calibrated", votes_per_item=1, calibration_items=15)
    importing.add_items(database, made.id, pairs(120))
    for name in ("ann", "bob", "cem"):
        rate(database, made, join(name), 15, is_right=lambda i: i % 5 > 0)
    assert anchors.anchors_from_calibration(database, made.id, by=None) == 15
    assert anchors.anchors_from_calibration(database, made.id, by=None) == 0
    with database.read() as rows:
        roots = set(rows.scalars(sa.select(Anchor.root_id)))
        assert {rows.get(Item, root).use for root in roots} == {"calibration"}


def test_looks_and_rounds_leave_a_record_that_replays(database, join):
    made = projects.create_project(database, "calibrated", votes_per_item=2, calibration_items=15)
    importing.add_items(database, made.id, pairs(80))
    for name in ("ann", "bob"):
        rate(database, made, join(name), 18)
    look(database, made.id)
    rounds.open_round(database, made.id, reason="version 2", by=None)
    assert_replay(database)


def test_nothing_of_an_anchor_reaches_the_rater(database, join):
    from starlette.testclient import TestClient

    from fairlead.web.app import make_app
    from fairlead.web.place import Place

    place = Place.of(host="127.0.0.1", port=8643, url=None)
    made = with_gold(database)
    secret = accept_invite(database, make_invite(database, role="rater"), name="zoe", password="a long password")
    client = TestClient(make_app(database, place=place, secret=b"s" * 32, rate_per_s=1e6, burst=10**6), base_url=place.url)  # fmt: skip
    client.cookies.set("fairlead", secret)
    zoe = actor_of(database, secret)
    shapes = {}
    for _ in range(5):
        page = client.get(f"/p/{made.id}/next").text
        assignment = re.search(r'data-assignment="([^"]+)"', page)[1]
        with database.read() as rows:
            is_anchor = rows.get(Check, assignment) is not None
        page = re.sub("</?mark>", "", page)
        plain = re.sub(r'(\b(good|bad) reply to \d+|(question|gold) \d+|value="[0-9a-f]{32}(-[su])?"|data-(done|left|median)="[^"]*")',
                       "", page)  # fmt: skip
        shapes.setdefault(is_anchor, set()).add(plain.replace(assignment, ""))
        assert not re.search(r"anchor|gold\b(?! \d)|expected|repeat\b", re.sub(r"gold \d+", "", page))
        verdicts.submit(database, zoe, assignment, vote())
    assert shapes[True] == shapes[False], next(
        (x[max(0, i - 50) : i + 50], y[max(0, i - 50) : i + 50])
        for x in shapes[True]
        for y in shapes[False]
        for i in range(min(len(x), len(y)))
        if x[i] != y[i]
    )
