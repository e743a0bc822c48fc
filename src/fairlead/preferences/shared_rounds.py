"""A calibration round as a table of votes: may each rater begin, and is it the guideline or a rater that fails? What `fairlead votes gate` shows.

Example:
    gate_of("round1.csv").headline
"""

import math
from pathlib import Path

from fairlead.core.gates import some
from fairlead.core.summary import Chart, Series, StageSummary, Table, Threshold
from fairlead.formats import read_votes
from fairlead.preferences.agreement import as_figure
from fairlead.stats.agreement import krippendorff_alpha, leave_one_out_outcomes
from fairlead.stats.sequential import SequentialReading, Sprt, operating_curve, read_sequence
from fairlead.stats.shared_round import RoundVerdict, read_round
from fairlead.stats.thresholds import conflict_table, kappa_at
from fairlead.stats.votes import votes_from_rows

_SHARES = tuple(round(0.45 + 0.025 * i, 3) for i in range(21))
_WORDS = {
    "pass": "passed: may rate",
    "fail": "failed: train and calibrate again",
    "undecided": "undecided at the cap: another round",
    "continue": "goes on: more pairs",
}


def gate_of(
    path: Path | str, *, item: str = "item", rater: str = "rater", label: str = "label", seed: int = 0, test: Sprt | None = None
) -> StageSummary:  # fmt: skip
    """Hold every rater against the leave-one-out majority by the sequential test, and read the round as a whole.

    Votes count in the order of the file, which is that in which they were given.
    """
    rule = test or Sprt()
    votes = votes_from_rows(read_votes(path, item=item, rater=rater, label=label))
    readings = {
        name: read_sequence(rule, [ok for _, ok in outcomes])
        for name, outcomes in leave_one_out_outcomes(votes).items()
    }
    verdict = read_round(votes, seed=seed)
    passed = sum(reading.decision == "pass" for reading in readings.values())
    return StageSummary(
        stage="votes",
        headline=f"{passed} of {some(len(readings), 'rater')} {'passes' if passed == 1 else 'pass'}; {_says(verdict)}",
        figures=tuple(as_figure(name, "share", found) for name, found in (("percent agreement", verdict.agreement),
                      ("without those who deviate", verdict.agreement_of_rest)) if math.isfinite(found.value)),
        tables=(_rater_table(readings, verdict), curve_table(rule), _scale_table()), charts=(curve_chart(rule),), notes=_notes(rule, verdict),
        facts={"decisions": {name: reading.decision for name, reading in readings.items()}, "kind": verdict.kind,
               "deviating": list(verdict.deviating), "alpha": _plain(krippendorff_alpha(votes))},
    )  # fmt: skip


def _says(verdict: RoundVerdict) -> str:
    words = {
        "clear": "the guideline is clear",
        "vague_guideline": "the guideline is vague: all disagree",
        "raters_deviate": f"{', '.join(verdict.deviating)} deviates from the rest",
        "camps": "the guideline has two readings",
        "not_measured": "no pair has two votes",
    }[verdict.kind]
    doubt = "" if verdict.is_certain or verdict.kind == "not_measured" else " (the interval leaves it open)"
    return f"{words}{doubt}. {verdict.remedy}."


def _notes(rule: Sprt, verdict: RoundVerdict) -> tuple[str, ...]:
    return (
        f"A vote is right when it equals the majority of the OTHER raters of the pair; the test is {rule.p0:.2f} against {rule.p1:.2f}, alpha "
        f"{rule.alpha:.2f}, beta {rule.beta:.2f}, at most {rule.cap} pairs, and it passes nobody at the cap.",
        f"Deviating means: raters who were exchangeable would be called so in one round of twenty (adjusted for {len(verdict.standings)} raters).",
    )


def _rater_table(readings: dict[str, SequentialReading], verdict: RoundVerdict) -> Table:
    standings = {row.rater: row for row in verdict.standings}
    rows = tuple(
        (name, _WORDS[found.decision], found.num_used, found.num_right, _plain(found.share.value), _plain(found.share.low),
         _plain(found.share.high), _plain(standings[name].own), _plain(standings[name].expected), _plain(standings[name].p_value))
        for name, found in sorted(readings.items())
    )  # fmt: skip
    return Table(title="Gate of each rater", rows=rows,
                 columns=("rater", "decision", "pairs", "agreed", "share", "low", "high", "with each other rater", "expected", "p deviating"),
                 caption="The share allows for the stopping rule: after a pass it lies below agreed / pairs.")  # fmt: skip


def curve_table(rule: Sprt) -> Table:
    """What the test does to raters of each true agreement."""
    curve = operating_curve(rule, [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85])
    rows = tuple(
        (float(p), float(a), float(b), float(c), float(n))
        for p, a, b, c, n in zip(
            curve.shares, curve.passes, curve.fails, curve.undecided, curve.mean_items, strict=True
        )
    )
    return Table(title="What the gate does to a rater of this true agreement", rows=rows,
                 columns=("true agreement", "passes", "fails", "undecided", "mean pairs"))  # fmt: skip


def curve_chart(rule: Sprt) -> Chart:
    """The operating curve."""
    curve = operating_curve(rule, _SHARES)
    points = tuple((float(p), float(chance)) for p, chance in zip(curve.shares, curve.passes, strict=True))
    return Chart(question="Who passes the gate?", x_label="true agreement", y_label="chance to pass", y_zero=True,
                 series=(Series(label="sequential test", role="people", points=points),),
                 thresholds=(Threshold(label="alpha", value=rule.alpha, kind="stop"),
                             Threshold(label="1 - beta", value=1 - rule.beta, kind="target")))  # fmt: skip


def _scale_table() -> Table:
    rows = tuple((row.agreement, row.kappa, row.kappa_with_ties) for row in conflict_table())
    return Table(title="The two scales", rows=rows, columns=("agreement", "kappa", "kappa with 15 % ties"),
                 caption=f"The gate of 65 % is kappa {kappa_at(0.65):.2f}; kappa 0.6 asks for 80 %.")  # fmt: skip


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
