"""Draw every page of the rating application, with made-up raters: light, dark and on a phone.

Pictures that the documentation shows go to docs/screens, all others to docs/screens/all, which git ignores.

Example:
    python tools/annotation_screens.py
    python tools/annotation_screens.py --only rate --only overview
"""

import argparse
import base64
import tempfile
import time
import weakref
from pathlib import Path

import screenshots
from annotation_pages import PAGES, PASSWORD, Page, fill, serve
from selenium import webdriver

from fairlead.store.annotation.database import open_database

SIZES = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}
_IS_BEFORE = "return Boolean(document.isBefore) || document.readyState !== 'complete'"
_SIZE = "return [innerWidth, innerHeight]"
_DRAWN = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
_LOGGED_IN: weakref.WeakKeyDictionary[webdriver.Chrome, tuple[str, str]] = weakref.WeakKeyDictionary()


def log_in(driver: webdriver.Chrome, url: str, name: str) -> None:
    """As a person would; nobody is logged in when the name is empty."""
    driver.get(f"{url}/login")
    driver.delete_all_cookies()
    if not name:
        return
    driver.get(f"{url}/login")
    driver.find_element("name", "name").send_keys(name)
    driver.find_element("name", "password").send_keys(PASSWORD, "\ue007")
    end = time.monotonic() + 60
    while "/login" in driver.current_url:
        if time.monotonic() > end:
            raise SystemExit(f"{name} could not log in")
        time.sleep(0.05)


def screen(driver: webdriver.Chrome, *, width: int, height: int, scheme: str) -> None:
    """Make the browser's window this large, dark or light, and still: a colour that is on its way would be measured and drawn."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    end = time.monotonic() + 10
    while driver.execute_script(_SIZE) != [width, height] and time.monotonic() < end:
        time.sleep(0.02)


def show(driver: webdriver.Chrome, url: str, page: Page, ids: dict[str, str]) -> None:
    """Load a page and bring it into its state; returns when that is drawn."""
    driver.get(url + page.path.format(**ids))
    if page.then:
        driver.execute_script(f"document.isBefore = true; {page.then}")
        end = time.monotonic() + 60
        while "submit()" in page.then and driver.execute_script(_IS_BEFORE) and time.monotonic() < end:
            time.sleep(0.02)
        driver.execute_async_script(_DRAWN)


def visit(driver: webdriver.Chrome, url: str, ids: dict[str, str], page: Page, *, width: int, scheme: str) -> None:
    """Look at a page as the person who would, who logs in where somebody else was."""
    if _LOGGED_IN.get(driver) != (url, page.who):
        log_in(driver, url, page.who)
        _LOGGED_IN[driver] = (url, page.who)
    screen(driver, width=width, height=900, scheme=scheme)
    show(driver, url, page, ids)


def take(driver: webdriver.Chrome, path: Path, size: str) -> None:
    """One picture of the top of the page that is shown."""
    width = SIZES[size][0]
    time.sleep(0.3)
    page_height = int(driver.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": min(page_height, 1100 if width > 600 else 1700), "scale": 1}
    reply = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
    )
    path.write_bytes(base64.b64decode(reply["data"]))
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def draw(driver: webdriver.Chrome, url: str, ids: dict[str, str], out: Path, only: list[str]) -> None:
    """Every page in every size."""
    for page in sorted(PAGES, key=lambda page: page.who):
        if only and page.name not in only:
            continue
        for size, (width, scheme) in SIZES.items():
            visit(driver, url, ids, page, width=width, scheme=scheme)
            take(driver, (out if size in page.kept else out / "all") / f"annotate-{page.name}-{size}.png", size)


def main() -> None:
    """Fill a database, serve it, look at it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=screenshots.ROOT / "docs" / "screens", help="folder for the pictures"
    )
    parser.add_argument("--only", action="append", default=[], help="name of a page; all when none is named")
    options = parser.parse_args()
    (options.out / "all").mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_database(Path(folder) / "votes.db", is_durable=False) as database,
    ):
        ids = fill(database)
        with serve(database) as url, screenshots.browser() as driver:
            draw(driver, url, ids, options.out, options.only)


if __name__ == "__main__":
    main()
