"""How good a reward model is on held-out pairs: accuracy, calibration, length, and the ceiling that agreement implies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.core.gates import Gate, GateResult, figure, percent, percent_interval
from fairlead.core.records import Preference
from fairlead.core.summary import Chart, Figure, Series, Table, Threshold
from fairlead.stats.calibration import Calibration, ReliabilityBin, calibration, length_correlation, reliability_bins
from fairlead.stats.intervals import Interval, wilson
from fairlead.text.packing import Tree

ACCURACY = Gate(
    name="rewards.accuracy", question="Does the reward model predict held-out preferences?", unit="share", direction="at_least", stop=0.60, warn=0.65,
    remedy="Collect more or cleaner preferences; below 60 % labels contradict each other or the model is too small",
    guide="65-75 % held-out accuracy; below 60 % means inconsistent labels",
)  # fmt: skip
CEILING = Gate(
    name="rewards.ceiling", question="Is the accuracy possible at all, given how far raters agree?", unit="share above the ceiling",
    direction="at_most", stop=None, warn=0.0,
    remedy="Accuracy above what agreement allows is a leak: look for held-out prompts in training, or a cue that gives the label away",
    guide="the ceiling is annotator agreement",
    reason="Agreement A of two raters allows one rater's labels to be predicted with accuracy up to (1 + sqrt(2A - 1)) / 2, not A; "
    "labels aggregated from several votes are surer, and their mean posterior is the ceiling",
)  # fmt: skip
SLOPE = Gate(
    name="rewards.calibration", question="Do its probabilities mean what they say?", unit="distance of log slope from 0", direction="at_most",
    stop=None, warn=0.69, remedy="Scores are over- or under-confident: fewer epochs, or use the fitted temperature",
    reason="The slope of label on margin should be 1; outside 0.5 to 2 it warns. Raw ECE is not 0 for a perfect model on a small set",
)  # fmt: skip
LENGTH = Gate(
    name="rewards.length", question="Does the score follow length?", unit="Spearman correlation", direction="at_most", stop=None, warn=0.5,
    remedy="Balance lengths of chosen and rejected, or keep a length penalty of at least the measured slope",
)  # fmt: skip
GATES: tuple[Gate, ...] = (ACCURACY, CEILING, SLOPE, LENGTH)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quality:
    """Measured on held-out pairs that are not ties."""

    accuracy: Interval
    calibration: Calibration
    bins: tuple[ReliabilityBin, ...]
    length: Interval
    """Spearman correlation of score and length over both sides."""
    by_slice: tuple[tuple[str, Interval], ...]
    longer_wins: Interval
    """Accuracy of always choosing the longer side: what length alone explains."""

    def headline(self) -> str:
        """One sentence."""
        a = self.accuracy
        return f"The reward model orders {percent(a.value)} of {a.n} held-out pairs as the votes do ({percent_interval(a.low, a.high)})."

    def figures(self, facts: Mapping[str, float]) -> tuple[Figure, ...]:
        """Figures of the report."""
        slope = self.calibration.slope
        figures = [
            _figure("held-out accuracy", self.accuracy, "share"), _figure("calibration slope", slope, ""),
            Figure(name="debiased ECE", value=self.calibration.debiased_ece, n=self.accuracy.n, note="no interval: bins are few"),
            _figure("length correlation", self.length, "Spearman"), _figure("always the longer side", self.longer_wins, "share"),
        ]  # fmt: skip
        if "length_slope_per_token" in facts:
            figures.append(
                Figure(
                    name="length slope",
                    value=facts["length_slope_per_token"],
                    unit="score a token",
                    note="on reference samples",
                )
            )
        return tuple(figures)

    def verdicts(self, preference_facts: Mapping[str, Any]) -> tuple[GateResult, ...]:
        """Gates; the ceiling only when agreement is known."""
        a, slope = self.accuracy, self.calibration.slope
        results = [ACCURACY.judge(a.value, low=a.low, high=a.high, n=a.n)]
        ceiling = preference_facts.get("ceiling_label", preference_facts.get("ceiling_high"))
        if ceiling is not None:
            note = f"Agreement allows {percent(float(ceiling))} on these labels"
            results.append(CEILING.judge(a.low - float(ceiling), n=a.n, note=note))
        if slope.value > 0 and np.isfinite(slope.value):
            results.append(SLOPE.judge(abs(float(np.log(slope.value))), n=a.n, note=f"Slope {figure(slope.value)}"))
        results.append(LENGTH.judge(self.length.value, low=self.length.low, high=self.length.high, n=self.length.n))
        return tuple(results)

    def charts(self) -> tuple[Chart, ...]:
        """Reliability: said against found."""
        points = tuple((b.confidence, b.accuracy.value) for b in self.bins)
        band = tuple((b.confidence, b.accuracy.low, b.accuracy.high) for b in self.bins)
        diagonal = Series(label="perfect", role="reference", points=((0.5, 0.5), (1.0, 1.0)))
        model = Series(label="reward model", role="reward", points=points, band=band)
        return (
            Chart(
                question="When it says 80 %, is it right in 80 %?",
                x_label="stated probability",
                y_label="share right",
                series=(model, diagonal),
            ),
        )

    def tables(self) -> tuple[Table, ...]:
        """Accuracy by slice."""
        rows = tuple((name, i.value, i.low, i.high, i.n) for name, i in self.by_slice)
        return (Table(title="Accuracy by slice", columns=("slice", "accuracy", "low", "high", "pairs"), rows=rows),)


def measure(scores: npt.NDArray[np.float64], trees: Sequence[Tree], rows: Sequence[Preference]) -> Quality:
    """Measure from scores [2P] in the order chosen, rejected."""
    chosen, rejected = np.asarray(scores[0::2], dtype=float), np.asarray(scores[1::2], dtype=float)
    is_right = (chosen > rejected) + 0.5 * (chosen == rejected)
    lengths = np.array([[len(b.token_ids) for b in t.branches] for t in trees], dtype=float)
    margins = chosen - rejected
    longer = (lengths[:, 0] > lengths[:, 1]) + 0.5 * (lengths[:, 0] == lengths[:, 1])
    slices = sorted({row.slice for row in rows})
    picked = {name: np.array([row.slice == name for row in rows]) for name in slices}
    labels = np.ones(len(margins), dtype=bool)  # the votes' winner is the chosen side by construction
    return Quality(
        accuracy=wilson(float(is_right.sum()), len(is_right)), calibration=calibration(margins, labels), bins=reliability_bins(margins, labels),
        length=length_correlation(scores, lengths.reshape(-1)), longer_wins=wilson(float(longer.sum()), len(longer)),
        by_slice=tuple((name, wilson(float(is_right[mask].sum()), int(mask.sum()))) for name, mask in picked.items()),
    )  # fmt: skip


def pair_accuracy(scores: npt.NDArray[np.float64]) -> float:
    """Share of pairs [2P] whose chosen side scores higher, ties half."""
    return float(((scores[0::2] > scores[1::2]) + 0.5 * (scores[0::2] == scores[1::2])).mean())


def history_chart(history: Sequence[tuple[float, float, float]]) -> tuple[Chart, ...]:
    """Training and held-out accuracy over the steps."""
    if not history:
        return ()
    train = Series(label="training", role="reference", points=tuple((s, a) for s, a, _ in history if np.isfinite(a)))
    heldout = Series(label="held out", role="reward", points=tuple((s, h) for s, _, h in history))
    return (Chart(question="Does it learn, or learn by heart?", x_label="optimiser step", y_label="share of pairs right", series=(train, heldout),
                  thresholds=(Threshold(label="stop", value=ACCURACY.stop or 0.0, kind="stop"),)),)  # fmt: skip


def _figure(name: str, interval: Interval, unit: str) -> Figure:
    return Figure(name=name, value=interval.value, low=interval.low, high=interval.high, n=interval.n, unit=unit)
