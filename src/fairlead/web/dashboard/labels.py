"""What votes become under each way of adding them up, side by side: labels, posteriors, and what each says of the raters.

Rater reliability is shown here; no pair is weighed by it unless the recipe names the method. Decisions of adjudicators and answers of
anchors are held fixed. A ranking is read as the export writes it: a vote on every pair of its completions.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from fairlead.core.errors import DataError
from fairlead.core.summary import Chart, Series
from fairlead.feedback.costs import USABLE_P, count_usable
from fairlead.preferences.aggregate import SAID, Method, Outcome, PairTable, Verdicts
from fairlead.preferences.decisions import aggregate_decided, tabulate_decided
from fairlead.stats.rater_bradley_terry import RaterRanking, comparisons_from_rows, rater_bradley_terry
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Item
from fairlead.store.annotation.steering import Anchor
from fairlead.web.dashboard.keeping import Kept, keep
from fairlead.web.dashboard.sheet import LABELS, Sheet, sheet_of
from fairlead.web.decisions import decision_on, decisions_of
from fairlead.web.frames import pairs_of, stands_after
from fairlead.web.ranked import RankedVote, ranked_votes

METHODS: Mapping[Method, str] = {
    "majority": "Majority", "weighted": "Confidence-weighted", "one_coin": "One coin (Dawid-Skene)", "one_coin_side_bias": "One coin with side bias",
    "bradley_terry": "Bradley-Terry with raters",
}  # fmt: skip
MAX_SCORED = 1_200
"""Parameters of Bradley-Terry on a page: the curvature's inverse takes a second there. The command line goes to 6,000."""
NUM_UNSURE = 25
assert LABELS == SAID, "the sheet and the aggregation number verdicts alike"
_MAX_PAIRS = 20_000
"""Items beyond which completions are not read: no Bradley-Terry fits so many on a page."""
_ITEMS_A_QUERY = 500


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
    pair: tuple[int, int]
    """Canonical positions of its completions among those of the item."""
    num_completions: int
    """Of the item; 2 where the pair is all of it."""
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
    """Pairs whose answer is held fixed."""
    has_rankings: bool
    """Some pairs are of rankings."""
    tie_log_odds: float | None


def labels_of(database: Database, project_id: str) -> Kept[LabelsReading]:
    """At most a minute old."""
    return keep(database, project_id, "labels", lambda: _read(database, project_id), kind=LabelsReading)


def _read(database: Database, project_id: str) -> LabelsReading:
    sheet = sheet_of(database, project_id).value
    ranked = ranked_votes(database, project_id)
    with database.read() as rows:
        answers = rows.execute(
            sa.select(Anchor.root_id, Anchor.answer).where(Anchor.project_id == project_id, Anchor.kind == "gold", ~Anchor.is_retired)
        ).all()  # fmt: skip
        decisions = decisions_of(rows, project_id)
        has_few = len(sheet.item_ids) <= _MAX_PAIRS
        pairs = _pairs_of(rows, sheet.item_ids if has_few else [vote.item_id for vote in ranked])
    said = {(row[0], (0, 1)): row[1] for row in answers}  # of a ranking an answer speaks of the first two
    known = {
        pair.name: verdict
        for pair in pairs.values() if (verdict := _decided(decisions.get(pair.item_id), pair.positions) or said.get((pair.item_id, pair.positions)))
    }  # fmt: skip
    if not has_few:
        others = {item_id: verdict for (item_id, _), verdict in said.items()}
        others |= {item_id: verdict for item_id, decision in decisions.items() if (verdict := _decided(decision, (0, 1)))}  # fmt: skip
        plain = set(sheet.item_ids) - {vote.item_id for vote in ranked}
        known |= {item_id: verdict for item_id, verdict in others.items() if item_id in plain}
    return read_labels(sheet, pairs=pairs, ranked=ranked, decided=known)


def _decided(decision: Decision | None, positions: tuple[int, int]) -> str | None:
    return None if decision is None else decision_on(decision, *positions)


