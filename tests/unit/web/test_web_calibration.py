"""The calibration gate: agreeing raters pass and get on, a rater who deviates does not, a lead may let somebody in on record."""

import pytest
import sqlalchemy as sa
from web_example import pairs, take, vote

from fairlead.store.annotation.schema import Assignment, Event, Progress
from fairlead.web import calibration, importing, projects, queue, rounds, verdicts
from fairlead.web.errors import Refused
from fairlead.web.frames import is_swapped

NUM = 40


@pytest.fixture
def calibrated(database):
    made = projects.create_project(database, "calibrated", votes_per_item=1, calibration_items=NUM)
    importing.add_items(database, made.id, pairs(NUM + 10))
    return made


def rate_calibration(database, project, actor, *, num=None, is_contrary=False):
    """Vote for a on every item, or on `num` of them, or for b."""
    for _ in range(num or project.calibration_items):
        assignment = take(database, actor, project)
        verdicts.submit(
            database, actor, assignment.id, vote("left" if is_swapped(assignment.shown) == is_contrary else "right")
        )


def test_raters_who_agree_are_let_in_and_one_who_deviates_is_not(database, calibrated, join):
    actors = [join(name) for name in ("ann", "bob", "cem", "dan")]
    for actor in actors:
        rate_calibration(database, calibrated, actor, is_contrary=actor.name == "dan")
    given = {actor.name: queue.next_assignment(database, actor, calibrated.id) for actor in actors}
    assert given.pop("dan") == queue.Nothing(reason="calibration")
    assert all(isinstance(found, Assignment) for found in given.values())
    with database.read() as rows:
        assert {rows.get(Progress, found.item_id).use for found in given.values()} == {"production"}
        found = calibration.read_calibration(rows, calibrated.id)
    assert {s.name: s.state for s in found.standings} == {
        "ann": "passed",
        "bob": "passed",
        "cem": "passed",
        "dan": "failed",
    }
    assert found.verdict.kind == "raters_deviate" and found.verdict.deviating == ("dan",)


def test_the_first_rater_waits_for_others_and_passing_is_recorded_once(database, calibrated, join):
    ann, bob = join("ann"), join("bob")
    rate_calibration(database, calibrated, ann)
    assert queue.next_assignment(database, ann, calibrated.id) == queue.Nothing(reason="calibration")
    with database.read() as rows:
        assert calibration.read_calibration(rows, calibrated.id).standings[0].state == "waiting"
    rate_calibration(database, calibrated, bob)
    for _ in range(2):
        assert isinstance(queue.next_assignment(database, ann, calibrated.id), Assignment)
    with database.read() as rows:
        assert rows.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.kind == rounds.PASSED)) == 1


def test_a_lead_lets_somebody_in_with_a_reason(database, calibrated, join):
    ann, lead = join("ann"), join("lea", "lead")
    rate_calibration(database, calibrated, ann)
    with pytest.raises(Refused, match="needs a reason"):
        calibration.waive(database, calibrated.id, ann.person_id, by=lead.person_id, reason=" ")
    calibration.waive(
        database, calibrated.id, ann.person_id, by=lead.person_id, reason="the only rater of this language"
    )
    assert isinstance(queue.next_assignment(database, ann, calibrated.id), Assignment)
    with database.read() as rows:
        assert calibration.read_calibration(rows, calibrated.id).standings[0].state == "waived"


def test_without_calibration_items_there_is_no_gate(database, project, join):
    assert isinstance(queue.next_assignment(database, join("ann"), project.id), Assignment)


def test_a_round_of_few_pairs_says_that_it_leaves_the_guideline_open(database, browser, join):
    lea = browser("lea", "lead")
    for num, is_open in ((3, True), (NUM, False)):
        made = projects.create_project(database, f"of {num}", calibration_items=num)
        importing.add_items(database, made.id, pairs(num))
        rate_calibration(database, made, join(f"ann {num}"))
        bob = join(f"bob {num}")
        rate_calibration(database, made, bob, num=1, is_contrary=True)
        rate_calibration(database, made, bob, num=num - 1)
        page = lea.get(f"/p/{made.id}/calibration").text
        assert "The guideline is clear." in page and ("The interval leaves it open" in page) is is_open
