"""Who is stopped, and by what: the project's round and its cap, the pilot, rounds that come again, the rolling kappa, scaling, the lead's page."""

import re
import zlib

import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.store.annotation.schema import Event, Progress, Project
from fairlead.store.annotation.steering import Look, Rater, Round, RoundItem
from fairlead.web import calibration, importing, looking, projects, queue, rounds, steering, verdicts
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped
from fairlead.web.steering import Steering, change_settings

NUM = 20


@pytest.fixture
def calibrated(database):
    made = projects.create_project(database, "calibrated", votes_per_item=2, calibration_items=NUM)
    importing.add_items(database, made.id, pairs(NUM + 140))
    return made


def side_of(assignment, *, is_contrary=False):
    """The side on which a stands, or b."""
    return "left" if is_swapped(assignment.shown) == is_contrary else "right"


def rate(database, project, actor, num, *, contrary=lambda _: False):
    """Vote for a, or for b where `contrary` says so; return how many were given."""
    for i in range(num):
        found = queue.next_assignment(database, actor, project.id)
        if isinstance(found, queue.Nothing):
            return i
        verdicts.submit(database, actor, found.id, vote(side_of(found, is_contrary=contrary(found))))
    return num


def settings(database, project, **changes):
    change_settings(database, project.id, by=None, votes_per_item=project.votes_per_item, **changes)


def kinds(database, prefix):
    with database.read() as rows:
        return list(rows.scalars(sa.select(Event.kind).where(Event.kind.startswith(prefix)).order_by(Event.number)))


def test_production_is_capped_until_the_projects_round_passes(database, calibrated, join):
    settings(database, calibrated, cap_before_round=3, anchor_share=0)
    ann, bob = join("ann"), join("bob")
    for actor in (ann, bob):
        rate(database, calibrated, actor, NUM)
    assert rate(database, calibrated, ann, 10) == 3
    assert queue.next_assignment(database, ann, calibrated.id) == queue.Nothing(reason="cap")
    looking.look(database, calibrated.id)
    assert kinds(database, "round.") == ["round.passed"]
    assert rate(database, calibrated, ann, 5) == 5
    looking.look(database, calibrated.id)
    assert kinds(database, "round.") == ["round.passed"]


def test_a_vague_guideline_does_not_pass_and_one_deviating_rater_does_not_hold_the_others_up(
    database, calibrated, join
):
    ann, bob, cem, dan = (join(name) for name in ("ann", "bob", "cem", "dan"))
    for actor in (ann, bob, cem):
        rate(database, calibrated, actor, NUM)
    rate(database, calibrated, dan, NUM, contrary=lambda _: True)
    assert looking.look(database, calibrated.id).round_kind == "raters_deviate"
    with database.read() as rows:
        assert rounds.has_passed(rows, calibrated.id)
    vague = projects.create_project(database, "vague", votes_per_item=2, calibration_items=NUM)
    importing.add_items(database, vague.id, pairs(NUM + 20))
    for number, actor in enumerate((ann, bob, cem, dan)):
        rate(
            database,
            vague,
            actor,
            NUM,
            contrary=lambda found, n=number: (zlib.crc32(found.item_id.encode()) >> n) % 2 == 0,
        )
    assert looking.look(database, vague.id).round_kind in ("vague_guideline", "camps")
    with database.read() as rows:
        assert not rounds.has_passed(rows, vague.id)


