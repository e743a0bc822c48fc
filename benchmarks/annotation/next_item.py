"""How long a rater waits for the next item: in a real browser, from the press on Send to the frame that shows it.

    python -m benchmarks.annotation.next_item            # 50 items, read for a second each

The server runs on the same machine, with a project of 200 pairs of about 300 words a reply. The next item is fetched while the one before is
read, so no request stands in between (tests/web/test_web_keyboard.py holds that); what is measured is the browser's own work.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.annotation.results import keep, row
from fairlead.core.records import Completion, Message, Prompt
from fairlead.store.annotation.database import open_database
from fairlead.web import importing, projects

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import annotation_pages
import annotation_screens
import screenshots

LIMIT_MS = 100.0
READ_S = 1.0
SEND = """
const answer = arguments[arguments.length - 1], before = document.querySelector('.item').dataset.assignment;
document.querySelector('.option input').checked = true;
new MutationObserver((_, own) => {
  const now = document.querySelector('.item');
  if (!now || now.dataset.assignment === before) return;
  own.disconnect();
  requestAnimationFrame(() => setTimeout(() => answer(performance.now() - start)));
}).observe(document.getElementById('stage'), {childList: true});
const start = performance.now();
document.querySelector('.send').click();
"""


def long_pair(number: int) -> importing.NewItem:
    """About 300 words a reply, with code, a table and a formula."""
    prompt = Prompt(messages=(Message(role="user", content=f"Question {number}: what is a median?"),))
    texts = (annotation_pages.FIRST, annotation_pages.SECOND)
    filler = "A median splits ordered values in two halves of the same size. " * 20
    found = [Completion(prompt_id=prompt.id, text=f"{text}\n\n{filler}", model="m") for text in texts]
    return importing.NewItem.of(prompt, found)


def measure(num: int) -> list[float]:
    """Milliseconds of each swap."""
    with tempfile.TemporaryDirectory() as folder, open_database(Path(folder) / "votes.db") as database:
        project = projects.create_project(database, "speed", calibration_items=0)
        importing.add_items(database, project.id, [long_pair(i) for i in range(200)])
        annotation_pages.join(database, "Ann", "rater")
        with annotation_pages.serve(database) as url, screenshots.browser() as driver:
            driver.set_script_timeout(30)
            annotation_screens.log_in(driver, url, "Ann")
            driver.get(f"{url}/p/{project.id}/rate")
            times = []
            for _ in range(num):
                time.sleep(READ_S)
                times.append(float(driver.execute_async_script(SEND)))
    return times


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=50, help="items")
    times = measure(parser.parse_args().num)
    cuts = statistics.quantiles(times, n=20, method="inclusive")
    setting = f"{len(times)} items of 300 words a reply, Chromium and server on 2 cores"
    found = {"median": statistics.median(times), "95th percentile": cuts[-1], "longest": max(times)}
    for name, value in found.items():
        print(f"{name}: {value:.1f} ms (limit {LIMIT_MS:.0f})")
    keep([row(f"next item after submit, {name}", setting, "ms", round(value, 1), limit=LIMIT_MS) for name, value in found.items()])  # fmt: skip


if __name__ == "__main__":
    main()
