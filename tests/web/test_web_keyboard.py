"""Rating without a mouse: from the login through calibration to the last vote and the export, and where the focus is meanwhile."""

import json
import time
import zipfile

import annotation_pages
import annotation_screens
import pytest
import sqlalchemy as sa
from annotation_pages import PAGES
from served import PASSWORD, Rater, wait
from web_example import pairs, vote

from fairlead.store.annotation.schema import Person
from fairlead.web import people, projects, queue, verdicts
from fairlead.web.answers import texts_on_screen
from fairlead.web.policy import Actor

NUM_CALIBRATION, NUM_PRODUCTION = 20, 50
WHICH = """
const side = [...document.querySelectorAll('.pane')].findIndex((pane) => pane.textContent.includes('good reply'));
return document.querySelector('.option input') ? ['2', '6'][side] : '';
"""
DRAFT = "return localStorage.getItem(Object.keys(localStorage).find((key) => key.startsWith('fairlead.draft')))"
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


def agree(served, project, name: str) -> None:
    """A rater who chooses the good reply of every calibration item."""
    secret = people.accept_invite(served.database, people.make_invite(served.database, role="rater"), name=name, password=PASSWORD)  # fmt: skip
    who = people.actor_of(served.database, secret)
    for _ in range(NUM_CALIBRATION):
        found = queue.next_assignment(served.database, who, project.id)
        with served.database.read() as rows:
            is_left = texts_on_screen(rows, found)[0].startswith("good")
        verdicts.submit(served.database, who, found.id, vote("left" if is_left else "right"))


def tab_to(rater: Rater, selector: str) -> None:
    """Press Tab until this has the focus."""
    for _ in range(60):
        rater.press("\t")
        if rater.driver.execute_script("return document.activeElement.matches(arguments[0])", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_from_the_login_to_the_export_by_keyboard(driver, served, tmp_path):
    """Calibrate, rate fifty, lose the network, reload, get it back, undo, change an earlier one; then the lead exports."""
    project = served.project(pairs(NUM_CALIBRATION + NUM_PRODUCTION), calibration_items=NUM_CALIBRATION)
    for name in ("bob", "cem"):
        agree(served, project, name)
    served.join("ann")
    ann = Rater(driver, served, "ann")
    mine: list[str] = []
    num_items = NUM_CALIBRATION + NUM_PRODUCTION
    for number in range(2 * num_items):
        key = driver.execute_script(WHICH)
        if not key and number >= num_items:  # some of them were own pairs again, with the sides exchanged
            break
        assert key, f"no item after {number} votes: {driver.execute_script('return document.body.innerText')}"
        if number == NUM_CALIBRATION + 10:
            ann.offline(True)
        mine.append(ann.vote(key))
        assert not driver.execute_script(FOCUS)["isBody"], "the focus is lost when the next item comes"
        if number == NUM_CALIBRATION + 10:
            wait("the chip", lambda: "1 vote kept here, not sent yet" in ann.chip)
            ann.offline(False)
            driver.refresh()  # the vote is still in the browser and is sent now
            wait("the page", lambda: ann.assignment)
            wait("the chip", lambda: ann.chip == "All votes are saved")
        if number == NUM_CALIBRATION + 20:
            time.sleep(ann.GUARD_S)
            ann.press("u")
            wait("the last item", lambda: ann.assignment == mine[-1])
            assert not driver.execute_script(FOCUS)["isBody"], "the focus is lost when undo brings an item back"
            assert ann.vote(key) == mine[-1]
    wait("the end", lambda: "You have rated everything" in driver.page_source)
    wait("the chip", lambda: ann.chip == "All votes are saved")
    assert num_items <= len(set(mine)) == len(mine) <= 1.2 * num_items
    tab_to(ann, ".nothing a")  # to the list of own votes, where the newest stands first
    ann.press("\ue007")
    wait("own votes", lambda: driver.current_url.endswith("/mine"))
    tab_to(ann, "tbody td a")
    ann.press("\ue007")
    wait("the item", lambda: ann.assignment == mine[-1])
    ann.vote("4")
    wait("the change", lambda: [v.verdict for v in served.verdicts() if v.assignment_id == mine[-1]] == ["tie"])

    served.join("lea", "admin")
    lea = Rater(driver, served, "lea")
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path), "eventsEnabled": False}
    )
    tab_to(lea, f"a[href='/p/{project.id}']")
    lea.press("\ue007")
    wait("the overview", lambda: driver.current_url.endswith(project.id))
    tab_to(lea, "a[href$='export.zip']")
    lea.press("\ue007")
    wait("the file", lambda: (tmp_path / "votes.zip").exists() and not list(tmp_path.glob("*.crdownload")))
    with zipfile.ZipFile(tmp_path / "votes.zip") as archive:
        votes = [json.loads(line) for line in archive.read("votes.jsonl").splitlines()]
    assert len(votes) == 3 * NUM_CALIBRATION + NUM_PRODUCTION


