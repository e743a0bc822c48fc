"""Draw the pages of the rating application to docs/screens, with made-up raters: dark, light and on a phone.

Example:
    python tools/annotation_screens.py
"""

import argparse
import base64
import random
import socket
import tempfile
import threading
import time
from pathlib import Path

import screenshots
import uvicorn
from selenium import webdriver

from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import Database, open_database
from fairlead.web import calibration, importing, people, projects, queue, verdicts
from fairlead.web.app import make_app
from fairlead.web.place import Place

PASSWORD = "a long password"
FIRST = """Here is a function that does it:

```python
def median(values: list[float]) -> float:
    # sort a copy, the input stays
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
```

It takes $O(n \\log n)$ time. For an even count the median is

$$\\frac{x_{n/2} + x_{n/2+1}}{2}$$

- An empty list raises `IndexError`.
- The input is not changed.
"""
SECOND = """You can use the `statistics` module:

```python
import statistics

print(statistics.median([3, 1, 2]))
```

| input | result |
|---|---|
| `[1, 2, 3]` | 2 |
| `[1, 2, 3, 4]` | 2.5 |

See [the documentation](https://docs.python.org/3/library/statistics.html).
It also has `median_low` and `median_high`, which return values of the list.
"""
SIZES = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}


def pair(number: int) -> importing.Pair:
    """A question with two answers."""
    turns = (("user", "Hi, I am learning Python."), ("assistant", "Welcome. What would you like to do?"),
             ("user", f"Write me a function that finds the **median** of a list of {number} numbers, please."))  # fmt: skip
    prompt = Prompt(messages=tuple(Message(role=role, content=text) for role, text in turns))  # pyright: ignore[reportArgumentType]
    texts = (Completion(prompt_id=prompt.id, text=text, model="m") for text in (FIRST, SECOND))
    a, b = sorted(texts, key=lambda completion: completion.id)
    return importing.Pair(prompt=prompt, a=a, b=b)


def join(database: Database, name: str, role: str) -> str:
    """Make an account; return its session."""
    return people.accept_invite(database, people.make_invite(database, role=role), name=name, password=PASSWORD)


def fill(database: Database) -> str:
    """A project in the middle of its work; return its id."""
    rules = projects.Rules(ties="allowed", both_bad=True)
    project = projects.create_project(database, "helpful", votes_per_item=3, calibration_items=30, rules=rules)
    importing.add_pairs(database, project.id, [pair(i) for i in range(3, 103)])
    rng = random.Random(0)
    lead = people.actor_of(database, join(database, "Lea", "admin"))
    assert lead is not None
    join(database, "Ann", "rater")
    for name, skill in (("Bob", 0.95), ("Cem", 0.92), ("Dan", 0.9), ("Eva", 0.5)):
        who = people.actor_of(database, join(database, name, "rater"))
        assert who is not None
        for _ in range(30):
            rate(database, project.id, who, rng, skill)
    with database.read() as rows:
        raters = calibration.read_calibration(rows, project.id).standings
    calibration.waive(database, project.id, raters[0].person_id, by=lead.person_id, reason="a linguist")
    return project.id


def rate(database: Database, project_id: str, who: people.Actor, rng: random.Random, skill: float) -> None:
    """One vote for what most would choose, with the chance `skill`."""
    assignment = queue.next_assignment(database, who, project_id)
    assert isinstance(assignment, queue.Assignment)
    is_a = (sum(assignment.item_id.encode()) % 2 == 0) == (rng.random() < skill)
    sent = verdicts.Submission(
        key=verdicts.new_key(), choice="left" if is_a != assignment.swapped else "right", strength=rng.choice([1, 2, 3]),
        guideline_version=1, rationale="It answers what was asked.", active_ms=rng.randint(9_000, 60_000),
    )  # fmt: skip
    verdicts.submit(database, who, assignment.id, sent)


def log_in(driver: webdriver.Chrome, url: str, name: str) -> None:
    """As a person would."""
    driver.delete_all_cookies()
    driver.get(f"{url}/login")
    driver.find_element("name", "name").send_keys(name)
    driver.find_element("name", "password").send_keys(PASSWORD, "\ue007")
    time.sleep(1)


def take(driver: webdriver.Chrome, path: Path, size: str) -> None:
    """One picture of the top of a page."""
    width, height, scheme = SIZES[size]
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    time.sleep(0.6)
    page_height = int(driver.execute_script("return document.documentElement.scrollHeight"))
    clip = {"x": 0, "y": 0, "width": width, "height": min(page_height, 1100 if width > 600 else 1700), "scale": 1}
    reply = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
    )
    path.write_bytes(base64.b64decode(reply["data"]))
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def draw(driver: webdriver.Chrome, url: str, project_id: str, out: Path) -> None:
    """Every page."""
    log_in(driver, url, "Ann")
    for size in SIZES:
        take(driver, out / f"annotate-rate-{size}.png", size)
    log_in(driver, url, "Bob")
    driver.get(f"{url}/p/{project_id}/mine")
    take(driver, out / "annotate-mine-light.png", "light")
    log_in(driver, url, "Lea")
    for name, path in (
        ("overview", f"/p/{project_id}"),
        ("edit", f"/p/{project_id}/guideline/edit"),
        ("people", "/people"),
    ):
        driver.get(f"{url}{path}")
        take(driver, out / f"annotate-{name}-light.png", "light")
    driver.get(f"{url}/p/{project_id}")
    for size in ("dark", "phone"):
        take(driver, out / f"annotate-overview-{size}.png", size)


def main() -> None:
    """Fill a database, serve it, look at it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=screenshots.ROOT / "docs" / "screens", help="folder for the pictures"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, open_database(Path(folder) / "votes.db") as database:
        project_id = fill(database)
        place = Place.of(host="127.0.0.1", port=port, url=None)
        app = make_app(database, place=place, secret=b"s" * 32, rate_per_s=1e6, burst=10**6)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        with screenshots.browser() as driver:
            draw(driver, place.url, project_id, out)
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
