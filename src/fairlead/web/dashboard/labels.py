"""What votes become under each way of adding them up, side by side: labels, posteriors, and what each says of the raters.

Rater reliability is shown here; no pair is weighed by it unless the recipe names the method. Decisions of adjudicators and answers of
anchors are held fixed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from fairlead.core.errors import DataError
from fairlead.core.summary import Chart, Series
from fairlead.feedback.costs import USABLE_P, count_usable
from fairlead.preferences.aggregate import Method, Outcome, Verdicts
from fairlead.preferences.decisions import aggregate_decided
from fairlead.stats.rater_bradley_terry import RaterRanking, comparisons_from_rows, rater_bradley_terry
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Item
from fairlead.store.annotation.steering import Anchor
from fairlead.web.dashboard.keeping import Kept, keep
from fairlead.web.dashboard.sheet import LABELS, Sheet, sheet_of
from fairlead.web.decisions import decisions_of

METHODS: Mapping[Method, str] = {
    "majority": "Majority", "weighted": "Confidence-weighted", "one_coin": "One coin (Dawid-Skene)", "one_coin_side_bias": "One coin with side bias",
    "bradley_terry": "Bradley-Terry with raters",
}  # fmt: skip
MAX_SCORED = 1_200
"""Parameters of Bradley-Terry on a page: the curvature's inverse takes a second there. The command line goes to 6,000."""
NUM_UNSURE = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """One method on all pairs."""

    method: str
    name: str
    num_pairs: int
    num_usable: int
    """Pairs with a winner whose probability is at least 0.6."""
    num_tied: int
    mean_p: float
    """Mean probability of the chosen side."""
    num_other: int
    """Pairs with another winner than the majority has."""
    fault: str
    """Why the method did not run; empty when it did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsure:
    """A pair whose winner is least certain under the chosen method."""

    item_id: str
    p_chosen: float
    num_votes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterRow:
    """What the methods say of a rater."""

    name: str
    accuracy: tuple[float | None, ...]
    """In the order of the methods that ran."""
    side_bias: float | None
    """Log-odds to the left (one coin with side bias)."""
    discrimination: float | None
    discrimination_error: float | None
    """Of Bradley-Terry; 1 is the prior, 0 guesses, below 0 the wrong way round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsReading:
    """Everything on the page."""

    rows: tuple[MethodRow, ...]
    raters: tuple[RaterRow, ...]
    rater_methods: tuple[str, ...]
    unsure: Mapping[str, tuple[Unsure, ...]]
    chart: Chart | None
    num_decisions: int
    tie_log_odds: float | None


def labels_of(database: Database, project_id: str) -> Kept[LabelsReading]:
    """At most a minute old."""
    return keep(database, project_id, "labels", lambda: _read(database, project_id))


def _read(database: Database, project_id: str) -> LabelsReading:
    sheet = sheet_of(database, project_id).value
    with database.read() as rows:
        anchors = rows.execute(
            sa.select(Anchor.root_id, Anchor.answer).where(Anchor.project_id == project_id, Anchor.kind == "gold", ~Anchor.is_retired)
        ).all()  # fmt: skip
        known = {row[0]: row[1] for row in anchors}
        known |= {name: decision.verdict for name, decision in decisions_of(rows, project_id).items()}
        found = rows.execute(sa.select(Item.id, Item.completions).where(Item.project_id == project_id)).all()
        sides = {item_id: (completions[0], completions[1]) for item_id, completions in found}
    return read_labels(sheet, sides=sides, decided=known)


def read_labels(sheet: Sheet, *, sides: Mapping[str, tuple[str, str]], decided: Mapping[str, str]) -> LabelsReading:
    """Run every method.

    Args:
        sides: completion ids of an item; Bradley-Terry gives a completion of several pairs one score.
        decided: what is known by item: answers of anchors, verdicts of adjudicators.
    """
    verdicts = verdicts_of(sheet)
    known = {name: verdict for name, verdict in decided.items() if name in sides}
    outcomes: dict[Method, Outcome] = {}
    faults: dict[Method, str] = {}
    ranking: RaterRanking | None = None
    for method in METHODS if verdicts.rows else ():
        if method == "one_coin_side_bias" and not verdicts.has_sides:
            faults[method] = "all pairs were shown the same way round"
            continue
        if method == "bradley_terry":
            num = len({name for row in verdicts.rows for name in sides[row[0]]}) + 2 * len(sheet.rater_names)
            if num > MAX_SCORED:
                faults[method] = (
                    f"{num:,} parameters are too many for a page: fairlead votes aggregate --method bradley_terry"
                )
                continue
            ranking = _rank(verdicts, sides)
        try:
            outcomes[method] = aggregate_decided(verdicts, known, method=method, completions=sides)
        except DataError as error:
            faults[method] = str(error)
    base = outcomes.get("majority")
    return LabelsReading(
        rows=tuple(_row(method, outcomes.get(method), faults.get(method, ""), base) for method in METHODS),
        raters=_raters(sheet, outcomes, ranking), rater_methods=tuple(METHODS[method] for method in outcomes),
        unsure={method: _unsure(outcome) for method, outcome in outcomes.items()}, chart=_chart(outcomes), num_decisions=len(known),
        tie_log_odds=ranking.tie_log_odds if ranking else None,
    )  # fmt: skip


