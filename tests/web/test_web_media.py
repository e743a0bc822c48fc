"""What people set in their system: forced colours, no motion, large text, wide spacing; on the rating page and on those that share its styles."""

import dataclasses

import annotation_screens
import pytest
from annotation_pages import PAGES

PAGE = next(page for page in PAGES if page.name == "rate")
SPACED = """
for (const e of document.querySelectorAll('body *')) {
  e.style.setProperty('line-height', '1.5', 'important'); e.style.setProperty('letter-spacing', '0.12em', 'important');
  e.style.setProperty('word-spacing', '0.16em', 'important');
  if (e.localName === 'p') e.style.setProperty('margin-bottom', '2em', 'important');
}
"""
CUT = """
return [...document.querySelectorAll('button, .button, .option span, h1, h2, legend, .chip, label, dt, dd, summary, .bar *')]
  .filter((e) => e.getClientRects().length && !e.closest('.hush, .skip') && getComputedStyle(e).overflow !== 'visible'
    && (e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1))
  .concat([...document.querySelectorAll('button, .button, .option span')]
    .filter((e) => e.getClientRects().length && e.scrollWidth > e.clientWidth + 1))
  .map((e) => e.outerHTML.slice(0, 90));
"""
OVERLAP = """
const boxes = [...document.querySelectorAll('.prompt, .tabs, .panes, fieldset, .why, .verdict .buttons')]
  .filter((e) => e.getClientRects().length).map((e) => [e.className || e.tagName, e.getBoundingClientRect()]);
return boxes.slice(1).map(([, box], i) => [boxes[i][0], Math.round(boxes[i][1].bottom - box.top)]).filter(([, over]) => over > 1);
"""


MIDDLES = """
return [...document.querySelectorAll('.bar a, .bar b, .bar button, .bar .who, .bar .chip')].filter((e) => e.getClientRects().length)
  .map((e) => { const box = e.getBoundingClientRect(); return (box.top + box.bottom) / 2; });
"""


def media(driver, **features: str) -> None:
    """As if the system were set so."""
    named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})


def test_forced_colours_leave_what_is_chosen_and_pressed_visible(driver, filled):
    annotation_screens.visit(driver, *filled, PAGE, width=1280, scheme="light")
    media(driver, forced_colors="active")
    try:
        driver.execute_script("document.querySelectorAll('.option input')[1].checked = true")
        looks = "return [...document.querySelectorAll('.option span')].map((e) => getComputedStyle(e).backgroundColor)"
        first, second, *_ = driver.execute_script(looks)
        assert first != second
        pressed = "return [...document.querySelectorAll('[aria-pressed]')].filter((e) => e.getClientRects().length).map((e) => [e.getAttribute('aria-pressed'), getComputedStyle(e).outlineStyle])"  # fmt: skip  # noqa: E501
        assert {("true", "solid"), ("false", "none")} == {tuple(row) for row in driver.execute_script(pressed)}
    finally:
        media(driver)


@pytest.mark.parametrize(("width", "height"), [(640, 450), (853, 600), (1280, 720), (1280, 500), (390, 844)])
def test_large_text_neither_overlaps_nor_hides_the_verdict(driver, filled, width, height):
    """A window of 1280 x 900 at 200 % and 150 %, a laptop's, a low one, a phone: every part below the one before, all within reach."""
    annotation_screens.visit(driver, *filled, PAGE, width=width, scheme="light")
    annotation_screens.screen(driver, width=width, height=height, scheme="light")
    assert driver.execute_script(OVERLAP) == []
    reached = """const e = document.querySelector('.send'); e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();
      return document.elementFromPoint(b.left + 5, b.top + 5) === e && b.bottom <= innerHeight"""
    assert driver.execute_script(reached)
    read = "return [...document.querySelectorAll('.pane.is-front .body')].map((e) => e.clientHeight)"
    assert min(driver.execute_script(read)) >= 150


MOVING = """
return [...document.querySelectorAll('*')].filter((e) => {
  const style = getComputedStyle(e);
  return style.transitionDuration !== '0s' || style.animationName !== 'none' || style.scrollBehavior === 'smooth';
}).map((e) => e.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize("page", [page for page in PAGES if page.kept], ids=lambda page: page.name)
def test_nothing_moves_for_who_wants_no_motion_and_wider_spacing_of_text_cuts_nothing_off(driver, filled, page):
    """WCAG 1.4.12, on a desktop and on a phone."""
    annotation_screens.visit(driver, *filled, page, width=1280, scheme="light")  # which asks for no motion
    assert driver.execute_script(MOVING) == []
    driver.execute_script(SPACED)
    for width in (1280, 390):
        annotation_screens.screen(driver, width=width, height=900, scheme="light")
        assert driver.execute_script(CUT) == [], f"{width} pixels wide"
        assert driver.execute_script("return document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("name", ["rate", "overview", "write-nothing"])
def test_the_bar_of_a_lead_is_one_line_on_a_desktop_with_as_much_progress_as_there_can_be(driver, filled, name):
    """Who rates as a lead has the most in it: the links of raters, the state of the votes, the way out."""
    page = dataclasses.replace(next(page for page in PAGES if page.name == name), who="Lea")
    annotation_screens.visit(driver, *filled, page, width=1280, scheme="light")
    driver.execute_script(
        "const p = document.getElementById('progress'); if (p) p.textContent = '1234 done, up to 1000 left, about 120 min';"
        "document.querySelector('.bar .who').textContent = 'Leonie Baumgartner-Schmidt'"
    )
    middles = driver.execute_script(MIDDLES)
    assert len(middles) > 6
    assert max(middles) - min(middles) < 8, middles
    assert driver.execute_script("return document.documentElement.scrollWidth") == 1280
