"""The reminder of a break: after the minutes that the rater set, with an item, and never in the way."""

import pytest
from served import Rater, wait
from web_example import pairs

STATE = "return JSON.parse(localStorage.getItem(Object.keys(localStorage).find((k) => k.startsWith('fairlead.rest.'))))"


@pytest.fixture
def ann(driver, served):
    """A rater with items."""
    served.project(pairs(8))
    served.join("ann")
    return Rater(driver, served, "ann")


def has_worked(rater: Rater, minutes: float, *, ago_s: float = 1.0) -> None:
    """As if the rater had worked so long until some seconds ago."""
    rater.driver.get(f"{rater.served.url}/static/app.css")  # the page has written what it writes when it goes
    rater.driver.execute_script(
        """
        const name = Object.keys(localStorage).find((key) => key.startsWith('fairlead.rest.'));
        localStorage.setItem(name, JSON.stringify({worked: arguments[0] * 60000, seen: Date.now() - arguments[1] * 1000}));
        """,
        minutes,
        ago_s,
    )
    rater.driver.get(f"{rater.served.url}/")
    wait("the page", lambda: rater.assignment)


def shown(rater: Rater) -> bool:
    """Is the reminder on the screen?"""
    return rater.driver.find_element("id", "rest").is_displayed()


def test_after_fifty_minutes_a_break_is_proposed_and_blocks_nothing(ann):
    has_worked(ann, 49)
    ann.vote("1")
    assert not shown(ann)
    has_worked(ann, 50)
    assert "worked for 50 minutes" in ann.driver.find_element("id", "rest").text
    ann.vote("2")  # goes on beside it
    assert shown(ann)
    ann.driver.find_element("id", "rest-close").click()
    assert not shown(ann)
    ann.vote("3")
    assert not shown(ann)


def test_later_is_ten_minutes_later(ann):
    has_worked(ann, 50)
    ann.driver.find_element("id", "rest-later").click()
    assert not shown(ann)
    assert ann.driver.execute_script(STATE)["worked"] == 40 * 60_000


def test_five_quiet_minutes_are_a_break(ann):
    has_worked(ann, 49.9, ago_s=301)
    ann.vote("1")
    ann.vote("2")
    assert not shown(ann)
    ann.driver.refresh()
    wait("the page", lambda: ann.assignment)
    assert ann.driver.execute_script(STATE)["worked"] < 60_000


@pytest.mark.parametrize(
    ("minutes", "worked", "is_shown"), [("20", 20, True), ("20", 19, False), ("0", 300, False), ("-3", 50, True)]
)
def test_the_rater_sets_the_minutes(ann, minutes, worked, is_shown):
    ann.later()
    ann.press("?")
    field = ann.driver.find_element("id", "rest-minutes")
    assert field.get_attribute("value") == "50"
    field.send_keys("\ue009a\ue000", minutes, "\t")
    ann.press("\ue00c")
    has_worked(ann, worked)
    assert shown(ann) == is_shown
