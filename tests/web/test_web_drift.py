"""The steering path in a real browser: hidden anchors raise an alarm, the lead sees what it proposes and presses, the rater calibrates again."""

import dataclasses

import sqlalchemy as sa
from served import Rater, is_loaded, wait
from web_example import pairs, vote

from fairlead.store.annotation.schema import Assignment, Item
from fairlead.store.annotation.steering import Alarm, Check, Round, RoundItem
from fairlead.web import anchors, people, queue, steering, verdicts


def almost_alarmed(served):
    """A rater who answered seven anchors wrongly in a row and has an eighth on the screen."""
    project = served.project(pairs(40))
    steering.change_settings(served.database, project.id, by=None, votes_per_item=1, anchor_share=0)
    gold = [dataclasses.replace(pair, answer="a") for pair in pairs(8, prefix="gold")]
    anchors.add_gold(served.database, project.id, gold, by=None)
    served.join("ann")
    with served.database.read() as rows:
        ann = people.Actor(person_id=rows.scalars(sa.select(people.Person.id)).one(), name="ann", role="rater")
    for _ in range(6):
        verdicts.submit(served.database, ann, queue.next_assignment(served.database, ann, project.id).id, vote("left"))
    with served.database.write() as rows:
        rater = steering.rater_of(rows, project.id, ann.person_id)
        given = []
        for item in rows.scalars(sa.select(Item).where(Item.use == "anchor")).all():
            made = Assignment(id=people.new_id(), project_id=project.id, item_id=item.id, person_id=ann.person_id, shown="01",
                              position=rater.num_given, state="open", leased_until=people.now_ms() + queue.LEASE_MS)  # fmt: skip
            rows.add(made)
            anchors.serve(rows, made, "a")
            rater.num_given += 1
            given.append(made.id)
    for assignment_id in given[:-1]:
        verdicts.submit(served.database, ann, assignment_id, vote("right"))
    return project, given[-1]


def test_an_alarm_is_seen_pressed_and_brings_the_rater_to_calibrate_again(driver, served):
    project, last = almost_alarmed(served)
    served.join("lea", "lead")
    ann = Rater(driver, served, "ann")
    assert ann.assignment == last and "anchor" not in driver.page_source.lower()
    ann.vote("7")
    wait("the vote to be saved", lambda: len(served.verdicts()) == 14)
    with served.database.read() as rows:
        alarm = rows.scalars(sa.select(Alarm)).one()
        assert not alarm.is_asked and rows.scalar(sa.select(sa.func.count()).select_from(Check)) == 8
    lea = Rater(driver, served, "lea")
    driver.get(f"{served.url}/p/{project.id}/steering")
    card = driver.find_element("css selector", ".card")
    assert "ann: 0 of 8 anchors right since the change" in card.text
    card.find_element("xpath", ".//button[contains(., 'Ask to calibrate again')]").click()
    wait("the answer", lambda: "Was asked to calibrate again" in driver.page_source and is_loaded(driver))
    driver.find_element("xpath", "//button[contains(., 'Let others rate these pairs too')]").click()
    wait("the alarm to be closed", lambda: "No alarm is open" in driver.page_source)
    assert lea.complaints() == []
    ann = Rater(driver, served, "ann")
    with served.database.read() as rows:
        round_ = rows.scalars(sa.select(Round)).one()
        asked = set(rows.scalars(sa.select(RoundItem.item_id).where(RoundItem.number == round_.number)))
        assert round_.person_id == alarm.person_id and len(asked) == 13
    seen = {ann.vote("1") for _ in range(5)}
    wait("all votes to be saved", lambda: len(served.verdicts()) == 19)
    with served.database.read() as rows:
        items = {rows.get(Assignment, name).item_id for name in seen}
    assert len(items & asked) >= 3 and ann.complaints() == []
