"""The report in a real browser: no sideways scroll on a phone, labels that do not overlap, nothing loaded, nothing run, buttons that work."""

import dataclasses
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fairlead.core.io import write_json, write_jsonl
from fairlead.report import build_report
from fairlead.report.follow import make_server
from fairlead.store.work import work_alone
from fairlead.telemetry import Condition, JsonlSink, Rule, Watch

ROOT = Path(__file__).parents[2]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


example = load(ROOT / "tests" / "unit" / "report" / "report_example.py")
screenshots = load(ROOT / "tools" / "screenshots.py")
PHONE = screenshots.Shot(name="phone", scheme="light", width=390, height=800)
WIDE = screenshots.Shot(name="wide", scheme="light", width=1160, height=800)
PAYLOAD = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"
OVERFLOW = """
const box = (e) => e.getBoundingClientRect();
const inside = (e) => e.closest('.scroll, pre, .hush, .skip, .verdicts thead, .node-title, .node-note, svg');
return [...document.body.querySelectorAll('*')].filter((e) => box(e).right > innerWidth + 1 && !inside(e)).map((e) => e.tagName + '.' + e.className);
"""
OVERLAPS = """
const pairs = [];
document.querySelectorAll('.chart svg').forEach((svg) => {
  const texts = [...svg.querySelectorAll('.label, .threshold-label')], frame = svg.getBoundingClientRect();
  texts.forEach((a, i) => {
    const p = a.getBoundingClientRect();
    if (p.left < frame.left - 1 || p.right > frame.right + 1 || p.top < frame.top - 1 || p.bottom > frame.bottom + 1) pairs.push(a.textContent);
    texts.slice(i + 1).forEach((b) => {
      const q = b.getBoundingClientRect();
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left), high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 1 && high > 4) pairs.push(a.textContent + ' / ' + b.textContent);
    });
  });
});
return pairs;
"""


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    missing = [str(path) for path in (screenshots.CHROMIUM, screenshots.DRIVER) if not path.exists()]
    if missing:
        message = f"no browser: {', '.join(missing)} missing (apt-get install chromium chromium-driver)"
        if "browser" in os.environ.get("FAIRLEAD_REQUIRE", ""):
            pytest.fail(message)
        pytest.skip(message)
    with screenshots.browser() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(build_report(example.example_run()), encoding="utf-8")
    return path


def open_all(driver: Any) -> None:
    driver.execute_script("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")


def test_a_phone_never_scrolls_sideways(driver: Any, report: Path):
    screenshots.open_page(driver, report, PHONE)
    for _ in range(2):
        assert driver.execute_script("return document.documentElement.scrollWidth") == 390
        assert driver.execute_script(OVERFLOW) == []
        open_all(driver)


@pytest.mark.parametrize("shot", [PHONE, WIDE], ids=lambda shot: shot.name)
def test_labels_of_charts_do_not_overlap_or_leave_the_chart(driver: Any, report: Path, shot: Any):
    screenshots.open_page(driver, report, shot)
    assert driver.execute_script("return document.querySelectorAll('.chart svg .label').length") > 8
    assert driver.execute_script(OVERLAPS) == []


def test_long_words_without_spaces_do_not_scroll_the_page(driver: Any, tmp_path: Path):
    word = "a" * 400
    run = example.example_run()

    def lengthen(stage: Any) -> Any:
        samples = tuple(
            dataclasses.replace(pair, before=word, after=word[1:], prompt=word) for pair in stage.summary.samples
        )
        summary = dataclasses.replace(stage.summary, headline=word, notes=(word,), samples=samples)
        return dataclasses.replace(stage, title=word[:60], summary=summary)

    stages = tuple(map(lengthen, run.stages))
    path = tmp_path / "long.html"
    path.write_text(
        build_report(dataclasses.replace(run, answer=word, name=word, model=word, command=word, stages=stages)),
        encoding="utf-8",
    )
    screenshots.open_page(driver, path, PHONE)
    open_all(driver)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390


def test_the_page_loads_nothing_and_logs_no_error(driver: Any, report: Path):
    screenshots.open_page(driver, report, WIDE)
    assert driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
    assert [entry for entry in driver.get_log("browser") if "favicon" not in entry["message"]] == []


def test_text_of_a_model_is_never_run(driver: Any, tmp_path: Path):
    run = example.example_run()
    pair = dataclasses.replace(
        example.SAMPLES[0], prompt=PAYLOAD, before=PAYLOAD, after=PAYLOAD + " and more", after_label=PAYLOAD
    )
    summary = dataclasses.replace(run.stages[7].summary, headline=PAYLOAD, samples=(pair,), notes=(PAYLOAD,))
    poisoned = dataclasses.replace(
        run, answer=PAYLOAD, stages=(dataclasses.replace(run.stages[7], summary=summary, title=PAYLOAD),)
    )
    path = tmp_path / "poisoned.html"
    path.write_text(build_report(poisoned), encoding="utf-8")
    screenshots.open_page(driver, path, WIDE)
    assert driver.execute_script("return [window.pwned ?? null, document.images.length, document.scripts.length]") == [
        None,
        0,
        1,
    ]
    assert driver.execute_script("return document.querySelector('h1').textContent") == PAYLOAD