def _pairs_of(rows: Rows, item_ids: Iterable[str]) -> dict[str, "ItemPair"]:
    """Pairs of completions of these items, by name."""
    wanted, found = list(dict.fromkeys(item_ids)), dict[str, ItemPair]()
    for start in range(0, len(wanted), _ITEMS_A_QUERY):
        some = sa.select(Item.id, Item.completions).where(Item.id.in_(wanted[start : start + _ITEMS_A_QUERY]))
        found |= {
            pair.name: pair for item_id, completions in rows.execute(some) for pair in _pairs(item_id, completions)
        }
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPair:
    """Two completions of an item."""

    name: str
    """Of the task: the item's, and of a ranking the positions too."""
    item_id: str
    positions: tuple[int, int]
    completions: tuple[str, str]
    num_completions: int


def _pairs(item_id: str, completions: Sequence[str]) -> Iterator[ItemPair]:
    num = len(completions)
    for first, second in pairs_of(num):
        yield ItemPair(name=_name(item_id, first, second, num=num), item_id=item_id, positions=(first, second),
                       completions=(completions[first], completions[second]), num_completions=num)  # fmt: skip


def _name(item_id: str, first: int, second: int, *, num: int) -> str:
    return item_id if num == 2 else f"{item_id}:{first}:{second}"


def read_labels(
    sheet: Sheet, *, pairs: Mapping[str, ItemPair], ranked: Sequence[RankedVote] = (), decided: Mapping[str, str]
) -> LabelsReading:
    """Run every method.

    Args:
        pairs: by the name of their task; Bradley-Terry gives a completion of several pairs one score. Items of two completions may be left
            out where there are too many for it.
        ranked: votes on items of three or more completions, whole.
        decided: what is known by task: answers of anchors, verdicts of adjudicators.
    """
    verdicts = verdicts_of(sheet, ranked)
    tables: dict[Method, PairTable] = {}
    faults: dict[Method, str] = {}
    ranking: RaterRanking | None = None
    for method in METHODS if verdicts.num_votes else ():
        if method == "one_coin_side_bias" and not verdicts.has_sides:
            faults[method] = "all pairs were shown the same way round"
            continue
        try:
            if method == "bradley_terry":
                faults[method] = _too_many(verdicts, pairs)
                if not faults[method]:
                    sides = {name: pair.completions for name, pair in pairs.items()}
                    ranking = _rank(verdicts, sides)
                    tables[method] = _as_table(aggregate_decided(verdicts, decided, method=method, completions=sides))
            else:
                tables[method] = tabulate_decided(verdicts, decided, method=method)
        except DataError as error:
            faults[method] = str(error)
    base = tables.get("majority")
    return LabelsReading(
        rows=tuple(_row(method, tables.get(method), faults.get(method, ""), base) for method in METHODS),
        raters=_raters(sheet, tables, ranking), rater_methods=tuple(METHODS[method] for method in tables),
        unsure={method: _unsure(table, pairs) for method, table in tables.items()}, chart=_chart(tables), num_decisions=len(decided),
        has_rankings=bool(ranked),
        tie_log_odds=ranking.tie_log_odds if ranking else None,
    )  # fmt: skip


def _too_many(verdicts: Verdicts, pairs: Mapping[str, ItemPair]) -> str:
    """Why Bradley-Terry is not for a page; empty when it is."""
    names = verdicts.task_names
    if not all(name in pairs for name in names):
        return f"{len(names):,} pairs are too many for a page: fairlead votes aggregate --method bradley_terry"
    num = len({each for name in names for each in pairs[name].completions}) + 2 * len(verdicts.rater_names)
    return "" if num <= MAX_SCORED else f"{num:,} parameters are too many for a page: fairlead votes aggregate --method bradley_terry"  # fmt: skip


