"""What is asked beside the verdict, in a real browser and by keyboard alone: ranking, ratings, marked passages, an edit; payloads in each."""

import dataclasses

import pytest
import sqlalchemy as sa
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from served import Rater, wait
from test_web_rating import TARGETS
from watching import active
from web_example import pairs, sets
from web_payloads import PAYLOADS

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.schema import Assignment, Draft
from fairlead.web import importing, projects
from fairlead.web.answers import texts_on_screen

CRITERIA = (
    projects.Criterion(name="correct", question="Is it right?", low="wrong", high="right"),
    projects.Criterion(name="brief", question="Is it short?", points=3),
)
WRITE = """
const box = [...document.querySelectorAll(arguments[0])].find((each) => each.getClientRects().length);
box.value = arguments[1]; box.dispatchEvent(new Event('input', {bubbles: true}));
"""
ALL = projects.Rules(ties="allowed", both_bad=True, criteria=CRITERIA, spans=True, edits=True)


def qualities(served, assignment_id):
    """Of the replies from left to right."""
    with served.database.read() as rows:
        return [text.split()[1] for text in texts_on_screen(rows, rows.get(Assignment, assignment_id))]


def test_a_ranking_by_keyboard_alone(driver, served):
    served.project(sets(3, size=4))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    for _ in range(2):
        ann.later()
        before, found = ann.assignment, qualities(served, ann.assignment)
        for quality in "0123":
            ann.press(str(found.index(quality) + 1))
        ann.press("\ue007")
        wait("the next item", lambda before=before: ann.assignment != before)
    wait("two votes", lambda: len(served.verdicts()) == 2)
    for verdict in served.verdicts():
        with served.database.read() as rows:
            shown = rows.get(Assignment, verdict.assignment_id).shown
            texts = texts_on_screen(rows, rows.get(Assignment, verdict.assignment_id))
        assert [texts[shown.index(str(tied[0]))].split()[1] for tied in verdict.ranking] == ["0", "1", "2", "3"]
    ann.later()
    ann.press("3", "=", "1", "\ue007")
    assert "2, 4 have none" in driver.find_element("id", "alert").text
    ann.press("2", "2", "4", "2")  # placed, taken out, behind
    order = driver.find_element("css selector", ".order").text
    assert order == "3 = 1 > 4 > 2"
    button = driver.find_element("css selector", "[data-put='1']")
    driver.execute_script("arguments[0].focus()", button)
    ActionChains(driver).key_down(Keys.ALT).send_keys(Keys.ARROW_UP).key_up(Keys.ALT).perform()
    assert driver.find_element("css selector", ".order").text == "3 = 1 > 2 > 4"
    ann.press("s", "1")
    wait("a skip", lambda: [v.verdict for v in served.verdicts()][-1:] == ["skip"])
    assert ann.complaints() == []


def test_a_ranking_by_pointer_on_a_phone_needs_no_drag(driver, served):
    served.project(sets(1, size=3))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True})  # fmt: skip
    driver.refresh()
    wait("the page", lambda: ann.assignment)
    ann.later()
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    assert driver.execute_script(TARGETS) == []
    for place in (2, 0, 1):
        driver.find_element("css selector", f"[data-put='{place}']").click()
    driver.find_element("css selector", "[data-place='1'][data-move='-1']").click()
    assert driver.find_element("css selector", ".order").text == "3 > 2 > 1"
    driver.find_element("css selector", ".send").click()
    wait("the vote", lambda: len(served.verdicts()) == 1)
    with served.database.read() as rows:
        shown = rows.get(Assignment, served.verdicts()[0].assignment_id).shown
    assert served.verdicts()[0].ranking == [[int(shown[2])], [int(shown[1])], [int(shown[0])]]


def test_everything_by_keyboard_and_all_of_it_comes_back_with_undo(driver, served):
    served.project(pairs(3), rules=ALL)
    served.join("ann")
    ann = Rater(driver, served, "ann")
    ann.later()
    first = ann.assignment
    ann.press("1", "\ue007")
    assert "Not rated yet: correct, Left reply" in driver.find_element("id", "alert").text
    ann.press("r", "5", "2", "3", "1")  # left and right by the first criterion, then by the second
    ann.press("h", Keys.ARROW_RIGHT, "+")
    assert "Marked as good" in driver.find_element("css selector", ".said").text
    ann.press(Keys.ESCAPE)
    ann.press("e", "Well, ", Keys.ESCAPE)
    wait("the draft", lambda: drafts(served, first).get("edit_text", "").startswith("Well, "))
    ann.press("\ue007")
    wait("the next item", lambda: ann.assignment != first)
    ann.until_saved()
    (verdict,) = served.verdicts()
    with served.database.read() as rows:
        shown, texts = rows.get(Assignment, first).shown, texts_on_screen(rows, rows.get(Assignment, first))
    left, right = int(shown[0]), int(shown[1])
    assert {name: (given[left], given[right]) for name, given in verdict.criteria.items()} == {
        "correct": (5, 2),
        "brief": (3, 1),
    }
    (span,) = verdict.spans
    assert (span["completion"], span["label"], texts[0][span["start"] : span["end"]].strip()) == (
        left,
        "good",
        texts[0].split()[0],
    )
    assert (verdict.edited, verdict.edited_text) == (left, f"Well, {texts[0]}")
    ann.later()
    ann.press("u")
    wait("the item", lambda: ann.assignment == first)
    ann.later()
    ann.press("\ue007")
    wait(
        "the same vote",
        lambda: len(served.verdicts()) == 1 and served.verdicts()[0].event_number > verdict.event_number,
    )
    ann.until_saved()
    for name in ("verdict", "strength", "criteria", "spans", "edited", "edited_text"):
        assert getattr(served.verdicts()[0], name) == getattr(verdict, name), name
    driver.get(f"{driver.current_url.split('?')[0]}?a={first}")
    wait("the page", lambda: ann.assignment == first)
    assert len(driver.find_elements("css selector", ".passages li")) == 1
    assert driver.find_element("css selector", ".rewrite").get_attribute("value") == verdict.edited_text
    assert ann.complaints() == []


