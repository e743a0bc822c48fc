"""The evaluation in words, tables, charts and samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.core.gates import GateResult, amount, figure, percent, percent_interval
from fairlead.core.records import EvalResult, Prompt, to_dict
from fairlead.core.summary import Chart, Figure, SamplePair, Series, SeriesRole, StageSummary, Table
from fairlead.core.transcripts import num_written_tokens
from fairlead.evals.answers import Answers
from fairlead.evals.behaviours import WinRate
from fairlead.evals.monitors import Signals
from fairlead.stats.intervals import Interval, mean_interval

_NUM_SAMPLES = 6  # best and worst changes of a policy that the report shows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PolicyReport:
    """Everything found about one policy."""

    name: str
    results: tuple[EvalResult, ...]
    verdicts: tuple[GateResult, ...]
    wins: WinRate | None
    answers: Answers
    signals: Signals
    reference: Signals
    before_scores: npt.NDArray[np.float64] | None
    """[P] gold scores (reward-model scores without a gold) of the reference's replies."""
    after_scores: npt.NDArray[np.float64] | None
    reward_change: Interval | None


def ranking_row(report: PolicyReport, allowed: set[str]) -> dict[str, Any]:
    """Plain data of one policy for evaluation.json: headline, figures, results, whether it may be released."""
    stops = [v.gate for v in report.verdicts if v.outcome == "STOP" and v.gate not in allowed]
    aims = [r for r in report.results if not r.meta["guard"]]
    num_improved = sum(r.verdict == "improved" for r in aims)
    share = report.wins.interval.value if report.wins else 0.0
    plain = StageSummary(
        stage="evals", headline=headline(report), figures=tuple(key_figures(report)), verdicts=report.verdicts
    ).to_dict()
    return {
        "policy": report.name, "headline": plain["headline"], "answer": answer(report), "is_releasable": not stops, "stops": stops,
        "rank_key": [not stops, num_improved, share], "results": [to_dict(r) for r in report.results],
        "key_figures": plain["figures"], "verdicts": plain["verdicts"],
    }  # fmt: skip


def answer(report: PolicyReport) -> str:
    """The first sentence of the report: who won how often, which aims moved, at what price."""
    name = report.name.upper() if report.name in ("dpo", "ppo") else report.name
    parts = []
    if report.wins:
        w = report.wins
        total, i = w.num_wins + w.num_ties + w.num_losses, w.interval
        parts.append(
            f"{name} beat SFT on {w.num_wins} of {total} prompts and lost on {w.num_losses} "
            f"(win rate {percent(i.value)}, {percent_interval(i.low, i.high)})"
        )
    aims = [f"{r.behaviour} {r.verdict}" for r in report.results if not r.meta["guard"]]
    parts.append(", ".join(aims) if parts else f"{name}: {', '.join(aims)}")
    if report.answers.kl is not None:
        parts.append(f"KL {figure(float(report.answers.kl.mean()))} nats/token")
    stops = sorted({v.gate for v in report.verdicts if v.outcome == "STOP"})
    parts.append(f"STOP: {', '.join(stops)}" if stops else "gates passed")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def headline(report: PolicyReport) -> str:
    """Which behaviour went up, which went down, with intervals, at what KL, and what the gates say."""
    parts = [_moved(r) for r in report.results if not r.meta["guard"]]
    if report.wins:
        w, i = report.wins, report.wins.interval
        total = w.num_wins + w.num_ties + w.num_losses
        parts.append(f"better on {w.num_wins}, worse on {w.num_losses} of {total} prompts "
                     f"(win rate {percent(i.value)}, {percent_interval(i.low, i.high)})")  # fmt: skip
    length = report.signals.num_tokens.mean() / max(report.reference.num_tokens.mean(), 1e-9) - 1
    kl = mean_interval(report.answers.kl) if report.answers.kl is not None else None
    if kl is not None:
        parts.append(
            f"length {percent(length, is_signed=True)}, KL {figure(kl.value)} nats/token ({figure(report.answers.kl_per_reply)} a reply)"
        )
    stops = sorted({v.gate for v in report.verdicts if v.outcome == "STOP"})
    warns = sorted({v.gate for v in report.verdicts if v.outcome == "WARN"})
    gates = (
        f"STOP: {', '.join(stops)}" if stops else f"gates passed, WARN: {', '.join(warns)}" if warns else "gates passed"
    )
    return "; ".join([*parts, gates]) + "."


def _moved(result: EvalResult) -> str:
    way = "rose" if result.effect > 0 else "fell" if result.effect < 0 else "stayed"
    before, after = amount(result.before, result.unit), amount(result.after, result.unit)
    if result.unit == "share":
        effect, low, high = (
            percent(x, is_signed=True).removesuffix(" %") for x in (result.effect, result.low, result.high)
        )
        effect += " points"
    else:
        effect, low, high = (f"{x:+.2f}" for x in (result.effect, result.low, result.high))
    return f"{result.behaviour} {way} {before} to {after} ({result.verdict}, effect {effect}, 95 % interval {low} to {high})"


