"""What the browser tests do with a running application."""

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Project, Verdict
from fairlead.web import importing, people, projects

PASSWORD = "a long password"
HELD = (Keys.CONTROL, Keys.SHIFT, Keys.ALT)
PREPARED = """
const names = performance.getEntriesByType('resource').map((entry) => entry.name);
return names.some((name) => name.includes('/next?') && name.includes(arguments[0]));
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server and its database."""

    database: Database
    url: str

    def project(self, found: list, **changes: Any) -> Project:
        """A project of these pairs, one vote each, ties and both bad allowed."""
        rules = changes.pop("rules", projects.Rules(ties="allowed", both_bad=True))
        counts = {"votes_per_item": 1, "calibration_items": 0} | changes
        made = projects.create_project(self.database, counts.pop("name", "test"), rules=rules, **counts)
        importing.add_items(self.database, made.id, found)
        return made

    def join(self, name: str, role: str = "rater") -> None:
        """Let a person in."""
        people.accept_invite(self.database, people.make_invite(self.database, role=role), name=name, password=PASSWORD)

    def verdicts(self) -> list[Verdict]:
        """All that is stored, in the order of their events."""
        with self.database.read() as rows:
            return list(rows.scalars(sa.select(Verdict).order_by(Verdict.event_number)))


def wait(what: str, is_true: Any, *, limit_s: float = 60.0) -> None:
    """Wait until something is so. While the browser changes pages, elements are missing or of the page before: that is not so yet."""
    end, problem = time.monotonic() + limit_s, None
    while True:
        try:
            if is_true():
                return
            problem = None
        except WebDriverException as error:
            problem = error
        if time.monotonic() >= end:
            raise AssertionError(f"waited {limit_s} s in vain for {what}") from problem
        time.sleep(0.03)


def is_loaded(driver: Any) -> bool:
    """Is the page there with everything it loads, its scripts run?"""
    return driver.execute_script("return document.readyState === 'complete'")


def is_at(driver: Any, part: str) -> bool:
    """Is a page with this in its address there, with everything it loads?"""
    return part in driver.current_url and is_loaded(driver)


def later(driver: Any) -> None:
    """Half a second passes on the clock of the page, which ignores what is pressed in the first 0.4 s of an item."""
    driver.execute_script("const now = performance.now.bind(performance); performance.now = () => now() + 500")


class Rater:
    """Somebody at the keyboard."""

    def __init__(self, driver: Any, served: Served, name: str) -> None:
        self.driver, self.served = driver, served
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        driver.get(f"{served.url}/login")
        driver.delete_all_cookies()
        driver.execute_script("localStorage.clear()")
        driver.get(f"{served.url}/login")
        wait("the focus", lambda: self.has_focus("[name=name]"))  # it comes with a frame, which may be after the load
        self.press(name)
        self.press("\t", PASSWORD, "\ue007")
        wait("the start page", lambda: "/login" not in driver.current_url and is_loaded(driver))

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus, as a keyboard sends them; one that is held (Ctrl) is held to the end of its text."""
        for key in keys:
            chain, held = ActionChains(self.driver), [character for character in key if character in HELD]
            for character in held:
                chain.key_down(character)
            chain.send_keys("".join(character for character in key if character not in (*HELD, Keys.NULL)))
            for character in held:
                chain.key_up(character)
            chain.perform()

    @property
    def assignment(self) -> str:
        """What is on the screen of a page whose scripts have run; empty when nothing is."""
        return self.driver.execute_script(
            "const i = document.readyState === 'complete' && document.querySelector('.item'); return (i && i.dataset.assignment) || ''"
        )

    @property
    def chip(self) -> str:
        """What the page says of the safety of votes."""
        return self.driver.execute_script("return document.getElementById('saved').textContent")

    def until_saved(self) -> None:
        """Wait until the browser knows that the server has everything: what it does not know it sends again from the next page."""
        wait("the votes to be saved", lambda: self.chip == "All votes are saved")

    def until_prepared(self) -> None:
        """Wait until the item after the one on the screen, which is there for the first time, is in the browser."""
        here = self.assignment
        wait("the item after", lambda: self.driver.execute_script(PREPARED, here))

    def later(self) -> None:
        """Past the first moments of an item."""
        later(self.driver)

    def vote(self, key: str, *, then: str = "\ue007") -> str:
        """Choose by key and send; return the assignment that was voted on."""
        self.later()
        before = self.assignment
        self.press(key, then)
        wait("the next item", lambda: self.assignment != before)
        return before

    def has_focus(self, selector: str) -> bool:
        """Whether keys go to what this selects."""
        return self.driver.execute_script("return document.activeElement.matches(arguments[0])", selector)

    def tab_to(self, selector: str) -> None:
        """Press Tab until this has the focus."""
        for _ in range(60):
            self.press("\t")
            if self.has_focus(selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    def offline(self, is_offline: bool) -> None:
        """Cut the network or bring it back."""
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
        )

    def complaints(self) -> list[str]:
        """What the browser's console says, refusals of the content policy among it; failed loads while offline left out."""
        return [
            row["message"]
            for row in self.driver.get_log("browser")
            if "ERR_INTERNET_DISCONNECTED" not in row["message"]
        ]