def drafts(served, assignment_id):
    with served.database.read() as rows:
        found = rows.scalar(sa.select(Draft).where(Draft.assignment_id == assignment_id))
        return found.fields if found else {}


def test_an_edit_of_the_worse_reply_is_not_sent(driver, served):
    served.project(pairs(1), rules=dataclasses.replace(ALL, criteria=()))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    ann.later()
    ann.press("e")
    assert "Choose the best reply first" in driver.find_element("css selector", ".hint").text
    ann.press("1", "e", "x", Keys.ESCAPE, "7", "\ue007")
    assert "not the one that you put first" in driver.find_element("id", "alert").text and served.verdicts() == []
    driver.find_element("css selector", "[data-act=unedit]").click()
    ann.press("\ue007")
    wait("the vote", lambda: [v.edited for v in served.verdicts()] == [None])


ODD = "a\u202eb \U0001f600\U0001f600 \u00e9t\u00e9\r\n  two\u200bwords <b>bold</b> &amp; end"


def test_offsets_are_those_of_the_stored_text(driver, served):
    """Direction marks, astral characters, line ends that browsers drop and mark-up before the passage do not move it."""
    prompt = Prompt(messages=(Message(role="user", content="q"),))
    item = importing.NewItem.of(
        prompt, [Completion(prompt_id=prompt.id, text=f"{ODD} {i}", model="m") for i in range(2)]
    )
    served.project([item], rules=dataclasses.replace(ALL, criteria=()))
    served.join("ann")
    ann = Rater(driver, served, "ann")
    ann.later()
    ann.press("1", "h")
    for words in ("bold", "\u00e9t\u00e9", "b \U0001f600"):
        driver.execute_script(
            """
          const pre = document.querySelector('.written'), walk = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
          for (let node = walk.nextNode(); node; node = walk.nextNode()) { const at = node.data.indexOf(arguments[0]); if (at < 0) continue;
            const range = document.createRange(); range.setStart(node, at); range.setEnd(node, at + arguments[0].length);
            getSelection().removeAllRanges(); getSelection().addRange(range); break; }
        """,
            words,
        )
        ann.press("-")
    quotes = [q.text for q in driver.find_elements("css selector", ".passages q")]
    assert quotes == ["b \U0001f600", "\u00e9t\u00e9", "bold"]
    ann.press("\ue007")
    wait("the vote", lambda: len(served.verdicts()) == 1)
    with served.database.read() as rows:
        text = texts_on_screen(rows, rows.get(Assignment, served.verdicts()[0].assignment_id))[0]
    found = [text[span["start"] : span["end"]] for span in served.verdicts()[0].spans]
    assert found == ["b \U0001f600", "\u00e9t\u00e9", "bold"] and text.startswith(ODD)


@pytest.mark.parametrize("start", range(0, len(PAYLOADS), 40))
def test_payloads_in_the_new_fields_stay_text(driver, served, start):
    """Names and questions of criteria, what their ends mean, replies as written and to be edited, notes, edits."""
    some = PAYLOADS[start : start + 40]
    texts, ends = [p for p in some if p.strip() and len(p) < 400], iter([p[:40] for p in some])
    asked = tuple(
        projects.Criterion(name=f"c{i}", question=texts[i][:200], low=next(ends), high=next(ends)) for i in range(3)
    )
    found = []
    for i, payload in enumerate(texts):
        prompt = Prompt(messages=(Message(role="user", content=f"q{i}"),))
        found.append(
            importing.NewItem.of(
                prompt, [Completion(prompt_id=prompt.id, text=f"{payload} {k}", model="m") for k in range(2)]
            )
        )
    project = served.project(found, name=f"p{start}", rules=dataclasses.replace(ALL, criteria=asked))
    served.join("lea", "lead")
    lea = Rater(driver, served, "lea")
    driver.get(f"{served.url}/p/{project.id}/rate")
    for payload in texts[:6]:
        lea.later()
        clean(driver, served)
        lea.press("1", "r", *"111111", "h", Keys.ARROW_RIGHT, "-")
        driver.execute_script(WRITE, ".passages input", payload)
        lea.press(Keys.ESCAPE, "e")
        driver.execute_script(WRITE, ".rewrite", f"{payload} edited")
        clean(driver, served)
        before = lea.assignment
        lea.press(Keys.ESCAPE, "\ue007")
        wait("the next item", lambda before=before: lea.assignment != before)
    for path in (
        f"/p/{project.id}/mine",
        f"/p/{project.id}/guideline",
        f"/p/{project.id}/guideline/edit",
        f"/p/{project.id}",
    ):
        driver.get(f"{served.url}{path}")
        clean(driver, served)
    wait("all votes", lambda: len(served.verdicts()) == 6)
    assert [v.edited_text for v in served.verdicts()] == [f"{payload} edited" for payload in texts[:6]]
    assert [v.spans[0]["note"] for v in served.verdicts()] == [payload.replace("\n", "") for payload in texts[:6]]
    assert [row for row in lea.complaints() if "Content Security Policy" in row] == []


def clean(driver, served):
    """Nothing ran, nothing was asked of another host, nothing that runs or loads is in the page."""
    assert driver.execute_script("return window.pwned === undefined") and active(driver) == []
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith((served.url, "data:,")) for name in loaded), loaded