def test_the_theme_follows_the_system_and_then_the_person(driver: Any, report: Path):
    ground = "return getComputedStyle(document.body).backgroundColor"
    screenshots.open_page(driver, report, dataclasses.replace(WIDE, scheme="dark"))
    assert driver.execute_script(ground) == "rgb(20, 23, 27)"
    driver.execute_script("document.querySelector('[data-theme-toggle]').click()")
    assert driver.execute_script(ground) == "rgb(255, 255, 255)"
    driver.execute_script("localStorage.clear()")
    screenshots.open_page(driver, report, WIDE)
    assert driver.execute_script(ground) == "rgb(255, 255, 255)"


def test_a_click_sorts_a_table_by_exact_value(driver: Any, report: Path):
    screenshots.open_page(driver, report, WIDE)
    column = "return [...document.querySelectorAll('#cost tbody tr')].map((row) => row.cells[0].textContent)"
    click = "document.querySelectorAll('#cost th button')[1].click()"
    driver.execute_script(click)
    rising = driver.execute_script(column)
    assert rising[0] == "Release" and rising[-1] == "PPO"
    driver.execute_script(click)
    assert driver.execute_script(column) == rising[::-1]
    assert (
        driver.execute_script("return document.querySelector('#cost [aria-sort]').getAttribute('aria-sort')")
        == "descending"
    )


def test_a_table_is_copied_as_csv_that_no_spreadsheet_runs(driver: Any, tmp_path: Path):
    run = example.example_run()
    table = example.Table(
        title="t", columns=("name", "value"), rows=(("=1+1", -0.25), ('say "a, b"', 1 / 3), ("plain", None))
    )
    stage = dataclasses.replace(run.stages[9], summary=dataclasses.replace(run.stages[9].summary, tables=(table,)))
    path = tmp_path / "table.html"
    path.write_text(build_report(dataclasses.replace(run, stages=(stage,))), encoding="utf-8")
    screenshots.open_page(driver, path, WIDE)
    driver.execute_script(
        "window.kept = []; Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (t) => { window.kept.push(t); }}})"
    )
    driver.execute_script("document.querySelector('[data-copy]').click()")
    assert driver.execute_script("return window.kept") == [
        'name,value\r\n\'=1+1,-0.25\r\n"say ""a, b""",0.3333333333333333\r\nplain,\r\n'
    ]


def test_samples_can_be_put_in_order(driver: Any, report: Path):
    screenshots.open_page(driver, report, WIDE)
    changes = "return [...document.querySelectorAll('#stage-8-dpo article')].map((a) => a.dataset.change)"
    press = "document.querySelector('#stage-8-dpo [data-sort={}]').click()"
    driver.execute_script(press.format("best"))
    best = driver.execute_script(changes)
    assert best[-1] == "" and [float(c) for c in best[:-1]] == sorted(map(float, best[:-1]), reverse=True)
    driver.execute_script(press.format("worst"))
    worst = driver.execute_script(changes)
    assert worst[-1] == "" and worst[:-1] == best[:-1][::-1]


def test_the_page_is_whole_without_scripts(driver: Any, report: Path):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        screenshots.open_page(driver, report, WIDE)
        text = driver.find_element("tag name", "body").text
        buttons = [button for button in driver.find_elements("tag name", "button") if button.is_displayed()]
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert (
        example.example_run().answer in text
        and "Biggest fall" in text
        and "How to make it again" in text
        and buttons == []
    )


def test_the_keyboard_reaches_the_answer_first_and_focus_is_seen(driver: Any, report: Path):
    screenshots.open_page(driver, report, WIDE)
    driver.find_element("tag name", "body").send_keys("\ue004")  # Tab
    focused = driver.switch_to.active_element
    assert focused.text == "Skip to the answer" and focused.rect["x"] >= 0
    assert driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_pictures_are_small_enough_to_keep(driver: Any, report: Path):
    for shot in screenshots.SHOTS:
        screenshots.open_page(driver, report, shot)
        picture = screenshots.take(driver, shot)
        assert picture.startswith(b"\x89PNG") and len(picture) <= screenshots.MAX_BYTES


