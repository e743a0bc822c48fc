"""The page: what it begins with, that it is whole and valid, that it loads nothing, that no text becomes markup."""

import dataclasses
import importlib.resources
import math
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
import report_example as example

from fairlead.core.gates import Gate
from fairlead.core.summary import Chart, Figure, SamplePair, Series, StageSummary, Table, Threshold, summary_from_dict
from fairlead.report import RunReport, StageReport, build_report
from fairlead.report.stages import view_costs

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "source"}
CSP = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


class Page(HTMLParser):
    """Collects tags, attributes and text; refuses tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.headings: list[int] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def html() -> str:
    return build_report(example.example_run())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def empty_run(**changes: Any) -> RunReport:
    run = RunReport(
        name="run",
        created="2026-03-14",
        scope="toy",
        model="m",
        answer="Nothing ran.",
        key_figures=(),
        stages=(),
        lineage=(),
        command="",
    )
    return dataclasses.replace(run, **changes)


def one_stage(summary: StageSummary, **changes: Any) -> RunReport:
    stage = StageReport(title="Stage", summary=summary, seconds=1.0, cached=False, artifact_id="ab", memory_mb=None)
    return empty_run(stages=(dataclasses.replace(stage, **changes),))


def test_begins_with_answer_then_figures_then_gates_then_overrides(page: Page):
    run = example.example_run()
    places = [page.text.index(word) for word in (run.answer, "65.5 % of prompts", "17 gates: 13 PASS, 3 WARN, 1 STOP; 2 passed on record",
              "STOP, allowed", "Passed on record by a person", "kept for comparison with DPO", run.stages[0].summary.headline)]  # fmt: skip
    places[0] = page.text.index(run.answer, page.text.index("Skip to"))
    assert places == sorted(places)


def test_every_stage_shows_headline_figures_gates_and_tables(page: Page):
    for stage in example.example_run().stages:
        assert stage.summary.headline.replace("`", "") in page.text
        for item in stage.summary.figures:
            assert item.name in page.text
        for verdict in stage.summary.verdicts:
            assert verdict.question in page.text
            assert (verdict.remedy in page.text) or verdict.outcome == "PASS"
        for table in stage.summary.tables:
            assert table.title in page.text
        for chart in stage.summary.charts:
            assert chart.question in page.text


def test_the_same_run_gives_the_same_page_also_through_json(html: str):
    run = example.example_run()
    again = dataclasses.replace(
        run, stages=tuple(dataclasses.replace(s, summary=summary_from_dict(s.summary.to_dict())) for s in run.stages)
    )
    assert build_report(again) == html


def test_loads_nothing(html: str, page: Page):
    assert page.tags["link"] == page.tags["img"] == page.tags["iframe"] == 0
    assert (
        not page.values("src")
        and "@import" not in html
        and "url(" not in html
        and "http:" not in html
        and "https:" not in html
    )
    assert all(value.startswith("#") for value in page.values("href"))
    assert [v for t, n, v in page.attributes if t == "meta" and n == "content" and "default-src" in v] == [CSP]


def test_is_one_valid_accessible_document(html: str, page: Page):
    assert html.lstrip().startswith("<!DOCTYPE html>") and page.values("lang") == ["en"]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in page.values("href")} <= set(ids)
    for name in ("aria-labelledby", "aria-describedby"):
        assert {word for value in page.values(name) for word in value.split()} <= set(ids)
    assert (
        page.tags["main"]
        == page.tags["h1"]
        == page.tags["title"] - page.tags["desc"] - len(re.findall(r'class="(?:point)"', html))
        == 1
    )
    assert page.headings[0] == 1 and all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    assert page.tags["header"] and page.tags["footer"] and "Skip to the answer" in page.text
    assert page.tags["script"] == page.tags["style"] == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_every_chart_has_words_and_its_table(page: Page):
    num_charts = sum(len(s.summary.charts) for s in example.example_run().stages)
    assert page.tags["desc"] == num_charts == page.text.count("The numbers")


PAYLOADS = (
    "<script>window.pwned=1</script>",
    "</style><script>window.pwned=1</script>",
    "</script><img src=x onerror=window.pwned=1>",
    "</title><svg onload=window.pwned=1>",
    "\"><a href='javascript:window.pwned=1'>x</a>",
    "javascript:window.pwned=1",
    "{{ 7 * 7 }}{% raw %}",
    "<!--",
    "&lt;b&gt;",
    "]]>",
    "' onmouseover='window.pwned=1",
    "</textarea></svg></desc><math><mtext></mtext>",
)


def poison(value: Any, payload: str) -> Any:
    """Put a payload into every free text of a run; names of verdicts, roles and styles stay, and a second run poisons those."""
    if isinstance(value, str):
        return value if value in ("PASS", "WARN", "STOP", "line", "points") else payload
    if isinstance(value, tuple):
        return tuple(poison(item, payload) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {
            f.name: poison(getattr(value, f.name), payload) for f in dataclasses.fields(value) if f.name != "facts"
        }
        if isinstance(value, StageSummary | Threshold):
            changes.pop("stage", None)
        return dataclasses.replace(value, **changes)
    return value


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_text_becomes_markup(payload: str):
    harmless = Page(build_report(poison(example.example_run(), "x" * len(payload))))
    poisoned = Page(build_report(poison(example.example_run(), payload)))
    assert poisoned.tags["script"] == poisoned.tags["style"] == 1
    assert set(poisoned.tags) <= set(harmless.tags) | {"ins", "del"}
    assert {(tag, name) for tag, name, _ in poisoned.attributes} <= {
        (tag, name) for tag, name, _ in harmless.attributes
    }
    assert all(value.startswith("#") for value in poisoned.values("href"))
    assert payload in "".join(poisoned.texts)


def test_what_names_classes_and_ids_is_harmless_too():
    summary = StageSummary(stage='"><script>', headline="h", charts=(Chart(question="q", x_label="x", y_label="y", series=(
        Series(label="a", role='"><script>', points=((0.0, 1.0),)),), thresholds=(Threshold(label="t", value=1.0, kind="x y<"),)),))  # type: ignore[arg-type]  # fmt: skip
    page = Page(build_report(one_stage(summary)))
    assert page.tags["script"] == 1 and "stage-1-script" in page.values("id")


def test_templates_never_switch_escaping_off():
    for path in importlib.resources.files("fairlead.report").joinpath("templates").iterdir():
        assert not re.search(r"\|\s*safe|autoescape|\bMarkup\b", path.read_text(encoding="utf-8")), path.name


def test_characters_that_html_cannot_hold_are_replaced():
    html = build_report(empty_run(answer="a\x00b\x1b[31m\ud800c\ufffe"))
    assert "a\ufffdb\ufffd[31m\ufffdc\ufffd" in html
    html.encode("utf-8")


def test_an_empty_run_teaches():
    text = Page(build_report(empty_run())).text
    for words in ("No stage has run yet", "fairlead quickstart", "three figures of the answer would stand here", "No artifact is recorded yet",
                  "command that made this run would stand here"):  # fmt: skip
        assert words in text


def test_an_empty_stage_teaches():
    chart = Chart(
        question="Did it learn?", x_label="step", y_label="loss", series=(Series(label="a", role="policy", points=()),)
    )
    summary = StageSummary(
        stage="evals", headline="h", charts=(chart,), tables=(Table(title="t", columns=("a",), rows=()),)
    )
    text = Page(build_report(one_stage(summary))).text
    for words in (
        "No gate guards this stage",
        "Nothing was logged for this question yet",
        "No rows",
        "Samples before and after would stand here",
    ):
        assert words in text


def test_figures_say_interval_count_or_why_there_is_none():
    figures = (
        Figure(name="a", value=0.5, low=0.4, high=0.6, n=1200),
        Figure(name="b", value=3, note="counted"),
        Figure(name="c", value=math.nan),
    )
    text = Page(build_report(empty_run(key_figures=figures))).text.replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "interval 0.400 to 0.600, n = 1,200" in text
        and "3 counted" in text
        and "not measured no interval stated" in text
    )


def test_an_exact_gate_that_measured_nothing_is_shown():
    gate = Gate(name="g", question="", unit="share", direction="at_least", stop=0.5, warn=None, remedy="Measure it")
    text = Page(
        build_report(one_stage(StageSummary(stage="x", headline="h", verdicts=(gate.judge(math.nan, n=0),))))
    ).text
    assert "STOP" in text and "Nothing was measured" in text and "Measure it" in text and "nan" not in text


def test_reference_rows_stand_once_in_the_agreement_stage(page: Page):
    assert page.text.count("What others measured") == 1
    assert page.text.index("4 Feedback") < page.text.index("What others measured") < page.text.index("5 Preferences")
    assert "65 % is kappa 0.30" in page.text


def test_reference_rows_are_absent_without_such_a_stage():
    assert "What others measured" not in build_report(one_stage(StageSummary(stage="dpo", headline="h")))


def test_samples_begin_with_the_biggest_fall_and_rise(page: Page):
    text = page.text
    start = text.index("8 DPO")
    fall, rise, more = (text.index(word, start) for word in ("Biggest fall", "Biggest rise", "3 more"))
    assert fall < rise < more
    assert (
        "score −0.320" in text[fall:rise]
        and "happy happy happy" in text[fall:rise]
        and "score +2.13" in text[rise:more]
    )


def test_samples_that_only_rise_have_no_fall():
    pairs = tuple(SamplePair(prompt="p", before="a", after="b", before_score=0.0, after_score=s) for s in (1.0, 2.0))
    text = Page(build_report(one_stage(StageSummary(stage="x", headline="h", samples=pairs)))).text
    assert "Biggest rise" in text and "Biggest fall" not in text


def test_cost_counts_what_was_computed_and_all_money(page: Page):
    """2.1 + 61.4 + 1.2 + 0.8 + 44 + 312 + 58 + 74 + 0.4 = 553.9 s; the cached stage took 96 s before."""
    assert "9 min 14 s of computing and $600. 1 of 10 stages reused" in page.text


def test_code_is_marked_and_an_odd_backtick_is_left():
    html = build_report(one_stage(StageSummary(stage="x", headline="h", notes=("Run `a<b` now", "a ` b"))))
    assert "Run <code>a&lt;b</code> now" in html and "a ` b" in html


def test_a_date_that_is_none_is_shown_as_it_is():
    assert "yesterday" in build_report(empty_run(created="yesterday"))
    assert "14 March 2026, 00:00" in build_report(empty_run())


def test_a_stage_of_thousands_stays_small_and_fast():
    points = tuple((float(x), math.sin(x / 50)) for x in range(20_000))
    chart = Chart(
        question="q",
        x_label="x",
        y_label="y",
        series=(Series(label="a", role="policy", points=points, band=tuple((x, y - 1, y + 1) for x, y in points)),),
    )
    assert len(build_report(one_stage(StageSummary(stage="x", headline="h", charts=(chart,))))) < 120_000


def test_costs_tell_the_pace_and_on_policy_each_phase():
    def row(**pace: Any) -> str:
        stage = StageReport(title="ppo", summary=StageSummary(stage="ppo", headline="It ran."), seconds=1.0, cached=False, artifact_id="ab",
                            memory_mb=None, **pace)  # fmt: skip
        (found,) = view_costs([stage])
        return found.pace

    rates = {"generate": 9000.0, "score": 80.0, "update": 300.0}
    assert row() == ""
    assert row(tokens_per_s=100.0, step_s=0.5) == "100 tokens/s, 0.500 s/step"
    assert row(tokens_per_s=100.0, step_s=0.5, phases=rates) == (
        "100 tokens/s, 0.500 s/step; generate 9,000, score 80, update 300 tokens/s"
    )
