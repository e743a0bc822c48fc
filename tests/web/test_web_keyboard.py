"""Rating without a mouse: where the focus is, what a screen reader meets, drafts, keys of one's own. The whole way is in test_web_proof.py."""

import json

import annotation_pages
import annotation_screens
import pytest
from annotation_pages import PAGES
from served import Rater, wait
from web_example import pairs

from fairlead.web import projects

DRAFT = "return localStorage.getItem(Object.keys(localStorage).find((key) => key.startsWith('fairlead.draft')))"
TAB = {"type": "rawKeyDown", "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
NAMED = frozenset("button link radio textbox checkbox combobox spinbutton region dialog".split())  # noqa: SIM905
FOCUS = """
const e = document.activeElement, shown = e.matches('.option input') ? e.nextElementSibling : e;
const style = getComputedStyle(shown), box = shown.getBoundingClientRect();
const x = Math.min(Math.max(box.left + 3, 1), innerWidth - 2), y = Math.min(Math.max(box.top + 3, 1), innerHeight - 2);
const top = document.elementFromPoint(x, y);
return {html: e.outerHTML.slice(0, 100), isBody: e === document.body, ring: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
  onScreen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  isCovered: Boolean(top) && !e.contains(top) && !top.contains(shown) && !(e.labels && [...e.labels].some((label) => label.contains(top)))};
"""


@pytest.mark.parametrize("page", sorted(PAGES, key=lambda page: page.who), ids=lambda page: page.name)
def test_the_focus_is_seen_on_every_stop(driver, filled, page):
    annotation_screens.visit(driver, *filled, page, width=1280, scheme="light")
    stops = 0 if driver.execute_script(FOCUS)["isBody"] else 1
    for _ in range(40):
        driver.execute_cdp_cmd("Input.dispatchKeyEvent", TAB)
        found = driver.execute_script(FOCUS)
        if found["isBody"]:
            break
        stops += 1
        assert found["ring"] and found["onScreen"] and not found["isCovered"], found
    assert stops >= 1
    assert driver.execute_script("return document.querySelectorAll('[tabindex]:not([tabindex=\"0\"], [tabindex=\"-1\"])').length") == 0  # fmt: skip


def test_a_screen_reader_meets_the_parts_in_order_and_each_has_a_name(driver, filled):
    page = next(page for page in annotation_pages.PAGES if page.name == "rate")
    annotation_screens.visit(driver, *filled, page, width=1280, scheme="light")
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    by_id = {node["nodeId"]: node for node in tree}
    spoken: list[tuple[str, str]] = []

    def walk(node):
        if not node.get("ignored"):
            spoken.append((node["role"]["value"], node.get("name", {}).get("value", "")))
        for child in node.get("childIds", []):
            if child in by_id:
                walk(by_id[child])

    walk(tree[0])
    parts = [("banner", ""), ("status", ""), ("main", ""), ("heading", "Conversation"), ("region", "Left reply"), ("region", "Right reply"),
             ("radio", "1 Left much better"), ("radio", "9 Both bad"), ("button", "Send Enter")]  # fmt: skip
    places = [spoken.index(part) for part in parts]
    assert places == sorted(places), spoken
    assert any(role == "group" and name.startswith("Which reply is better?") for role, name in spoken), spoken
    assert any(role == "textbox" and name.startswith("Why?") for role, name in spoken), spoken
    nameless = [role for role, name in spoken if role in NAMED and not name]
    assert nameless == []


def test_the_live_region_tells_that_a_vote_is_saved(driver, served):
    served.project(pairs(4))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    driver.execute_script("""
      window.said = [];
      const chip = document.getElementById('saved');
      new MutationObserver(() => window.said.push(chip.textContent)).observe(chip, {childList: true, characterData: true, subtree: true});
    """)
    ann.vote("1")
    wait("the vote", lambda: ann.chip == "All votes are saved" and len(served.verdicts()) == 1)
    said = driver.execute_script("return window.said")
    assert said == ["1 vote kept here, not sent yet", "All votes are saved"]
    chip = "const e = document.getElementById('saved'); return [e.getAttribute('role'), e.getAttribute('aria-live')]"
    assert driver.execute_script(chip) == ["status", "polite"]


def test_no_request_stands_between_a_vote_and_the_next_item(driver, served):
    """From the moment of sending on, the network answers nothing at all: the next item comes all the same."""
    served.project(pairs(4))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    ann.until_prepared()
    driver.execute_script("window.fetch = () => new Promise(() => {})")
    ann.vote("1")
    assert ann.assignment


def test_a_draft_is_kept_at_once_here_and_within_a_second_there(driver, served):
    served.project(pairs(4))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    driver.execute_script("""
      window.took = []; const real = window.fetch;
      window.fetch = async (url, options) => { const reply = await real(url, options);
        if (String(url).endsWith('/draft')) window.took.push(performance.now() - window.typed); return reply; };
      document.querySelector('textarea[name=rationale]').addEventListener('input', () => { window.typed = performance.now(); });
    """)
    ann.later()
    ann.press("n")
    took: list[float] = []
    while not took or (min(took) > 1000 and len(took) < 20):  # the machine may do something else in between
        ann.press(key := str(len(took) % 10))
        assert json.loads(driver.execute_script(DRAFT))["rationale"].endswith(key)
        num = len(took) + 1
        wait("the draft", lambda num=num: driver.execute_script("return window.took.length") == num)
        took = driver.execute_script("return window.took")
    assert min(took) <= 1000


def test_a_key_of_ones_own_never_gets_a_second_meaning_under_another_guideline(driver, served):
    """0 is free on the graded scale; on the binary one it is given to the tie, which then moves."""
    graded = served.project(pairs(4))
    binary = served.project(pairs(4, prefix="other"), name="binary", rules=projects.Rules(scale="binary", ties="allowed"))  # fmt: skip
    served.join("ann")
    ann = Rater(driver, served, "ann")
    driver.get(f"{served.url}/p/{graded.id}/rate")
    ann.later()
    ann.press("?")
    for key, words in (("\ue012", "This key has a use of its own."), ("1", "in use: Left much better")):
        button = driver.find_element("css selector", "[data-change=skip]")
        button.click()
        button.send_keys(key)
        assert words in driver.find_element("css selector", "[data-change=skip]").text
    driver.find_element("css selector", "[data-change=skip]").click()
    driver.find_element("css selector", "[data-change=skip]").send_keys("0")
    driver.get(f"{served.url}/p/{binary.id}/rate")
    shown = driver.execute_script(
        "Keys.draw(); return [...document.querySelectorAll('[data-change]')].map((b) => [b.dataset.change, b.textContent])"
    )
    keys = dict(shown)
    assert keys["skip"] == "0" and keys["left0"] == "1" and keys["right0"] == "2" and keys["tie"] != "0"
    assert len(set(keys.values())) == len(keys)
    ann.later()
    ann.press(keys["tie"])
    assert driver.execute_script("return document.querySelector('.option input:checked').value") == "tie"
    ann.press("0")
    assert driver.execute_script("return document.getElementById('skip').open")


def test_single_keys_can_be_switched_off(driver, served):
    """WCAG 2.1.4: who speaks to the computer would else vote by talking."""
    served.project(pairs(4))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    ann.later()
    ann.press("?")
    driver.find_element("id", "single-keys").click()
    ann.press("\ue00c", "7")
    assert driver.execute_script("return document.querySelector('.option input:checked')") is None
    driver.refresh()
    assert not driver.find_element("id", "single-keys").is_selected()
    ann.later()
    ann.press("s")
    assert not driver.execute_script("return document.getElementById('skip').open")
