"""What a screen reader is given on the pages of a rater and an adjudicator: order, names, headings, and what is read out by itself.

The tree is Chromium's. Which words a program makes of it is for a person to hear; see docs/accessibility.md.
"""

import pytest
from annotation_pages import PAGES
from annotation_screens import visit
from served import Rater, wait
from spoken import Node, misplaced_headings, nameless, read
from web_example import pairs

CONVERSATION, WHY = ("region", "Conversation"), ("textbox", "Why?")
VERDICT = ("radio", "Left much better")
ORDER = {
    "rate": (CONVERSATION, ("region", "Left reply"), ("region", "Right reply"), VERDICT, WHY, ("button", "Send"), ("button", "Skip")),
    "rate-criteria": (CONVERSATION, ("region", "Left reply"), ("region", "Right reply"), VERDICT, ("radiogroup", "correct, Left reply"),
                      ("radiogroup", "brief, Right reply"), WHY, ("button", "Send")),
    "rate-ranking": (CONVERSATION, ("region", "Reply 1"), ("region", "Reply 4"), ("button", "Reply 1: no place yet"),
                     ("button", "Reply 4: no place yet"), ("radio", "All bad"), WHY, ("button", "Send")),
    "talk": (CONVERSATION, ("region", "Left reply"), ("region", "Right reply"), VERDICT, WHY, ("button", "Choose"), ("link", "Begin a new")),
    "write": (("heading", "Conversation"), CONVERSATION, ("heading", "Your reply"), ("textbox", "Your reply"), ("button", "Hand in"),
              ("DisclosureTriangle", "A draft by a model")),
    "review": (CONVERSATION, ("heading", "The reply of another rater"), ("region", "The reply"), ("button", "Accept"),
               ("DisclosureTriangle", "Change it"),
               ("DisclosureTriangle", "Send it back")),
    "dispute": (("DisclosureTriangle", "Conversation"), ("region", "Left reply"), ("region", "Right reply"), ("table", ""), ("radio", "Left is"),
                ("textbox", "Reason"), ("button", "Decide and go on")),
    "dispute-ranking": (("DisclosureTriangle", "Conversation"), ("region", "Reply 1"), ("region", "Reply 4"), ("table", ""),
                        ("button", "Reply 1: no place yet"),
                        ("radiogroup", "correct, Reply 1"), ("textbox", "Reason"), ("button", "Decide and go on")),
}  # fmt: skip
"""Role and a part of the name of what is met one after the other."""
BY_NAME = {page.name: page for page in PAGES}


def place(nodes: list[Node], wanted: tuple[str, str], after: int) -> int:
    role, words = wanted
    found = [at for at, node in enumerate(nodes) if at > after and node.role == role and words in node.name]
    assert found, f"no {role} {words!r} after place {after}: {[(node.role, node.name[:40]) for node in nodes]}"
    return found[0]


@pytest.mark.parametrize("name", sorted(ORDER, key=lambda name: BY_NAME[name].who))
def test_it_is_read_in_the_order_of_the_work(driver, filled, name):
    visit(driver, *filled, BY_NAME[name], width=1280, scheme="light")
    nodes = read(driver)
    at = -1
    for wanted in ORDER[name]:
        at = place(nodes, wanted, at)
    assert nameless(nodes) == []
    assert misplaced_headings(nodes) == []
    live = {node.role: node.live for node in nodes if node.live}
    assert live.get("status") == "polite" or name.startswith("dispute"), "what is saved is read out"


PHONE = ("mine", "written", "people", "disagreements")


@pytest.mark.parametrize("name", sorted(PHONE, key=lambda name: BY_NAME[name].who))
def test_a_list_that_is_blocks_on_a_phone_is_a_table_to_a_screen_reader(driver, filled, name):
    visit(driver, *filled, BY_NAME[name], width=390, scheme="light")
    roles = [node.role for node in read(driver)]
    assert "table" in roles and "rowheader" in roles and "columnheader" in roles and "cell" in roles
    assert roles.count("row") == roles.count("rowheader") + 1


def test_the_next_item_is_begun_where_reading_begins(driver, served):
    """The focus is on the conversation, of which a screen reader says the name and goes on reading; the last page on its heading."""
    served.project(pairs(2))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    ann.vote("1")
    wait("the focus", lambda: focused(driver) == [CONVERSATION])
    ann.vote("1")
    wait("the focus", lambda: focused(driver) == [("heading", "You have rated everything")])


def focused(driver):
    return [(node.role, node.name) for node in read(driver) if node.is_focused and node.role != "RootWebArea"]


def test_what_goes_wrong_is_read_out(driver, served):
    """A vote that the server refuses."""
    served.project(pairs(2))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    driver.execute_script("document.querySelector('[name=guideline_version]').value = '99'")
    ann.vote("1")
    wait("the words", lambda: any(node.role == "alert" for node in read(driver)))
    nodes = read(driver)
    at = next(number for number, node in enumerate(nodes) if node.role == "alert")
    assert nodes[at].live == "assertive" and "not taken" in nodes[at + 1].name
