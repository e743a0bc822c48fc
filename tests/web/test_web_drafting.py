"""A draft that a rater asks the policy for, in a real browser: it comes while one writes, is marked, taken, edited, accepted by a second
person and stored as what it is; a policy that fails or is slow is told of, and nothing that was written is lost."""

import threading

import annotation_pages
import argon2
import pytest
import sqlalchemy as sa
from served import Rater, Served, wait

from fairlead.core.protocols import Reply
from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import open_database
from fairlead.store.annotation.written import Demonstration
from fairlead.web import people, projects
from fairlead.web.chats.talker import Talker
from fairlead.web.demonstrations import transfer

DRAFT = "Water it from **below**, in the morning, and give it six hours of light."
CTRL_ENTER = "\ue009\ue007\ue000"


class Held:
    """A policy that writes one draft when it is let go, or fails."""

    name = "held"

    def __init__(self):
        self.go, self.fault = threading.Event(), ""

    def reply(self, requests):
        for request in requests:
            assert self.go.wait(120), "the test lets it go"
            text = Completion(prompt_id=request.prompt.id, text=DRAFT, model=self.name, seed=request.seed)
            yield Reply(key=request.key, fault=self.fault) if self.fault else Reply(key=request.key, completions=[text])


@pytest.fixture
def policy():
    return Held()


def serving(votes_db, policy, *, timeout_s):
    """Two people, one conversation that wants a reply, and a server that gives drafts."""
    with open_database(votes_db, is_durable=False) as database:
        made = projects.create_project(database, "own", kind="demonstration", votes_per_item=1, calibration_items=0)
        prompt = Prompt(messages=(Message(role="user", content="How do I keep basil alive?"),))
        transfer.add_wanted(database, made.id, [transfer.Wanted(prompt=prompt)])
        talker = Talker(database, policy, timeout_s=timeout_s, gives_drafts=True)
        with annotation_pages.serve(database, talker=talker) as url:
            found = Served(database=database, url=url)
            found.join("ann")
            found.join("bob")
            yield found
        policy.go.set()
        talker.stop()


@pytest.fixture
def quick_passwords(monkeypatch):
    monkeypatch.setattr(people, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def served(votes_db, policy, quick_passwords):
    yield from serving(votes_db, policy, timeout_s=120.0)


@pytest.fixture
def impatient(votes_db, policy, quick_passwords):
    yield from serving(votes_db, policy, timeout_s=1.5)


def text(driver):
    return driver.execute_script("return document.getElementById('text').value")


def note(driver):
    return driver.execute_script("const n = document.querySelector('#ask .note'); return n ? n.textContent : ''")


HAS = """
const e = document.getElementById(arguments[0]);
return Boolean(e && !e.hidden && document.readyState === 'complete' && !window.isBefore);
"""


def has(driver, name):
    return driver.execute_script(HAS, name)


def press_d(rater, expected):
    """Leave the text, press the key of drafts, and wait for the page that it brings."""
    rater.later()
    rater.driver.execute_script("window.isBefore = true")
    rater.press("\ue00c", "d")
    wait(expected, lambda: has(rater.driver, expected))


def ask(driver, served, *, seen="A model writes a draft"):
    """Begin to write, ask, and go on writing."""
    ann = Rater(driver, served, "ann")
    wait("the page", lambda: has(driver, "ask-draft"))
    ann.press("My beginning.")
    press_d(ann, "ask")
    wait("the asking", lambda: seen in note(driver))
    assert text(driver) == "My beginning.", "what was written is kept, and nothing is filled in"
    ann.press(" More of it.")
    return ann


def stored(served):
    with served.database.read() as rows:
        return rows.scalar(sa.select(Demonstration))


def test_a_draft_comes_is_marked_taken_edited_and_accepted(driver, served, policy):
    ann = ask(driver, served)
    assert not has(driver, "show-draft"), "nothing has come yet"
    policy.go.set()
    wait("the draft", lambda: note(driver) == "A draft by a model is there.")
    status = "return document.querySelector('#ask .note').getAttribute('role')"
    assert driver.execute_script(status) == "status", "a screen reader says it"
    assert text(driver) == "My beginning. More of it.", "it comes beside the text, not into it"
    press_d(ann, "draft")
    assert text(driver) == "My beginning. More of it."
    shown = driver.find_element("id", "draft")
    assert shown.find_element("css selector", "summary").text.startswith("A draft by a model"), "marked as what it is"
    assert shown.get_attribute("open") is None, "it is looked at by who wants to"
    ann.later()
    ann.press("\ue00c", "d")
    assert "below" in shown.text and "It may be wrong" in shown.text and "**" not in shown.text, "rendered"
    ann.press("\ue007")  # the button that takes it has the focus
    assert text(driver) == f"My beginning. More of it.\n\n{DRAFT}"
    ann.press(" Not on a cold sill.", CTRL_ENTER)
    wait("the reply", lambda: stored(served) is not None and stored(served).state == "written")
    found = stored(served)
    assert found.is_drafted and 0.5 < found.from_draft < 1, "stored as begun by a model, with the share that was kept"
    assert ann.complaints() == []
    bob = Rater(driver, served, "bob")
    wait("the review", lambda: has(driver, "accept"))
    bob.later()
    bob.press("a")
    wait("the decision", lambda: stored(served).state == "accepted")
    assert stored(served).is_drafted and not stored(served).is_edited


def test_a_draft_that_is_left_alone_marks_nothing(driver, served, policy):
    ann = ask(driver, served)
    policy.go.set()
    wait("the draft", lambda: note(driver) == "A draft by a model is there.")
    ann.later()
    ann.press(CTRL_ENTER)
    wait("the reply", lambda: stored(served) is not None and stored(served).state == "written")
    assert not stored(served).is_drafted


def test_a_policy_that_fails_is_told_and_asked_again(driver, served, policy):
    policy.fault = "out of memory on the device"
    ann = ask(driver, served)
    policy.go.set()
    wait("the words", lambda: note(driver).startswith("The policy could not answer."))
    assert "memory" not in driver.page_source, "the cause is for the lead"
    policy.fault = ""
    policy.go.clear()  # an answer that is there at once would come with the page
    ann.later()
    press_d(ann, "ask-draft")
    alert = driver.find_element("css selector", "#ask [role=alert]").text
    assert alert.startswith("The policy could not answer.") and text(driver) == "My beginning. More of it."
    press_d(ann, "ask")
    policy.go.set()
    wait("the draft", lambda: note(driver) == "A draft by a model is there.")


def test_a_slow_policy_is_given_up_in_words(driver, impatient):
    ann = ask(driver, impatient, seen="")  # a slow machine may be told of the end first
    asked = "return document.getElementById('ask').textContent"
    wait("the words", lambda: "No reply came within 1.5 seconds." in driver.execute_script(asked))
    ann.later()
    ann.press(CTRL_ENTER)  # and the own text is handed in all the same
    wait("the reply", lambda: stored(impatient) is not None and stored(impatient).state == "written")


def test_what_is_written_outlives_a_network_that_goes_while_one_asks(driver, served, policy):
    ann = ask(driver, served)
    policy.go.set()
    wait("the draft", lambda: note(driver) == "A draft by a model is there.")
    ann.offline(True)
    ann.press(" Last words.")
    ann.later()
    ann.press("\ue00c", "d")  # the form goes out and finds no network
    wait("the browser's own page", lambda: not driver.execute_script("return Boolean(document.getElementById('text'))"))
    ann.offline(False)
    driver.get(f"{served.url}/")
    wait("the page", lambda: has(driver, "draft"))
    assert text(driver) == "My beginning. More of it. Last words."
