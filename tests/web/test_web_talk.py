"""A live conversation in a real browser: three turns by keyboard alone, a reload while the policy writes, a lost network, payloads."""

import threading

import annotation_pages
import argon2
import pytest
import sqlalchemy as sa
from served import Rater, Served, is_loaded, later, wait
from test_web_chats import Parrot
from test_web_writing import clean
from web_payloads import PAYLOADS

from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.talked import ChatTurn
from fairlead.web import people, projects
from fairlead.web.chats.talker import Talker

CTRL_ENTER = "\ue009\ue007\ue000"


class Held(Parrot):
    """A policy that answers when it is let go."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()

    def reply(self, requests):
        assert self.go.wait(120), "the test lets it go"
        yield from super().reply(requests)


@pytest.fixture
def policy():
    return Held()


@pytest.fixture
def talked(votes_db, policy, monkeypatch):
    """A server with that policy."""
    monkeypatch.setattr(people, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    with open_database(votes_db, is_durable=False) as database:
        rules = projects.Rules(ties="allowed", both_bad=True)
        projects.create_project(database, "talk", kind="chat", votes_per_item=1, calibration_items=0, rules=rules)
        talker = Talker(database, policy)
        with annotation_pages.serve(database, talker=talker) as url:
            yield Served(database=database, url=url)
        policy.go.set()
        talker.stop()


def state(driver):
    return driver.execute_script(
        "const t = document.getElementById('talk'); return t ? t.dataset.state + t.dataset.number : ''"
    )


def reach(driver, wanted):
    wait(wanted, lambda: state(driver) == wanted and is_loaded(driver))
    later(driver)


def test_three_turns_by_keyboard_alone_through_a_reload_and_a_lost_network(driver, talked, policy):
    talked.join("ann")
    ann = Rater(driver, talked, "ann")
    reach(driver, "say0")
    ann.press("Hello there", CTRL_ENTER)
    reach(driver, "waiting0")
    driver.refresh()  # the message is on disk, the reply comes whatever the page does
    policy.go.set()
    reach(driver, "vote0")
    ann.press("2", "\ue007")
    reach(driver, "say1")
    assert "Hello there" in driver.find_element("css selector", ".turns").text
    ann.press("Tell me more", CTRL_ENTER)
    reach(driver, "vote1")
    ann.offline(True)
    ann.press("n", "It is clearer.", CTRL_ENTER)  # nothing is chosen: it stays
    assert state(driver) == "vote1"
    ann.press("\ue00c", "6", "\ue007")
    wait("the chip", lambda: "kept here" in ann.chip)
    ann.offline(False)
    reach(driver, "say2")
    ann.press("One more", CTRL_ENTER)
    reach(driver, "vote2")
    ann.press("9", "\ue007")
    reach(driver, "say3")
    found = talked.verdicts()
    assert (
        [abs(v.strength) for v in found] == [2, 2, 0]
        and found[2].verdict == "both_bad"
        and found[1].rationale == "It is clearer."
    )
    assert all(v.active_ms and v.active_ms >= 400 for v in found)
    assert "left out" in driver.find_element("id", "talk").text
    with talked.database.read() as rows:
        assert len(rows.scalars(sa.select(ChatTurn)).all()) == 3
    assert [row for row in ann.complaints() if "Content Security Policy" in row] == []


def test_payloads_in_messages_and_replies_stay_text(driver, talked, policy):
    policy.go.set()
    talked.join("ann")
    ann = Rater(driver, talked, "ann")
    reach(driver, "say0")
    driver.execute_script("document.getElementById('text').value = arguments[0]", "\n\n".join(PAYLOADS))
    ann.press(CTRL_ENTER)
    reach(driver, "vote0")
    clean(driver, talked)
    ann.press("1", "\ue007")
    reach(driver, "say1")
    clean(driver, talked)
