"""How far raters agree, what that means for a reward model, and the gates that keep noise from flowing on.

Percent agreement and kappa speak of the same thing on different scales: for two labels with balanced sides chance is one half, so
kappa = 2 p - 1. A calibration gate of 65 % is kappa 0.30, a target of 70 to 75 % is 0.40 to 0.50, and "kappa above 0.6" asks for 80 %.
Both are shown, with intervals, beside what published data sets reached.

Example:
    reading = read_agreement(verdicts.votes(), seed=0)
    reading.verdicts()[0].line()
"""

import math
from dataclasses import dataclass, replace

from fairlead.core.gates import Gate, GateResult, declared, some
from fairlead.core.gates import percent as percent_words
from fairlead.core.summary import Figure, Table
from fairlead.stats.agreement import (
    REFERENCE_ROWS,
    Level,
    agreement_report,
    kappa_from_percent,
    num_pairs,
    report_of_counts,
)
from fairlead.stats.arrays import IntArray
from fairlead.stats.calibration import agreement_ceiling, flip_rate
from fairlead.stats.intervals import Interval
from fairlead.stats.votes import Votes

AGREEMENT = Gate(
    name="preferences.agreement", question="Do two raters of one pair give the same verdict?", unit="share", direction="at_least",
    stop=0.60, warn=0.65,
    remedy="Pause: let everybody rate the same 50 pairs, discuss the disagreements, amend the guideline, rate again",
    guide="70-75 % of the time; vague guidelines give below 65 % on 50 shared pairs (G2)",
    reason="A warning at the guide's 65 %; it stops only where the whole interval lies below 60 %, for 50 pairs measure to +-13 points",
)  # fmt: skip
ALPHA = Gate(
    name="preferences.alpha", question="Do raters agree beyond chance?", unit="kappa", direction="at_least", stop=0.4, warn=0.6,
    remedy="Amend the guideline or replace raters near chance; below 0.6 do not buy more votes yet",
    guide="kappa below 0.4 is noise, above 0.6 before scaling (G1)",
    reason="Krippendorff's alpha, which is kappa for any number of votes a pair; 0.4 to 0.6 is normal for preferences, so it warns. For two "
    "balanced labels its limits are 70 % and 80 % agreement, above those of preferences.agreement: the report says so where the two differ",
)  # fmt: skip
GATES: tuple[Gate, ...] = (AGREEMENT, ALPHA)
_SEVERITY = ("PASS", "WARN", "STOP")