@pytest.mark.parametrize("page", sorted(PAGES, key=lambda page: page.who), ids=lambda page: page.name)
def test_the_focus_is_seen_on_every_stop(driver, filled, page):
    annotation_screens.visit(driver, *filled, page, width=1280, scheme="light")
    stops = 0 if driver.execute_script(FOCUS)["isBody"] else 1
    for _ in range(40):
        driver.switch_to.active_element.send_keys("\t")
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


def test_an_adjudicator_decides_by_keyboard(driver, served):
    project = served.project(pairs(3), votes_per_item=2)
    for name, choice in (("bob", "left"), ("cem", "right")):
        served.join(name)
        with served.database.read() as rows:
            person = rows.scalar(sa.select(Person).where(Person.name == name))
        who = Actor(person_id=person.id, name=name, role="rater")
        found = queue.next_assignment(served.database, who, project.id)
        side = choice if found.shown == "01" else {"left": "right", "right": "left"}[choice]
        verdicts.submit(served.database, who, found.id, vote(side))
    served.join("ada", "adjudicator")
    ada = Rater(driver, served, "ada")
    driver.get(f"{served.url}/p/{project.id}/disagreements")
    tab_to(ada, "a.primary")  # decide the next
    ada.press("\ue007")
    wait("the pair", lambda: driver.find_elements("css selector", "[name=choice]"))
    tab_to(ada, "[name=choice]")
    ada.press(" ", "\t", "It answers what was asked.")
    tab_to(ada, "button.primary")
    ada.press("\ue007")
    wait("the decision", lambda: not driver.find_elements("css selector", "[name=choice]"))
    driver.get(f"{served.url}/p/{project.id}/disagreements?state=all")
    assert "decided" in driver.find_element("css selector", "main").text


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
    time.sleep(0.8)
    driver.execute_script("window.fetch = () => new Promise(() => {})")
    before = ann.assignment
    ann.press("1", "\ue007")
    wait("the next item", lambda: ann.assignment not in ("", before), limit_s=2)


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
    time.sleep(ann.GUARD_S)
    ann.press("n")
    for number in range(3):
        ann.press(str(number))
        assert json.loads(driver.execute_script(DRAFT))["rationale"].endswith(str(number))
        wait("the draft", lambda number=number: driver.execute_script("return window.took.length") == number + 1)
    assert min(driver.execute_script("return window.took")) <= 1000  # the machine may pause for something else


def test_a_key_of_ones_own_never_gets_a_second_meaning_under_another_guideline(driver, served):
    """0 is free on the graded scale; on the binary one it is given to the tie, which then moves."""
    graded = served.project(pairs(4))
    binary = served.project(pairs(4, prefix="other"), name="binary", rules=projects.Rules(scale="binary", ties="allowed"))  # fmt: skip
    served.join("ann")
    ann = Rater(driver, served, "ann")
    driver.get(f"{served.url}/p/{graded.id}/rate")
    time.sleep(ann.GUARD_S)
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
    time.sleep(ann.GUARD_S)
    ann.press(keys["tie"])
    assert driver.execute_script("return document.querySelector('.option input:checked').value") == "tie"
    ann.press("0")
    assert driver.execute_script("return document.getElementById('skip').open")


def test_single_keys_can_be_switched_off(driver, served):
    """WCAG 2.1.4: who speaks to the computer would else vote by talking."""
    served.project(pairs(4))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    time.sleep(ann.GUARD_S)
    ann.press("?")
    driver.find_element("id", "single-keys").click()
    ann.press("\ue00c", "7")
    assert driver.execute_script("return document.querySelector('.option input:checked')") is None
    driver.refresh()
    assert not driver.find_element("id", "single-keys").is_selected()
    time.sleep(ann.GUARD_S)
    ann.press("s")
    assert not driver.execute_script("return document.getElementById('skip').open")
