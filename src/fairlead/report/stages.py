"""From a stage's summary to what the page shows of it."""

import math
import re
from collections.abc import Sequence

from fairlead.core.gates import GateResult, amount, figure, some, unit_words
from fairlead.core.summary import Figure, SamplePair
from fairlead.report.charts import draw_chart
from fairlead.report.context import CostRow, FigureView, OverrideView, SampleView, StageView, VerdictView
from fairlead.report.gauges import draw_gauge, worst
from fairlead.report.reference import REFERENCE_TABLE, is_about_agreement
from fairlead.report.run import StageReport
from fairlead.report.tables import MINUS, view_table
from fairlead.report.words import compare_words
from fairlead.telemetry import phase_words

MAX_OPEN_SAMPLES = 2
_KEEPS_SAMPLES = {"evals"}


def number(value: float, unit: str = "") -> str:
    """Render three significant digits (of a share: per cent) with a true minus sign."""
    return amount(value, unit).replace("-", MINUS) if math.isfinite(value) else "not measured"


def duration(seconds: float) -> str:
    """Render a wall time: `8.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if not math.isfinite(seconds):
        return "not measured"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def dollars(amount: float) -> str:
    """Render money; cents below 100."""
    return f"${amount:,.2f}" if amount < 100 else f"${amount:,.0f}"


def memory(stage: StageReport) -> str:
    """Render peak memory."""
    if stage.memory_mb is None:
        return "not measured"
    text = f"{stage.memory_mb:,.0f} MB" if stage.memory_mb < 1000 else f"{stage.memory_mb / 1000:.1f} GB"
    return f"at most {text}" if stage.is_memory_of_process else text


def pace(stage: StageReport) -> str:
    """Render how fast a stage trained, on-policy by phase too; empty when it trained nothing."""
    if stage.tokens_per_s is None or stage.step_s is None:
        return ""
    phases = phase_words(stage.phases)
    return f"{figure(stage.tokens_per_s)} tokens/s, {figure(stage.step_s)} s/step{f'; {phases}' if phases else ''}"


def view_figure(item: Figure) -> FigureView:
    """Word a figure; one without interval says why (its note), or that none was stated."""
    count = _count(item.n) if item.n is not None else ""
    if item.low is not None and item.high is not None:
        interval = f"interval {number(item.low, item.unit)} to {number(item.high, item.unit)}"
    else:
        interval = "" if item.note else "no interval stated"
    words = ", ".join(part for part in (interval, count) if part)
    value = number(item.value, item.unit)
    return FigureView(name=item.name, value=value, unit=unit_words(item.unit), interval=words, note=item.note)


def view_stage(stage: StageReport, *, order: int, shows_reference: bool) -> StageView:
    """Prepare one stage; `order` counts from 1."""
    summary, anchor = stage.summary, stage_anchor(stage, order=order)
    first, more = _view_samples(summary.samples)
    worst_result = worst(summary.verdicts)
    outcome = worst_result.outcome if worst_result else "NONE"
    has_hint = summary.stage in _KEEPS_SAMPLES and not summary.samples
    return StageView(
        anchor=anchor, number=order, title=stage.title, headline=summary.headline, outcome=outcome,
        outcome_word=_outcome_word(worst_result), worst_gate=worst_result.gate if worst_result else "",
        worst_value=_value(worst_result) if worst_result else "",
        figures=tuple(view_figure(item) for item in summary.figures),
        verdicts=tuple(_view_verdict(result) for result in summary.verdicts),
        charts=tuple(draw_chart(chart, chart_id=f"{anchor}-chart-{i}") for i, chart in enumerate(summary.charts, start=1)),
        tables=tuple(view_table(table) for table in summary.tables),
        reference=view_table(REFERENCE_TABLE) if shows_reference else None,
        first_samples=first, more_samples=more, sample_hint=_SAMPLE_HINT if has_hint else "", notes=summary.notes,
        time=duration(stage.seconds), cached="reused from an earlier run" if stage.cached else "",
        cost=dollars(summary.cost_dollars), memory=memory(stage), artifact_id=stage.artifact_id,
    )  # fmt: skip


_SAMPLE_HINT = "Samples before and after would stand here. The evaluation keeps some when it compares two policies: `fairlead run`."


def stage_anchor(stage: StageReport, *, order: int) -> str:
    """A name for links that holds nothing but letters, digits and hyphens."""
    return f"stage-{order}-" + (re.sub(r"[^a-z0-9]+", "-", stage.summary.stage.lower()).strip("-") or "unnamed")


def first_agreement_stage(stages: Sequence[StageReport]) -> int:
    """Order of the stage that gets the reference rows, or 0."""
    return next((i for i, stage in enumerate(stages, start=1) if is_about_agreement(stage.summary)), 0)


def view_overrides(stages: Sequence[StageReport]) -> tuple[OverrideView, ...]:
    """Every verdict that a person passed on record."""
    return tuple(
        OverrideView(anchor=stage_anchor(stage, order=i), stage=stage.title, reason=result.allowed,
                     line=f"{result.outcome} {result.gate} {_value(result)} ({result.threshold})")
        for i, stage in enumerate(stages, start=1)
        for result in stage.summary.verdicts
        if result.allowed
    )  # fmt: skip


def view_costs(stages: Sequence[StageReport]) -> tuple[CostRow, ...]:
    """Time, money and memory a stage, with a bar relative to the longest."""
    longest = max((s.seconds for s in stages if math.isfinite(s.seconds)), default=0.0) or 1.0
    return tuple(
        CostRow(anchor=stage_anchor(s, order=i), title=s.title, time=duration(s.seconds), seconds=repr(s.seconds),
                share=round(100 * s.seconds / longest, 1) if math.isfinite(s.seconds) else 0.0, is_cached=s.cached,
                cost=dollars(s.summary.cost_dollars), dollars=repr(s.summary.cost_dollars), memory=memory(s),
                memory_mb="" if s.memory_mb is None else repr(s.memory_mb), pace=pace(s),
                tokens_per_s="" if s.tokens_per_s is None else repr(s.tokens_per_s))
        for i, s in enumerate(stages, start=1)
    )  # fmt: skip


def count_gates(results: Sequence[GateResult]) -> str:
    """Count verdicts in words."""
    if not results:
        return "No gate was measured in this run."
    parts = [
        f"{sum(r.outcome == word for r in results)} {word}"
        for word in ("PASS", "WARN", "STOP")
        if any(r.outcome == word for r in results)
    ]
    allowed = sum(bool(r.allowed) for r in results)
    tail = f"; {allowed} passed on record by a person" if allowed else ""
    return f"{some(len(results), 'gate')}: {', '.join(parts)}{tail}."


def _count(n: int) -> str:
    return f"n = {n:,}".replace(" ", "\N{NO-BREAK SPACE}")


def _outcome_word(result: GateResult | None) -> str:
    if result is None:
        return "no gate"
    return f"{result.outcome}, allowed" if result.allowed else result.outcome


def _value(result: GateResult) -> str:
    if not math.isfinite(result.value):
        return number(result.value)
    return f"{number(result.value, result.unit)} {unit_words(result.unit)}".rstrip()


def _view_verdict(result: GateResult) -> VerdictView:
    interval = (
        f"{number(result.low, result.unit)} to {number(result.high, result.unit)}, "
        if result.low != result.high and math.isfinite(result.value)
        else ""
    )
    return VerdictView(
        outcome=result.outcome, gate=result.gate, question=result.question, value=_value(result), interval=f"{interval}{_count(result.n)}",
        gauge=draw_gauge(result), rules=tuple(result.threshold.split(", ")), remedy="" if result.outcome == "PASS" else result.remedy,
        allowed=result.allowed, note=result.note,
    )  # fmt: skip


def _view_samples(samples: Sequence[SamplePair]) -> tuple[tuple[SampleView, ...], tuple[SampleView, ...]]:
    """Biggest fall and biggest rise first, the others in the order given."""
    changes = [_change(sample) for sample in samples]
    known = [i for i, change in enumerate(changes) if change is not None]
    badges: dict[int, str] = {}
    if known:
        fall, rise = min(known, key=lambda i: changes[i] or 0.0), max(known, key=lambda i: changes[i] or 0.0)
        if (changes[rise] or 0.0) > 0:
            badges[rise] = "Biggest rise"
        if (changes[fall] or 0.0) < 0:
            badges = {fall: "Biggest fall", **badges}
    order = [*badges, *(i for i in range(len(samples)) if i not in badges)]
    views = tuple(_view_sample(samples[i], change=changes[i], badge=badges.get(i, "")) for i in order)
    return views[:MAX_OPEN_SAMPLES], views[MAX_OPEN_SAMPLES:]


def _view_sample(sample: SamplePair, *, change: float | None, badge: str) -> SampleView:
    direction = "" if change is None else "up" if change > 0 else "down" if change < 0 else "same"
    signed = "" if change is None else f"{'+' if change > 0 else ''}{number(change)}"
    return SampleView(
        prompt=sample.prompt, difference=compare_words(sample.before, sample.after), after_label=sample.after_label,
        before_facts=_facts(sample.before_score, sample.before_tokens), after_facts=_facts(sample.after_score, sample.after_tokens),
        change=signed, change_value="" if change is None else repr(change), direction=direction, badge=badge,
    )  # fmt: skip


def _change(sample: SamplePair) -> float | None:
    if sample.before_score is None or sample.after_score is None:
        return None
    change = sample.after_score - sample.before_score
    return change if math.isfinite(change) else None


def _facts(score: float | None, num_tokens: int | None) -> str:
    parts = ["no score" if score is None else f"score {number(score)}"]
    if num_tokens is not None:
        parts.append(some(num_tokens, "token"))
    return ", ".join(parts)