def test_a_round_comes_again_after_so_many_items_and_everybody_gets_the_same_new_pairs(database, calibrated, join):
    settings(database, calibrated, every_items=10, anchor_share=0)
    ann, bob = join("ann"), join("bob")
    for num in (NUM, 12):
        for actor in (ann, bob):
            rate(database, calibrated, actor, num)
    looking.look(database, calibrated.id)
    with database.read() as rows:
        second = rows.get(Round, (calibrated.id, 2))
        assert second.person_id is None and "at most 10" in second.reason
        items = set(rows.scalars(sa.select(RoundItem.item_id).where(RoundItem.number == 2)))
        assert len(items) == NUM and {rows.get(Rater, (calibrated.id, ann.person_id)).items_since} == {0}
    given = {actor.name: [take_and_vote(database, calibrated, actor) for _ in range(NUM)] for actor in (ann, bob)}
    assert set(given["ann"]) == set(given["bob"]) == items and given["ann"] == given["bob"]
    assert rate(database, calibrated, ann, 2) == 2
    with database.read() as rows:
        assert rows.get(Rater, (calibrated.id, ann.person_id)).passed_round == 2
    assert kinds(database, "calibration.") == ["calibration.passed"] * 3
    looking.look(database, calibrated.id)
    with database.read() as rows:
        assert rows.get(Round, (calibrated.id, 3)) is None


def take_and_vote(database, project, actor, *, is_contrary=False):
    assignment = take(database, actor, project)
    verdicts.submit(database, actor, assignment.id, vote(side_of(assignment, is_contrary=is_contrary)))
    return assignment.item_id


def test_who_fails_a_later_round_is_stopped_and_who_waits_for_others_is_not(database, calibrated, join):
    settings(database, calibrated, anchor_share=0)
    ann, bob, cem = (join(name) for name in ("ann", "bob", "cem"))
    for actor in (ann, bob, cem):
        rate(database, calibrated, actor, NUM)
    for actor in (ann, bob, cem):
        rate(database, calibrated, actor, 1)
    with pytest.raises(Refused, match="needs a reason"):
        rounds.open_round(database, calibrated.id, reason=" ", by=None)
    rounds.open_round(database, calibrated.id, reason="version 2 of the guideline", by=None)
    assert rate(database, calibrated, ann, NUM + 3) == NUM + 3  # nobody else has rated: the first round's pass holds
    rate(database, calibrated, bob, NUM)
    rate(database, calibrated, cem, NUM, contrary=lambda _: True)
    assert queue.next_assignment(database, cem, calibrated.id) == queue.Nothing(reason="calibration")
    with database.read() as rows:
        found = calibration.read_calibration(rows, calibrated.id)
    assert found.number == 2 and {s.name: s.state for s in found.standings}["cem"] == "failed"
    assert rate(database, calibrated, bob, 2) == 2


def test_a_round_is_not_drawn_from_too_few_pairs_and_that_is_told(database, join):
    made = projects.create_project(database, "small", votes_per_item=1, calibration_items=13)
    importing.add_items(database, made.id, pairs(13 + 12))
    settings(database, made, every_items=2)
    ann, bob = join("ann"), join("bob")
    for actor in (ann, bob):
        rate(database, made, actor, 13 + 3)
    (note,) = looking.look(database, made.id).notes
    assert "is due" in note and "Import more pairs" in note
    with pytest.raises(Refused, match="needs 13 pairs"):
        rounds.open_round(database, made.id, reason="x", by=None)


def test_only_the_pilot_begins_until_the_project_is_scaled(database, calibrated, join):
    settings(database, calibrated, pilot_raters=2)
    actors = [join(name) for name in ("ann", "bob", "cem")]
    for actor in actors:
        rate(database, calibrated, actor, NUM)
    assert [rate(database, calibrated, actor, 2) for actor in actors] == [2, 2, 0]
    assert queue.next_assignment(database, actors[2], calibrated.id) == queue.Nothing(reason="pilot")
    with pytest.raises(Refused, match=r"expected above 0\.6"):
        steering.scale(database, calibrated.id, by=None)
    steering.scale(database, calibrated.id, by=None, reason="the deadline is on Friday")
    assert rate(database, calibrated, actors[2], 2) == 2
    with database.read() as rows:
        event = rows.scalars(sa.select(Event).where(Event.kind == "project.scaled")).one()
        assert "overridden: the deadline" in event.content["because"]


def store_kappa(database, project, value):
    with database.write() as rows:
        rows.merge(Look(project_id=project.id, at=0, found={"kappa": {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 100},
                                                            "round_kind": "", "notes": []}))  # fmt: skip