def verdicts_of(sheet: Sheet) -> Verdicts:
    """All verdicts as the aggregation takes them."""
    rows = [(sheet.item_ids[item], sheet.rater_names[rater], LABELS[label])
            for item, rater, label in zip(sheet.items.tolist(), sheet.raters.tolist(), sheet.labels.tolist(), strict=True)]  # fmt: skip
    return Verdicts.from_rows(rows, swapped=sheet.swapped.tolist(), order=sheet.positions.tolist())


def _rank(verdicts: Verdicts, sides: Mapping[str, tuple[str, str]]) -> RaterRanking:
    results = {"a": 1.0, "b": 0.0, "tie": 0.5}
    rows = [(*sides[item], rater, results[label]) for item, rater, label in verdicts.rows]
    return rater_bradley_terry(comparisons_from_rows(rows, swapped=verdicts.swapped if verdicts.has_sides else None))


def _row(method: Method, outcome: Outcome | None, fault: str, base: Outcome | None) -> MethodRow:
    if outcome is None:
        return MethodRow(
            method=method,
            name=METHODS[method],
            num_pairs=0,
            num_usable=0,
            num_tied=0,
            mean_p=math.nan,
            num_other=0,
            fault=fault,
        )
    p = {name: pair.p_a for name, pair in outcome.pairs.items()}
    chosen = [max(value, 1 - value) for value in p.values()]
    ties = [abs(value - 0.5) < 1e-9 for value in p.values()]
    other = sum((value - 0.5) * (base.pairs[name].p_a - 0.5) < 0 for name, value in p.items()) if base else 0
    return MethodRow(method=method, name=METHODS[method], num_pairs=len(p), num_usable=count_usable(chosen, is_tie=ties, least=USABLE_P),
                     num_tied=sum(ties), mean_p=float(np.mean(chosen)), num_other=other, fault="")  # fmt: skip


def _unsure(outcome: Outcome) -> tuple[Unsure, ...]:
    found = sorted(outcome.pairs.items(), key=lambda entry: (entry[1].p_chosen, entry[0]))[:NUM_UNSURE]
    return tuple(Unsure(item_id=name, p_chosen=pair.p_chosen, num_votes=pair.num_votes) for name, pair in found)


def _raters(sheet: Sheet, outcomes: Mapping[Method, Outcome], ranking: RaterRanking | None) -> tuple[RaterRow, ...]:
    rows: list[RaterRow] = []
    places = {name: i for i, name in enumerate(ranking.rater_names)} if ranking else {}
    for name in sorted(sheet.rater_names, key=str.lower):
        known = [outcome.raters.get(name) for outcome in outcomes.values()]
        sided = outcomes["one_coin_side_bias"].raters.get(name) if "one_coin_side_bias" in outcomes else None
        place = places.get(name)
        rows.append(RaterRow(
            name=name, accuracy=tuple(rater.accuracy if rater else None for rater in known), side_bias=sided.side_bias if sided else None,
            discrimination=float(ranking.discrimination[place]) if ranking and place is not None else None,
            discrimination_error=float(ranking.discrimination_errors[place]) if ranking and place is not None else None,
        ))  # fmt: skip
    return tuple(rows)


_SHORT: Mapping[str, str] = {"weighted": "Weighted"}
"""Labels of lines that would not fit."""


def _chart(outcomes: Mapping[Method, Outcome]) -> Chart | None:
    """Share of pairs at or above each certainty."""
    if not outcomes:
        return None
    grid = np.round(np.arange(0.5, 1.0001, 0.02), 2)
    roles = {
        "majority": "reference",
        "weighted": "reward",
        "one_coin": "judge",
        "one_coin_side_bias": "people",
        "bradley_terry": "policy",
    }
    series = tuple(
        Series(label=_SHORT.get(method, METHODS[method].split(" (")[0]), role=roles[method],  # pyright: ignore[reportArgumentType]
               points=tuple((float(at), float(np.mean([pair.p_chosen >= at - 1e-9 for pair in outcome.pairs.values()]))) for at in grid))
        for method, outcome in outcomes.items()
    )  # fmt: skip
    return Chart(question="How many pairs are how certain?", x_label="probability of the chosen side, at least", y_label="share of the pairs",
                 series=series, y_zero=True)  # fmt: skip