class Training:
    """What a training leaves in its work folder, step by step; its KL leaves the band at step 12."""

    RULE = Rule(id="kl_high", when=(Condition(metric="rl/kl_k1", side="above", limit=0.5, window=1),), remedy="Look")

    def __init__(self, home: Path) -> None:
        self.work, self.watch, self.step = home / "work" / "abc", Watch((self.RULE,)), 0
        write_json(self.work / "live.json", {"title": "ppo", "run": "demo/policies.ppo", "num_steps": 100})
        self.sink = JsonlSink(self.work / "metrics.jsonl")
        self.go_on(to=10)

    def go_on(self, *, to: int) -> None:
        for step in range(self.step + 1, to + 1):
            row = {
                "rl/kl_k1": 0.75 if step >= 12 else 0.1,
                "rl/score": 0.02 * step,
                "rl/length_tokens": 20.0,
                "loss": 0.5,
            }
            self.watch.decide(step, row)
            self.sink.log(step, row)
        self.step = to
        write_jsonl(self.work / "alerts.jsonl", self.watch.spoken)
        pair = {
            "prompt": "Say it.",
            "before": "As it was.",
            "after": f"As it is now {PAYLOAD}",
            "after_label": f"step {to}",
        }
        write_jsonl(self.work / "samples.jsonl", [pair])


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Training, str, Callable[[], None]]]:
    """A training, the address of its page, and what ends the server."""
    training, server = Training(tmp_path), make_server(tmp_path, port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def end() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    with work_alone(training.work, stage="policies.ppo", code="1"):  # somebody trains there
        yield training, f"http://127.0.0.1:{server.server_address[1]}/", end
    if thread.is_alive():
        end()
    training.sink.close()


def wait_for(driver: Any, script: str, expected: Any) -> None:
    deadline = time.monotonic() + 60
    while driver.execute_script(script) != expected:
        assert time.monotonic() < deadline, f"{script} gave {driver.execute_script(script)!r}, not {expected!r}"
        time.sleep(0.05)


ALERTS = "[...document.querySelectorAll('figure')].find((figure) => figure.textContent.includes('what came of it'))"
NEWS = f"""
const has = (selector, text) => (document.querySelector(selector)?.textContent ?? '').includes(text);
return has('h1', 'is at step 20 of 100') && has('article', 'step 20') && Boolean({ALERTS}?.querySelector('tbody tr'));
"""
"""The training writes its files one after the other: a page that is made in between shows some of it."""


def test_a_live_page_shows_news_by_itself_and_keeps_what_a_person_did(driver: Any, live: Any) -> None:
    """Folds, sorting and theme stay, buttons work on what is new, nothing is reloaded and nobody else is asked."""
    training, address, _ = live
    screenshots.open_page(driver, address, WIDE)
    assert "ppo is at step 10 of 100" in driver.execute_script("return document.querySelector('h1').textContent")
    driver.execute_script("window.kept = 'same page'; document.querySelector('details').open = true")
    every = "[...document.querySelectorAll('table')].find((table) => table.textContent.includes('rl/length_tokens'))"
    driver.execute_script(f"{every}.querySelectorAll('th button')[1].click()")
    names = f"return [...{every}.tBodies[0].rows].map((row) => row.cells[0].textContent.trim())"
    by_value = ["rl/kl_k1", "rl/score", "rl/length_tokens"]  # the loss is a diagnostic: another table
    assert driver.execute_script(names) == by_value
    training.go_on(to=20)
    wait_for(driver, NEWS, True)
    assert driver.execute_script(
        "return [window.kept, document.querySelector('details').open, window.pwned ?? null]"
    ) == ["same page", True, None]
    assert driver.execute_script("return document.title").startswith("ppo is at step 20")
    assert driver.execute_script(names) == ["rl/score", "rl/kl_k1", "rl/length_tokens"], (
        "sorted again by the new values"
    )
    row = driver.execute_script(
        f"return [...{ALERTS}.querySelector('tbody tr').cells].map((cell) => cell.textContent.trim())"
    )
    assert row == ["12", "WARN", "kl_high", "rl/kl_k1 0.750 nats/token", "at most 0.500 nats/token", "only said",
                   "nothing was changed; still out of range", "Look"]  # fmt: skip
    assert "step 20" in driver.execute_script("return document.querySelector('article').textContent")
    driver.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text; }}})"
    )
    driver.execute_script(f"{ALERTS}.querySelector('[data-copy]').click()")
    assert driver.execute_script("return window.copied").splitlines()[1].startswith("12,WARN,kl_high,")
    asked = driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked and set(asked) == {f"{address}live.json"}
    assert [entry for entry in driver.get_log("browser") if "favicon" not in entry["message"]] == []


def test_a_live_page_says_when_nobody_answers_any_more(driver: Any, live: Any) -> None:
    _, address, end = live
    screenshots.open_page(driver, address, WIDE)
    hidden = "return document.querySelector('[data-off]').hidden"
    assert driver.execute_script(hidden) is True
    end()
    wait_for(driver, hidden, False)
    assert "stands still" in driver.execute_script("return document.querySelector('[data-off]').textContent")


def test_a_live_page_fits_a_phone(driver: Any, live: Any) -> None:
    training, address, _ = live
    training.go_on(to=20)
    screenshots.open_page(driver, address, PHONE)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    assert driver.execute_script(OVERFLOW) == []
    assert driver.execute_script(OVERLAPS) == []