def test_more_votes_an_item_ask_for_a_kappa_or_a_reason_and_items_lack_them(database, project, join):
    ann = join("ann")
    take_and_vote(database, project, ann)
    with pytest.raises(Refused, match="Kappa is not measured"):
        change_settings(database, project.id, by=None, votes_per_item=3)
    store_kappa(database, project, 0.59)
    with pytest.raises(Refused, match=r"Kappa 0\.59"):
        change_settings(database, project.id, by=None, votes_per_item=3)
    store_kappa(database, project, 0.61)
    change_settings(database, project.id, by=None, votes_per_item=3)
    with database.read() as rows:
        lacking = sorted(rows.scalars(sa.select(Progress.num_lacking)))
        assert lacking == [2] + [3] * 11 and rows.get(Project, project.id).votes_per_item == 3
    change_settings(database, project.id, by=None, votes_per_item=1)  # fewer need no permission
    with database.read() as rows:
        assert sorted(rows.scalars(sa.select(Progress.num_lacking))) == [0] + [1] * 11


@pytest.mark.parametrize(("changes", "words"), [({"anchor_share": 0.04}, "share of anchors"), ({"every_items": -1}, "every_items"),
                                                ({"pilot_raters": 10**7}, "pilot_raters")])  # fmt: skip
def test_settings_that_cannot_be_are_refused(database, project, changes, words):
    with pytest.raises(Refused, match=words):
        change_settings(database, project.id, by=None, votes_per_item=2, **changes)
    with pytest.raises(Refused, match="Votes an item"):
        change_settings(database, project.id, by=None, votes_per_item=0)
    with database.read() as rows:
        assert steering.steering_of(rows.get(Project, project.id)) == Steering()


def rate_at_odds(database, project, actors, num, *, seen):
    """Two raters who agree on every other pair: kappa is 0.

    Args:
        seen: numbers of the items in the order in which they were met, which goes on from call to call.
    """
    for number, actor in enumerate(actors):
        for _ in range(num):
            found = queue.next_assignment(database, actor, project.id)
            if isinstance(found, queue.Nothing):
                return
            odd = seen.setdefault(found.item_id, len(seen)) % 4
            is_b = odd in ((0, 1) if number == 0 else (1, 2))
            verdicts.submit(database, actor, found.id, vote(side_of(found, is_contrary=is_b)))


def test_a_low_rolling_kappa_pauses_the_project_and_opening_it_again_needs_a_reason(database, join):
    made = projects.create_project(database, "noisy", votes_per_item=2, calibration_items=0)
    importing.add_items(database, made.id, pairs(200))
    settings(database, made, anchor_share=0)
    actors = [join("ann"), join("bob")]
    seen = {}
    rate_at_odds(database, made, actors, 49, seen=seen)
    assert looking.look(database, made.id).kappa is None  # too few to say
    rate_at_odds(database, made, actors, 51, seen=seen)
    found = looking.look(database, made.id).kappa
    assert found["n"] == 100 and found["high"] < 0.4
    assert queue.next_assignment(database, actors[0], made.id) == queue.Nothing(reason="paused")
    with database.read() as rows:
        assert "lies below 0.4" in rows.get(Project, made.id).state_reason
        assert (
            "lies below" in rows.scalars(sa.select(Event).where(Event.kind == "project.paused")).one().content["reason"]
        )
    with pytest.raises(Refused, match="needs a reason"):
        projects.set_project_state(database, made.id, state="open", by=None)
    projects.set_project_state(database, made.id, state="open", by=None, reason="the guideline was amended")
    looking.look(database, made.id)  # what was before the opening does not count again
    take(database, actors[0], made)
    assert kinds(database, "project.open") == ["project.open"]


