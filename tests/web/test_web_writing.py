"""Writing and reviewing in a real browser: by keyboard alone, drafts through a reload and a lost network, phone, payloads."""

import pytest
import sqlalchemy as sa
from served import Rater, is_loaded, later, wait
from test_web_demonstrations import DRAFT, wanted
from web_payloads import PAYLOADS

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.written import Demonstration, WritingTask
from fairlead.web import projects
from fairlead.web.demonstrations import transfer

CTRL_ENTER, ESCAPE = "\ue009\ue007\ue000", "\ue00c"


@pytest.fixture
def writing(served):
    made = projects.create_project(
        served.database, "writing", kind="demonstration", votes_per_item=1, calibration_items=0
    )
    transfer.add_wanted(served.database, made.id, wanted(2))
    return made


def states(served):
    with served.database.read() as rows:
        return sorted(rows.scalars(sa.select(Demonstration.state)))


def task(driver):
    return driver.execute_script("const s = document.getElementById('stage'); return s ? s.dataset.task : ''")


def to_the_next(driver, before):
    wait("the next page", lambda: is_loaded(driver) and task(driver) != before and is_loaded(driver))
    later(driver)


def test_written_sent_back_written_and_accepted_by_keyboard_alone(driver, served, writing):
    served.join("ann")
    served.join("bob")
    ann = Rater(driver, served, "ann")
    wait("the field", lambda: driver.switch_to.active_element.get_attribute("id") == "text")
    ann.later()
    first = task(driver)
    ann.press("One and one are two, and that is all.", CTRL_ENTER)
    to_the_next(driver, first)
    assert states(served) == ["open", "written"]
    bob = Rater(driver, served, "bob")
    bob.later()
    second = task(driver)
    bob.press("b")
    assert driver.switch_to.active_element.get_attribute("id") == "reason"
    bob.press("Say **why**.", CTRL_ENTER)
    to_the_next(driver, second)
    assert states(served) == ["open", "returned"]
    ann = Rater(driver, served, "ann")
    wait("the field", lambda: driver.switch_to.active_element.get_attribute("id") == "text")
    ann.later()
    third = task(driver)
    ann.press(ESCAPE, "s", "\t", "\ue007")  # the conversation that ann has already: skip it with the first reason
    to_the_next(driver, third)
    assert "Say why." in driver.find_element("css selector", ".note").text
    fourth = task(driver)
    ann.press(" Because so it is.", CTRL_ENTER)
    to_the_next(driver, fourth)
    bob = Rater(driver, served, "bob")
    bob.later()
    wait("bob's page", lambda: task(driver))
    for _ in range(2):
        if driver.find_elements("id", "accept"):
            break
        now = task(driver)
        bob.press("Two.", CTRL_ENTER)
        to_the_next(driver, now)
    now = task(driver)
    bob.press("e")
    bob.press("!", CTRL_ENTER)
    to_the_next(driver, now)
    wait("the edit", lambda: "accepted" in states(served))
    with served.database.read() as rows:
        found = rows.scalar(sa.select(Demonstration).where(Demonstration.state == "accepted"))
    assert found.is_edited and found.text in ("One and one are two, and that is all. Because so it is.!",)
    assert found.active_ms >= 400 and bob.complaints() == []


def test_a_draft_is_taken_by_key_and_the_text_survives_a_reload_and_a_lost_network(driver, served, writing):
    served.join("ann")
    ann = Rater(driver, served, "ann")
    wait("the field", lambda: driver.switch_to.active_element.get_attribute("id") == "text")
    ann.later()
    now = task(driver)
    ann.press("Mine.", ESCAPE, "d", "\ue007")
    text = "return document.getElementById('text').value"
    assert driver.execute_script(text) == f"Mine.\n\n{DRAFT}"

    def saved():
        with served.database.read() as rows:
            found = rows.get(WritingTask, now)
            return (found.text, found.took_draft)

    wait("the save", lambda: saved() == (f"Mine.\n\n{DRAFT}", True))
    ann.offline(True)
    ann.press(" More.")
    wait("the chip", lambda: "kept in this browser" in ann.chip)
    ann.offline(False)
    driver.refresh()
    wait("the page", lambda: task(driver) == now and is_loaded(driver))
    assert driver.execute_script(text) == f"Mine.\n\n{DRAFT} More."
    ann.later()
    ann.offline(True)
    ann.press(CTRL_ENTER)
    wait("the chip", lambda: "kept here" in ann.chip)
    assert states(served) == ["open", "open"]
    ann.offline(False)
    to_the_next(driver, now)
    with served.database.read() as rows:
        found = rows.scalar(sa.select(Demonstration).where(Demonstration.state == "written"))
    assert (found.text, found.is_drafted) == (f"Mine.\n\n{DRAFT} More.", True)


def test_writing_works_without_scripts(driver, served, writing):
    served.join("ann")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.delete_all_cookies()
        driver.get(f"{served.url}/login")
        driver.find_element("name", "name").send_keys("ann")
        driver.find_element("name", "password").send_keys("a long password", "\ue007")
        wait("the page", lambda: driver.find_elements("id", "text"))
        driver.find_element("css selector", "#draft summary").click()
        driver.find_element("id", "take").click()
        wait(
            "the draft", lambda: driver.find_elements("xpath", "//textarea[@id='text'][contains(., 'seven times six')]")
        )
        driver.find_element("css selector", ".primary").click()
        wait("the reply", lambda: states(served) == ["open", "written"])
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_payloads_in_prompt_draft_reply_reason_and_edit_stay_text(driver, served):
    everything = "\n\n".join(PAYLOADS)
    made = projects.create_project(
        served.database, "payloads", kind="demonstration", votes_per_item=1, calibration_items=0
    )
    prompt = Prompt(messages=(Message(role="user", content=everything),))
    draft = Completion(prompt_id=prompt.id, text=everything, model="m")
    transfer.add_wanted(served.database, made.id, [transfer.Wanted(prompt=prompt, draft=draft)])
    for name, role in (("ann", "rater"), ("bob", "rater"), ("lea", "lead")):
        served.join(name, role)
    driver.get_log("browser")

    def fill(field, text, button):
        clean(driver, served)
        driver.execute_script("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        driver.execute_script(f"document.getElementById('{field}').value = arguments[0]", text)
        later(driver)
        driver.execute_script("window.before = true")
        driver.find_element("css selector", button).click()
        wait(
            "another page", lambda: driver.execute_script("return document.readyState === 'complete' && !window.before")
        )
        clean(driver, served)

    Rater(driver, served, "ann")
    fill("text", everything, ".writer .primary")
    Rater(driver, served, "bob")
    fill("reason", everything[:2000], "#return button")
    Rater(driver, served, "ann")
    driver.get(f"{served.url}/p/{made.id}/written")
    clean(driver, served)
    driver.get(f"{served.url}/p/{made.id}/write")
    fill("text", f"{everything} again", ".writer .primary")
    bob = Rater(driver, served, "bob")
    fill("text", f"{everything} changed", "#edit button")
    wait("the edit", lambda: states(served) == ["accepted"])
    assert [row for row in bob.complaints() if "Content Security Policy" in row] == []


def clean(driver, served):
    """Nothing ran, nothing was asked of another host, nothing that runs or loads is in the page."""
    assert driver.execute_script("return window.pwned === undefined")
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert all(name.startswith((served.url, "data:,")) for name in loaded), loaded
    bad = "img, svg, iframe, object, embed, style, script, [onclick], [onerror], [onload]"
    assert (
        driver.execute_script("return document.querySelector('main').querySelectorAll(arguments[0]).length", bad) == 0
    )