def verdicts_of(sheet: Sheet, ranked: Sequence[RankedVote]) -> Verdicts:
    """All verdicts as the aggregation takes them: of pairs from the sheet, of rankings on every pair of their completions."""
    whole = {vote.item_id for vote in ranked}
    is_pair = sheet.rows_of_items([name not in whole for name in sheet.item_ids])
    tasks = {name: number for number, name in enumerate(sheet.item_ids)}
    raters = {name: number for number, name in enumerate(sheet.rater_names)}
    said: list[tuple[int, int, int, int, int]] = []
    for vote in ranked:
        num, rater = len(vote.shown), raters.setdefault(vote.rater, len(raters))
        for first, second in pairs_of(num):
            task = tasks.setdefault(_name(vote.item_id, first, second, num=num), len(tasks))
            label, is_swapped = LABELS.index(vote.on(first, second)), int(stands_after(vote.shown, first, second))
            said.append((task, rater, label, is_swapped, vote.position))
    more = np.array(said, dtype=np.int64).reshape(-1, 5)
    columns = (sheet.items, sheet.raters, sheet.labels, sheet.swapped.astype(np.int64), sheet.positions)
    names, people, labels, swapped, order = (np.concatenate([column[is_pair], more[:, i]]) for i, column in enumerate(columns))  # fmt: skip
    return Verdicts.from_columns(
        names, people, labels, swapped=swapped.astype(np.bool_), sided=np.ones(len(names), dtype=np.bool_), order=order,
        task_names=tuple(tasks), rater_names=tuple(raters),
    )  # fmt: skip


def _rank(verdicts: Verdicts, sides: Mapping[str, tuple[str, str]]) -> RaterRanking:
    results = {"a": 1.0, "b": 0.0, "tie": 0.5}
    rows = [(*sides[item], rater, results[label]) for item, rater, label in verdicts.rows()]
    return rater_bradley_terry(comparisons_from_rows(rows, swapped=verdicts.sides()))


def _as_table(outcome: Outcome) -> PairTable:
    """In the order of the verdicts, as the tables of the other methods."""
    found = outcome.pairs.values()
    return PairTable(
        names=tuple(outcome.pairs), p_a=np.array([pair.p_a for pair in found]), raters=outcome.raters,
        num_votes=np.array([pair.num_votes for pair in found], dtype=np.int64), agreement=np.array([pair.agreement for pair in found]),
    )  # fmt: skip


def _row(method: Method, table: PairTable | None, fault: str, base: PairTable | None) -> MethodRow:
    if table is None:
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
    is_tie = np.abs(table.p_a - 0.5) < 1e-9
    num_usable = count_usable(table.p_chosen.tolist(), is_tie=is_tie.tolist(), least=USABLE_P)
    num_other = int(((table.p_a - 0.5) * (base.p_a - 0.5) < 0).sum()) if base else 0
    return MethodRow(method=method, name=METHODS[method], num_pairs=len(table.names), num_usable=num_usable, num_tied=int(is_tie.sum()),
                     mean_p=float(table.p_chosen.mean()), num_other=num_other, fault="")  # fmt: skip


def _unsure(table: PairTable, pairs: Mapping[str, ItemPair]) -> tuple[Unsure, ...]:
    p = table.p_chosen
    least = np.partition(p, NUM_UNSURE - 1)[NUM_UNSURE - 1] if len(p) > NUM_UNSURE else 1.0
    chosen = sorted(np.flatnonzero(p <= least).tolist(), key=lambda place: (p[place], table.names[place]))[:NUM_UNSURE]
    return tuple(_unsure_pair(table, place, pairs.get(table.names[place])) for place in chosen)


def _unsure_pair(table: PairTable, place: int, pair: ItemPair | None) -> Unsure:
    """Of a pair that is not kept: where there are many, only those of rankings are."""
    item_id, positions, num = (
        (pair.item_id, pair.positions, pair.num_completions) if pair else (table.names[place], (0, 1), 2)
    )
    return Unsure(
        item_id=item_id,
        pair=positions,
        num_completions=num,
        p_chosen=float(table.p_chosen[place]),
        num_votes=int(table.num_votes[place]),
    )


def _raters(sheet: Sheet, outcomes: Mapping[Method, PairTable], ranking: RaterRanking | None) -> tuple[RaterRow, ...]:
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


def _chart(outcomes: Mapping[Method, PairTable]) -> Chart | None:
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
               points=tuple((float(at), float(np.mean(outcome.p_chosen >= at - 1e-9))) for at in grid))
        for method, outcome in outcomes.items()
    )  # fmt: skip
    return Chart(question="How many pairs are how certain?", x_label="probability of the chosen side, at least", y_label="share of the pairs",
                 series=series, y_zero=True)  # fmt: skip