KAPPA_NOTE = "For two balanced choices kappa = 2p - 1: 65 % agreement is kappa 0.30, 75 % is 0.50, and 0.6 needs 80 %."
_NAMES = {
    "percent_agreement": ("percent agreement", "share"),
    "krippendorff_alpha": ("Krippendorff's alpha", "kappa"),
    "gwet_ac1": ("Gwet's AC1", "kappa"),
    "fleiss_kappa": ("Fleiss' kappa", "kappa"),
    "cohen_kappa": ("Cohen's kappa", "kappa"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementReading:
    """Agreement statistics of one set of votes."""

    report: dict[str, Interval]
    """By the names of `stats.agreement.agreement_report`."""
    label_names: tuple[str, ...]
    level: Level
    num_items: int
    num_raters: int
    num_votes: int
    num_rater_pairs: int
    """Pairs of votes on one item: what agreement is measured on."""

    @property
    def percent(self) -> Interval:
        """Percent agreement."""
        return self.report["percent_agreement"]

    @property
    def alpha(self) -> Interval:
        """Krippendorff's alpha."""
        return self.report["krippendorff_alpha"]

    @property
    def policy(self) -> str:
        """Which labels were possible: ties alone move a figure by almost twenty points."""
        return f"labels {', '.join(self.label_names)}"

    def verdicts(self) -> tuple[GateResult, ...]:
        """Both gates; where they differ, the severer one says why."""
        percent = judge_interval(AGREEMENT, self.percent, note=f"Pairs of votes on one item, {self.policy}")
        alpha = judge_interval(ALPHA, self.alpha, note=f"Statistic: Krippendorff's alpha, {self.level}, {self.policy}")
        why = self._why_they_differ(percent, alpha)
        if not why:
            return percent, alpha
        if _SEVERITY.index(percent.outcome) > _SEVERITY.index(alpha.outcome):
            return replace(percent, note=f"{percent.note}. {why}"), alpha
        return percent, replace(alpha, note=f"{alpha.note}. {why}")

    def _why_they_differ(self, percent: GateResult, alpha: GateResult) -> str:
        """The limits of alpha on the scale of per cent; empty when the verdicts are the same or one of them measured nothing."""
        if percent.outcome == alpha.outcome or not percent.n or not alpha.n:
            return ""
        text = f"{AGREEMENT.name} says {percent.outcome} of the same votes: it counts equal labels, alpha subtracts what chance alone gives"
        if self.level != "nominal" or alpha.value >= 1:
            return text
        chance_disagreement = (1 - percent.value) / (1 - alpha.value)  # of alpha = 1 - observed / expected disagreement
        at = [
            percent_words(1 - (1 - limit) * chance_disagreement)
            for limit in (ALPHA.stop, ALPHA.warn)
            if limit is not None
        ]
        return (f"{text}. Its limits {ALPHA.stop} and {ALPHA.warn} lie at {' and '.join(at)} agreement here, those of {AGREEMENT.name} at "
                f"{declared(AGREEMENT.stop or 0)} and {declared(AGREEMENT.warn or 0)}: the guides give both, and neither is bent")  # fmt: skip

    def figures(self) -> tuple[Figure, ...]:
        """Every statistic that is defined, and what the percentage means on the scale of kappa."""
        found = [as_figure(*_NAMES[name], value) for name, value in self.report.items() if math.isfinite(value.value)]
        if len(self.label_names) == 2 and math.isfinite(self.percent.value):
            p = self.percent
            implied = Interval(kappa_from_percent(p.value), kappa_from_percent(p.low), kappa_from_percent(p.high), p.n)
            found.append(
                as_figure("kappa that the percentage implies", "kappa", implied, note="2p - 1, two balanced choices")
            )
        return tuple(found)

    def notes(self) -> tuple[str, ...]:
        """Size of the measurement, the two scales, and which statistics are undefined."""
        undefined = [f"{_NAMES[n][0]} is {v.note}." for n, v in self.report.items() if not math.isfinite(v.value)]
        size = (
            f"Agreement was measured on {some(self.num_rater_pairs, 'pair')} of votes by "
            f"{some(self.num_raters, 'rater')} on {some(self.num_items, 'item')} "
            f"({self.policy}); intervals resample items."
        )
        return (size, KAPPA_NOTE, *undefined)

    def table(self) -> Table:
        """Ours above the published figures."""
        rows: list[tuple[str | float | int | None, ...]] = []
        for name, found in self.report.items():
            if math.isfinite(found.value):
                rows.append(("these votes", _NAMES[name][0], found.value, _spread(found), f"n={found.n}"))
        rows += [(row.data, row.measure, row.value, row.spread, row.source) for row in REFERENCE_ROWS]
        return Table(title="Agreement beside published figures", columns=("data", "measure", "value", "+-", "source"), rows=tuple(rows),
                     caption="Compare like with like: each row says whether ties were possible. Most published preference data would be "
                     '"moderate" on the usual scale of kappa.')  # fmt: skip


def read_agreement(votes: Votes, *, seed: int, num_resamples: int = 2000, level: Level = "nominal") -> AgreementReading:
    """Measure agreement with intervals that resample items."""
    return AgreementReading(
        report=agreement_report(votes, seed=seed, num_resamples=num_resamples, level=level), label_names=votes.label_names, level=level,
        num_items=votes.num_items, num_raters=votes.num_raters, num_votes=len(votes.items), num_rater_pairs=num_pairs(votes),
    )  # fmt: skip


def read_agreement_of_counts(
    table: IntArray,
    times: IntArray,
    *,
    label_names: tuple[str, ...],
    num_raters: int,
    seed: int,
    num_resamples: int = 2000,
) -> AgreementReading:
    """The same from how many items got which labels; without Cohen's kappa.

    Args:
        table: [D, K] votes by label; rows without a vote count no item.
        times: [D] items with these counts.
    """
    per_item = table.sum(1)
    return AgreementReading(
        report=report_of_counts(table, times, seed=seed, num_resamples=num_resamples), label_names=label_names, level="nominal",
        num_items=int(times[per_item > 0].sum()), num_raters=num_raters, num_votes=int((per_item * times).sum()),
        num_rater_pairs=int((per_item * (per_item - 1) // 2 * times).sum()),
    )  # fmt: skip


def judge_interval(gate: Gate, found: Interval, *, note: str = "") -> GateResult:
    """Hold an interval against a gate; what is undefined counts as not measured, with its reason."""
    if not math.isfinite(found.value):
        return gate.judge(0.0, n=0, note=f"Not measured: {found.note.removeprefix('undefined: ')}")
    if not math.isfinite(found.low):
        return gate.judge(found.value, n=found.n, note=f"{note}; no interval: {found.note}")
    return gate.judge(found.value, low=found.low, high=found.high, n=found.n, note=note)


def as_figure(name: str, unit: str, found: Interval, *, note: str = "") -> Figure:
    """Turn a defined interval into a figure."""
    has_ends = math.isfinite(found.low) and math.isfinite(found.high)
    return Figure(name=name, value=found.value, low=found.low if has_ends else None, high=found.high if has_ends else None,
                  n=found.n, unit=unit, note=note or found.note)  # fmt: skip


def _spread(found: Interval) -> float | None:
    half = (found.high - found.low) / 2
    return half if math.isfinite(half) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """What the noise of the votes allows; for two labels."""

    flip_rate: Interval
    """Share of votes against the better completion, if all raters err equally often and independently."""
    vote: Interval
    """Best accuracy that any scorer can reach on single votes, if every pair is equally hard."""
    vote_low: float
    """The same if some pairs are certain and the others coin flips."""

    def figures(self) -> tuple[Figure, ...]:
        """Both with intervals carried over from percent agreement."""
        return (
            as_figure("estimated flip rate", "share", self.flip_rate, note="p = f^2 + (1 - f)^2, equal and independent errors"),
            as_figure("implied ceiling on single votes", "share", self.vote,
                      note=f"if every pair is equally hard; {percent_words(self.vote_low)} if some are certain and others coin flips"),
        )  # fmt: skip

    def facts(self) -> dict[str, float]:
        """For the reward stage."""
        return {"flip_rate": self.flip_rate.value, "ceiling_low": self.vote_low, "ceiling_high": self.vote.value}


def read_ceiling(decided: Votes, *, percent: Interval) -> Ceiling | None:
    """What agreement on the votes that name a winner implies; None where it is undefined.

    Args:
        decided: votes with labels a and b only.
        percent: their percent agreement.
    """
    if len(decided.label_names) != 2 or not math.isfinite(percent.value):
        return None
    flips = Interval(
        flip_rate(percent.value), flip_rate(percent.high), flip_rate(percent.low), percent.n
    )  # falls as agreement rises
    tops = Interval(_top(percent.value), _top(percent.low), _top(percent.high), percent.n)
    return Ceiling(flip_rate=flips, vote=tops, vote_low=agreement_ceiling(percent.value)[0])


def _top(agreement: float) -> float:
    return agreement_ceiling(agreement)[1]
