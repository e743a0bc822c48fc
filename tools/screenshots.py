"""Draw the report of a run to docs/screens: light, dark and on a phone.

Needs the system's Chromium and its driver (Debian: `apt-get install chromium chromium-driver fonts-dejavu-core`). The browser is started
without network services and with an empty profile. A picture that is too large to keep in a repository is cut at the bottom.

Example:
    python tools/screenshots.py --report runs/tiny/report.html
"""

import argparse
import base64
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selenium import webdriver

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
MAX_BYTES = 400_000
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-device-scale-factor=1", "--hide-scrollbars",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One picture. Width and height are in CSS pixels."""

    name: str
    scheme: str
    """prefers-color-scheme: light or dark."""
    width: int
    height: int
    scale: float = 1.0
    """Device pixels a CSS pixel."""


SHOTS = (
    Shot(name="light", scheme="light", width=1160, height=2100),
    Shot(name="dark", scheme="dark", width=1160, height=2100),
    Shot(name="phone", scheme="light", width=390, height=2300),
)


@contextlib.contextmanager
def browser(*, log_network: bool = False) -> Iterator[webdriver.Chrome]:
    """Start a browser with an empty profile; both are gone afterwards.

    Args:
        log_network: keep every request for `get_log("performance")`.
    """
    with tempfile.TemporaryDirectory(prefix="screens-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        if log_network:
            options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=str(DRIVER)))
        try:
            yield driver
        finally:
            driver.quit()


def open_page(driver: webdriver.Chrome, page: Path | str, shot: Shot) -> None:
    """Load a page (a file or an address) as a person with this screen and colour scheme would."""
    metrics = {"width": shot.width, "height": 900, "deviceScaleFactor": shot.scale, "mobile": shot.width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": shot.scheme}]}
    )
    driver.get(page if isinstance(page, str) else page.resolve().as_uri())


def take(driver: webdriver.Chrome, shot: Shot) -> bytes:
    """Return the top of the page as PNG, cut until it is small enough."""
    page_height = int(driver.execute_script("return document.documentElement.scrollHeight"))
    height = min(shot.height, page_height)
    while True:
        clip = {"x": 0, "y": 0, "width": shot.width, "height": height, "scale": shot.scale}
        reply = driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"format": "png", "clip": clip, "captureBeyondViewport": True}
        )
        picture = base64.b64decode(reply["data"])
        if len(picture) <= MAX_BYTES or height < 400:
            return picture
        height = int(height * 0.9)


def newest_report() -> Path | None:
    """Return the report written last under runs/."""
    return max((ROOT / "runs").glob("*/report.html"), key=lambda path: path.stat().st_mtime, default=None)


def main() -> int:
    """Draw all pictures; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--report", type=Path, default=None, help="page to draw; default: the newest runs/*/report.html"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "screens", help="folder for the pictures")
    options = parser.parse_args()
    report = options.report or newest_report()
    if report is None or not report.is_file():
        print("No report found: run `fairlead quickstart` first or name one with --report.", file=sys.stderr)
        return 1
    for program in (CHROMIUM, DRIVER):
        if not program.exists():
            print(
                f"{program} is missing. Install it: apt-get install chromium chromium-driver fonts-dejavu-core.",
                file=sys.stderr,
            )
            return 1
    options.out.mkdir(parents=True, exist_ok=True)
    with browser() as driver:
        for shot in SHOTS:
            open_page(driver, report, shot)
            path = options.out / f"report-{shot.name}.png"
            path.write_bytes(take(driver, shot))
            print(f"{path} {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
