"""Every page, dark and light, on a desktop and on a phone: axe-core finds nothing, nothing is cut off, everything can be hit."""

from pathlib import Path

import annotation_pages
import annotation_screens
import pytest
from annotation_pages import PAGES
from annotation_screens import visit
from axe import COLOUR_RULES, look

import fairlead.report
import fairlead.web
from fairlead.store.annotation.database import open_database
from fairlead.web.app import make_app
from fairlead.web.place import Place

FORMS = """
const shown = [...document.querySelectorAll('main form')].filter((e) => e.getClientRects().length);
return [...new Set(shown.map((e) => e.action.replace(/.*[/]/, '')))].sort();
"""
SMALL = """
const seen = (e) => e.getClientRects().length && getComputedStyle(e).visibility === 'visible' && !e.closest('.hush');
const own = (e) => { const b = (e.labels && e.labels.length ? e.labels[0] : e).getBoundingClientRect(); return [b.width, b.height]; };
return [...document.querySelectorAll("button, input:not([type=hidden]), select, textarea, summary, a.button, .bar a")]
  .filter(seen).map((e) => [e.outerHTML.slice(0, 90), ...own(e).map(Math.round)])
  .filter(([, width, height]) => Math.min(width, height) < 44);
"""


def test_every_page_of_the_router_is_in_the_list(votes_db):
    with open_database(votes_db) as database:
        app = make_app(database, place=Place.of(host="127.0.0.1", port=1, url=None), secret=b"s" * 32)
    missing = annotation_pages.page_routes(app) - {page.route for page in PAGES}
    assert not missing, f"add to PAGES of tools/annotation_pages.py: {', '.join(sorted(missing))}"
    gone = {page.route for page in PAGES} - annotation_pages.page_routes(app)
    assert not gone, f"PAGES of tools/annotation_pages.py names routes that are gone: {', '.join(sorted(gone))}"


def test_dark_differs_in_nothing_but_colours():
    """So that of axe's rules those on colours are enough there: `light-dark()` takes only colours."""
    folders = (Path(package.__file__).parent / "static" for package in (fairlead.web, fairlead.report))
    styles = "".join(path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.rglob("*.css")))
    assert "light-dark(" in styles and "prefers-color-scheme" not in styles


BESIDE = """
return [...document.querySelectorAll('body *')]
  .filter((e) => e.getClientRects().length && !e.closest('.scroll, .hush, pre, math, .prose table, .skip'))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 90));
"""
PRESSED_BESIDE = """
return [...document.querySelectorAll('.rows :is(a, button, input)')].filter((e) => e.getClientRects().length)
  .filter((e) => e.getBoundingClientRect().right > innerWidth).map((e) => e.outerHTML.slice(0, 90));
"""
MARKS = "return [...document.querySelectorAll('.data :is(th, td)')].map((e) => e.innerText).filter((text) => text.includes('**'))"


@pytest.mark.parametrize("page", sorted(PAGES, key=lambda page: page.who), ids=lambda page: page.name)
def test_axe_finds_nothing_all_can_be_hit_and_nothing_is_beside_the_screen(driver, filled, page):
    """On a desktop and on a phone, light and dark; then 320 pixels wide, which is a window of 1280 at 400 % (WCAG 1.4.10)."""
    forms: list[list[str]] = []
    for width in (1280, 390):
        visit(driver, *filled, page, width=width, scheme="light")
        forms.append(driver.execute_script(FORMS))
        found = look(driver)
        annotation_screens.screen(driver, width=width, height=900, scheme="dark")
        found += look(driver, only=COLOUR_RULES)
        assert found == [], f"{page.name}, {width} pixels wide:\n" + "\n".join(found)
        assert driver.execute_script(SMALL) == [], f"{page.name}, {width} pixels wide: less than 44 pixels"
    assert forms[0] == forms[1], f"{page.name}: forms that a phone does not show"
    annotation_screens.screen(driver, width=320, height=900, scheme="light")
    assert driver.execute_script(BESIDE) == [], "tables of data scroll within themselves"
    assert driver.execute_script("return document.documentElement.scrollWidth") == 320
    assert driver.execute_script(PRESSED_BESIDE) == [], (
        "lists whose rows have something to press do not scroll sideways"
    )
    assert driver.execute_script(MARKS) == [], "lists show words, not the marks of Markdown"


def test_the_way_back_from_an_edit_is_in_sight(driver, filled):
    """Also where criteria leave little height to the texts."""
    edit = next(page for page in PAGES if page.name == "rate-edit")
    visit(driver, *filled, edit, width=1280, scheme="light")
    for height in (900, 720):
        annotation_screens.screen(driver, width=1280, height=height, scheme="light")
        button, body = (
            driver.execute_script(
                f"return document.querySelector('.is-rewritten{selector}').getBoundingClientRect().bottom"
            )
            for selector in (" [data-act=unedit]", "")
        )
        assert 0 < button <= body, f"{height} pixels high"