def test_the_newest_pairs_make_the_rolling_kappa(database, join):
    """After a hundred pairs at odds a hundred in agreement."""
    made = projects.create_project(database, "better", votes_per_item=2, calibration_items=0)
    importing.add_items(database, made.id, pairs(200))
    settings(database, made, anchor_share=0)
    actors = [join("ann"), join("bob")]
    rate_at_odds(database, made, actors, 100, seen={})
    for actor in actors:
        rate(database, made, actor, 100, contrary=lambda found: sum(found.item_id.encode()) % 2 == 0)
    found = looking.look(database, made.id).kappa
    assert found["value"] == 1.0 and found["n"] == 100


def test_a_look_is_taken_at_most_once_a_minute(database, project, join, monkeypatch):
    times = []
    monkeypatch.setattr(looking, "look", lambda *_: times.append(1))
    clock = [1000.0]
    monkeypatch.setattr(looking.time, "monotonic", lambda: clock[0])
    ann = join("ann")
    for _ in range(5):
        take_and_vote(database, project, ann)
    assert len(times) == 1
    clock[0] += 61
    take(database, ann, project)
    assert len(times) == 2


def test_an_item_that_asks_for_more_votes_gets_them(database, project, join):
    from fairlead.web import drift

    with database.read() as rows:
        item = rows.scalars(sa.select(Progress.item_id).order_by(Progress.rank)).first()
    drift.ask_more_votes(database, project.id, [item], extra=2, by=None, reason="adjudication")
    given = [{take_and_vote(database, project, actor) for _ in range(12) if not is_done(database, actor, project)}
             for actor in (join(name) for name in ("ann", "bob", "cem", "dan"))]  # fmt: skip
    with database.read() as rows:
        assert rows.get(Progress, item).num_votes == 4 and all(item in found for found in given)
    with pytest.raises(Refused):
        drift.ask_more_votes(database, project.id, ["nothing"], extra=1, by=None, reason="x")


def is_done(database, actor, project):
    return isinstance(queue.next_assignment(database, actor, project.id), queue.Nothing)


def test_a_rater_far_ahead_gets_items_that_nobody_has_begun(database, join, monkeypatch):
    """More items begun by this rater than are looked through before those that lack more votes."""
    monkeypatch.setattr(queue, "LOOK_AHEAD", 5)
    made = projects.create_project(database, "ahead", votes_per_item=2, calibration_items=0)
    importing.add_items(database, made.id, pairs(30))
    settings(database, made, anchor_share=0)
    ann, bob = join("ann"), join("bob")
    assert rate(database, made, ann, 40) == 30
    assert queue.next_assignment(database, ann, made.id) == queue.Nothing(reason="finished")
    assert rate(database, made, bob, 40) == 30


def test_the_page_tells_and_its_forms_work_without_scripts(database, calibrated, join):
    from web_browser import PLACE, Browser

    from fairlead.web.app import make_app

    app = make_app(database, place=PLACE, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)
    ann, bob = join("ann"), join("bob")
    for actor in (ann, bob):
        rate(database, calibrated, actor, NUM)
    join("lea", "lead")
    lea = Browser(app).log_in("lea")
    place = f"/p/{calibrated.id}/steering"
    lea.get(place)
    assert "one false alarm in about 1,281 anchors" in lea.page and "not passed" in lea.page
    fields = dict(re.findall(r'<input type="number" name="(\w+)"[^>]*value="([^"]*)"', lea.page))
    assert lea.post(place, **{**fields, "anchor_per_cent": "10", "every_days": "7"}).status_code == 303
    assert lea.post(place, **{**fields, "anchor_per_cent": "50"}).status_code == 422
    assert (
        lea.post(f"/p/{calibrated.id}/rounds", reason="the guideline changed", key="a-key-of-a-round").status_code
        == 303
    )
    assert lea.post(f"/p/{calibrated.id}/scale").status_code == 422
    assert lea.post(f"/p/{calibrated.id}/scale", reason="a small team").status_code == 303
    assert lea.post(f"/p/{calibrated.id}/anchors").status_code == 303
    page = lea.get(place).text
    assert 'value="10"' in page and "the guideline changed" in page and "overridden: a small team" in page
    with database.read() as rows:
        assert steering.steering_of(rows.get(Project, calibrated.id)).anchor_share == pytest.approx(0.1)