def key_figures(report: PolicyReport) -> list[Figure]:
    """Win rate (or first aim) and KL."""
    found: list[Figure] = []
    if report.wins:
        i = report.wins.interval
        found.append(
            Figure(
                name=f"{report.name} beats SFT", value=i.value, low=i.low, high=i.high, n=i.n, unit="share of prompts"
            )
        )
    else:
        first = next(r for r in report.results if not r.meta["guard"])
        found.append(Figure(name=f"{report.name}: {first.behaviour}", value=first.effect, low=first.low, high=first.high, n=first.num_prompts,
                            unit=first.unit))  # fmt: skip
    if report.answers.kl is not None:
        kl = mean_interval(report.answers.kl)
        found.append(
            Figure(name=f"{report.name} KL", value=kl.value, low=kl.low, high=kl.high, n=kl.n, unit="nats/token")
        )
    return found


def capability_table(abilities: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """What each model can still do."""
    rows = []
    for name, found in abilities.items():
        accuracy = float(np.mean(found["minimal_pairs"])) if "minimal_pairs" in found else None
        flipped = float(np.mean(found["flips"])) if "flips" in found else None
        rows.append(
            (
                name,
                accuracy,
                len(found["minimal_pairs"]) if accuracy is not None else None,
                found.get("perplexity"),
                flipped,
            )
        )
    if not any(value is not None for row in rows for value in (row[1], *row[3:])):
        return None
    return Table(
        title="What the models can still do",
        columns=(
            "model",
            "minimal pairs right",
            "pairs",
            "perplexity on general text",
            "answers that follow an opinion",
        ),
        rows=tuple(rows),
    )


def summarise(
    ranked: Sequence[PolicyReport],
    rows: Sequence[Mapping[str, Any]],
    prompts: Sequence[Prompt],
    before: Answers,
    abilities: Table | None,
) -> StageSummary:
    """The stage's summary: the first policy's verdicts, every policy's table, samples of the first."""
    best = ranked[0]
    tables = [_results_table(ranked)]
    tables += [_gates_table(report) for report in ranked[1:]]
    tables += [abilities] if abilities else []
    charts = tuple(chart for report in ranked for chart in _score_chart(report))
    figures = tuple(f for report in ranked for f in key_figures(report))
    facts = {
        "ranking": [row["policy"] for row in rows],
        "releasable": [row["policy"] for row in rows if row["is_releasable"]],
    }
    return StageSummary(stage="evals", headline=f"{best.name}: {rows[0]['headline']}", figures=figures, verdicts=best.verdicts, charts=charts,
                        tables=tuple(tables), facts=facts,
                        samples=tuple(s for report in ranked for s in _samples(report, prompts, before)))  # fmt: skip


def _results_table(ranked: Sequence[PolicyReport]) -> Table:
    rows = tuple((report.name, r.behaviour, "guard" if r.meta["guard"] else "aim", r.before, r.after, r.effect, r.low, r.high, r.verdict)
                 for report in ranked for r in report.results)  # fmt: skip
    columns = ("policy", "behaviour", "kind", "before", "after", "effect", "low", "high", "verdict")
    return Table(
        title="Behaviours against the frozen criteria",
        columns=columns,
        rows=rows,
        caption="95 % intervals, paired by prompt",
    )


def _gates_table(report: PolicyReport) -> Table:
    rows = tuple((v.gate, v.outcome, v.value, v.low, v.high, v.n, v.threshold, v.note) for v in report.verdicts)
    return Table(
        title=f"Gates of policy {report.name}",
        columns=("gate", "verdict", "value", "low", "high", "n", "rule", "note"),
        rows=rows,
    )


def _score_chart(report: PolicyReport) -> tuple[Chart, ...]:
    """How scores were distributed before and after: the share of prompts at or below each score."""
    if report.before_scores is None or report.after_scores is None:
        return ()
    sides: tuple[tuple[str, SeriesRole, npt.NDArray[np.float64]], ...] = (
        ("before", "reference", report.before_scores),
        (report.name, "policy", report.after_scores),
    )
    series = tuple(
        Series(
            label=label, role=role, points=tuple((float(np.quantile(x, q)), float(q)) for q in np.linspace(0, 1, 21))
        )
        for label, role, x in sides
    )
    return (Chart(question=f"Did {report.name} lift all replies or only some?", x_label="score of a prompt's replies",
                  y_label="share of prompts below", series=series, y_zero=True),)  # fmt: skip


def _samples(report: PolicyReport, prompts: Sequence[Prompt], before: Answers) -> list[SamplePair]:
    """The best and the worst changes, first replies."""
    if report.before_scores is None or report.after_scores is None:
        return []
    order = np.argsort(report.after_scores - report.before_scores, kind="stable")
    chosen = list(dict.fromkeys([*order[: _NUM_SAMPLES // 2].tolist(), *order[-_NUM_SAMPLES:][::-1].tolist()]))
    pairs = []
    for i in chosen:
        old, new = before.groups[i][0], report.answers.groups[i][0]
        pairs.append(SamplePair(prompt=prompts[i].messages[-1].content, before=old.text, after=new.text, before_score=float(report.before_scores[i]),
                                after_score=float(report.after_scores[i]),
                                before_tokens=num_written_tokens(old), after_tokens=num_written_tokens(new),
                                after_label=report.name))  # fmt: skip
    return pairs
