"""From judgments of a pair to the probability that its first completion is better.

All rater models run on the votes that name a winner, in the canonical frame. A vote for a tie says nothing about which
completion is better: it pulls the probability towards one half by its share of the pair's votes.

    p(a better) = (1 - t) p(a | votes for a or b) + t / 2,      t = share of votes for a tie

Example:
    verdicts = Verdicts.from_judgments(judgments)
    outcome = aggregate_pairs(verdicts, method="one_coin_side_bias")
    outcome.pairs["t-1"].p_a, outcome.raters["ann"].accuracy
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from fairlead.core.errors import ConfigError, explain
from fairlead.core.records import Judgment
from fairlead.stats.aggregation import Aggregate, dawid_skene, majority, one_coin, weighted
from fairlead.stats.agreement import rater_agreement
from fairlead.stats.arrays import BoolArray, FloatArray, IntArray
from fairlead.stats.rater_bradley_terry import RaterRanking, comparisons_from_rows, rater_bradley_terry
from fairlead.stats.votes import Votes

Method = Literal["majority", "dawid_skene", "one_coin", "one_coin_side_bias", "weighted", "bradley_terry"]
WINNERS = ("a", "b")
LABELS = ("a", "b", "tie")
SAID = (*LABELS, "both_bad", "skip")
"""Verdicts of judgments."""
TIE = LABELS.index("tie")
_NUMBERS = {verdict: number for number, verdict in enumerate(SAID)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdicts:
    """Judgments ready to be counted, as columns of numbers: who said what of which task, when in their own work, seen on which side.

    Skips are no votes, and "both bad" is a tie: neither says which completion is better. Every task and rater has a vote, and they are
    numbered in the order of their first.
    """

    tasks: IntArray
    """[N] in `task_names`."""
    raters: IntArray
    """[N] in `rater_names`."""
    labels: IntArray
    """[N] in `LABELS`."""
    swapped: BoolArray
    """[N] b was shown on the left."""
    sided: BoolArray
    """[N] False of votes without sides."""
    order: IntArray
    """[N] position in the rater's own sequence."""
    task_names: tuple[str, ...]
    rater_names: tuple[str, ...]
    num_skips: int = 0
    num_both_bad: int = 0

    @classmethod
    def from_judgments(cls, judgments: Iterable[Judgment]) -> Self:
        """Read off verdicts; the order of judgments does not matter."""
        found = sorted(judgments, key=lambda j: (j.task_id, j.rater, j.id))
        rows = ((j.task_id, j.rater, j.verdict) for j in found)
        swapped = [j.swapped if j.has_side else None for j in found]
        return cls.from_rows(rows, swapped=swapped, order=[j.order for j in found])

    @classmethod
    def from_rows(
        cls, rows: Iterable[tuple[str, str, str]], *, swapped: Sequence[bool | None], order: Sequence[int] | None = None
    ) -> Self:
        """Take (task, rater, verdict) with any of the verdicts of a judgment, in upper or lower case.

        Args:
            swapped: for each row, whether b was shown on the left; None of a vote without sides.
        """
        tasks, raters = dict[str, int](), dict[str, int]()
        columns = array("i"), array("i"), array("i")
        for task, rater, verdict in rows:
            columns[0].append(tasks.setdefault(task, len(tasks)))
            columns[1].append(raters.setdefault(rater, len(raters)))
            columns[2].append(_NUMBERS.get(verdict.lower(), TIE))
        places = np.zeros(len(columns[0]), dtype=np.int64) if order is None else np.array(order, dtype=np.int64)
        return cls.from_columns(
            *(np.array(column, dtype=np.int64) for column in columns), order=places, task_names=tuple(tasks), rater_names=tuple(raters),
            swapped=np.array([side is True for side in swapped], dtype=np.bool_),
            sided=np.array([side is not None for side in swapped], dtype=np.bool_),
        )  # fmt: skip

    @classmethod
    def from_columns(
        cls, tasks: IntArray, raters: IntArray, verdicts: IntArray, *, swapped: BoolArray, sided: BoolArray, order: IntArray,
        task_names: Sequence[str], rater_names: Sequence[str],
    ) -> Self:  # fmt: skip
        """The same from numbers.

        Args:
            verdicts: [N] numbers of `SAID`.
            task_names: those without a vote are left out, as are raters.
        """
        is_vote = verdicts != SAID.index("skip")
        chosen, names = numbered(tasks[is_vote], task_names)
        who, people = numbered(raters[is_vote], rater_names)
        return cls(
            tasks=chosen, raters=who, labels=np.minimum(verdicts[is_vote], TIE), swapped=swapped[is_vote], sided=sided[is_vote],
            order=order[is_vote], task_names=names, rater_names=people, num_skips=len(verdicts) - int(is_vote.sum()),
            num_both_bad=int((verdicts == SAID.index("both_bad")).sum()),
        )  # fmt: skip

    @property
    def num_votes(self) -> int:
        return len(self.tasks)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """(task, rater, label) of each vote, label one of a, b, tie."""
        columns = zip(self.tasks.tolist(), self.raters.tolist(), self.labels.tolist(), strict=True)
        return ((self.task_names[task], self.rater_names[rater], LABELS[label]) for task, rater, label in columns)

    @property
    def has_ties(self) -> bool:
        """True when somebody called a tie."""
        return bool((self.labels == TIE).any())

    @property
    def has_sides(self) -> bool:
        """True when sides were exchanged for some votes and not for others: otherwise a side bias cannot be told."""
        seen = self.swapped[self.sided]
        return bool(seen.any()) and not bool(seen.all())

    def sides(self) -> list[bool | None] | None:
        """Of each vote, whether b was shown on the left, None without sides; None for all where no side bias can be told."""
        if not self.has_sides:
            return None
        return [
            swapped if is_sided else None
            for swapped, is_sided in zip(self.swapped.tolist(), self.sided.tolist(), strict=True)
        ]

    def votes(self) -> Votes:
        """All votes, with tie as a label of its own when it occurs."""
        return Votes(
            items=self.tasks, raters=self.raters, labels=self.labels, item_names=self.task_names, rater_names=self.rater_names,
            label_names=LABELS if self.has_ties else WINNERS, swapped=self.swapped, sided=None if self.sided.all() else self.sided,
        )  # fmt: skip

    def decided(self) -> "Verdicts":
        """Only the votes that name a winner."""
        if not self.has_ties:
            return self
        kept = self.labels < TIE
        tasks, task_names = numbered(self.tasks[kept], self.task_names)
        raters, rater_names = numbered(self.raters[kept], self.rater_names)
        return Verdicts(tasks=tasks, raters=raters, labels=self.labels[kept], swapped=self.swapped[kept], sided=self.sided[kept],
                        order=self.order[kept], task_names=task_names, rater_names=rater_names)  # fmt: skip


def numbered(column: IntArray, names: Sequence[str]) -> tuple[IntArray, tuple[str, ...]]:
    """Numbers [N] anew, in the order in which they occur first, and the names of those that occur."""
    used, first, which = np.unique(column, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    places = np.empty(len(used), dtype=np.int64)
    places[order] = np.arange(len(used))
    kept: list[int] = used[order].tolist()
    return places[which.reshape(-1)], tuple(names[i] for i in kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOutcome:
    """What the votes say about one pair."""

    p_a: float
    """Probability that a is better."""
    num_votes: int
    agreement: float
    """Share of the votes for the most frequent label."""
    score_gap: float | None = None
    """Of bradley_terry: score of a minus score of b, log-odds."""
    score_gap_error: float | None = None
    """Its standard error."""

    @property
    def p_chosen(self) -> float:
        """Probability that the likelier completion is better, in [0.5, 1]."""
        return max(self.p_a, 1 - self.p_a)


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterOutcome:
    """What the aggregation says about one rater; None where it says nothing."""

    accuracy: float | None
    """Estimated share of right votes among those that name a winner."""
    side_bias: float | None
    """Log-odds towards the left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Pairs and raters after aggregation."""

    method: Method
    pairs: dict[str, PairOutcome]
    raters: dict[str, RaterOutcome]


def choose_method(wanted: Method | Literal["auto"], verdicts: Verdicts) -> Method:
    """`auto` models side bias where sides were recorded and exchanged, otherwise one accuracy for each rater."""
    if wanted != "auto":
        return wanted
    return "one_coin_side_bias" if verdicts.has_sides else "one_coin"


def aggregate_pairs(
    verdicts: Verdicts,
    *,
    method: Method,
    completions: Mapping[str, tuple[str, str]] | None = None,
    gold: Mapping[str, str] | None = None,
) -> Outcome:
    """Give every pair with a vote its probability, and every rater an estimate.

    Args:
        completions: ids of both completions of a task; `bradley_terry` gives a completion that stands in several pairs one score.
        gold: {task: a or b} of anchors, whose truth is held fixed; only for the methods that estimate raters.
    Raises:
        DataError: a rater voted twice on one pair.
    """
    if method == "bradley_terry":
        _require_no_gold(method, gold)
        return _by_scores(verdicts, completions or {})
    table = tabulate(verdicts, method=method, gold=gold)
    columns = zip(table.names, table.p_a.tolist(), table.num_votes.tolist(), table.agreement.tolist(), strict=True)
    pairs = {task: PairOutcome(p_a=p_a, num_votes=num, agreement=agreement) for task, p_a, num, agreement in columns}
    return Outcome(method=method, pairs=pairs, raters=table.raters)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairTable:
    """`Outcome` as columns, for a page on any number of pairs. Legend: T tasks with a vote."""

    names: tuple[str, ...]
    p_a: FloatArray
    """[T] probability that a is better."""
    num_votes: IntArray
    """[T]"""
    agreement: FloatArray
    """[T] share of the votes for the most frequent label."""
    raters: dict[str, RaterOutcome]

    @property
    def p_chosen(self) -> FloatArray:
        """[T] probability that the likelier completion is better, in [0.5, 1]."""
        return np.maximum(self.p_a, 1 - self.p_a)


def tabulate(verdicts: Verdicts, *, method: Method, gold: Mapping[str, str] | None = None) -> PairTable:
    """`aggregate_pairs` as columns, by any method but bradley_terry."""
    decided = verdicts.decided()
    votes = decided.votes()
    found = run_method(votes, method=method, gold=gold) if len(votes.items) else None
    p_decided = np.full(len(verdicts.task_names), 0.5)
    if found is not None:
        first, second = verdicts.tasks[verdicts.labels < TIE], decided.tasks
        p_decided[first] = found.posterior[second, 0]
    size = len(LABELS)
    counts = np.bincount(verdicts.tasks * size + verdicts.labels, minlength=size * len(verdicts.task_names)).reshape(
        -1, size
    )
    total = counts.sum(1)
    tie_share = counts[:, TIE] / np.maximum(total, 1)
    return PairTable(
        names=verdicts.task_names, p_a=(1 - tie_share) * p_decided + tie_share / 2, num_votes=total.astype(np.int64),
        agreement=counts.max(1, initial=0) / np.maximum(total, 1), raters=rater_outcomes(votes, found) if found else {},
    )  # fmt: skip


def run_method(votes: Votes, *, method: Method, gold: Mapping[str, str] | None = None) -> Aggregate:
    """Dispatch to the rater model; `weighted` takes each rater's agreement with the majority of the others as accuracy.

    Raises:
        ConfigError: gold for a method that estimates nothing, or scores for labels that are no pairs.
    """
    match method:
        case "majority":
            _require_no_gold(method, gold)
            return majority(votes)
        case "dawid_skene":
            return dawid_skene(votes, gold=gold)
        case "one_coin":
            return one_coin(votes, gold=gold)
        case "one_coin_side_bias":
            return one_coin(votes, side_bias=True, gold=gold)
        case "weighted":
            _require_no_gold(method, gold)
            found = rater_agreement(votes)
            return weighted(
                votes, [found[r].value for r in votes.rater_names], num_observed=[found[r].n for r in votes.rater_names]
            )
        case "bradley_terry":
            raise ConfigError(explain("method", method, "scores completions, not labels", expected="pairs with labels a and b",
                                      remedy="Give the texts with --items, or choose one_coin"))  # fmt: skip


def _require_no_gold(method: Method, gold: Mapping[str, str] | None) -> None:
    if gold:
        raise ConfigError(explain("gold", None, f"has no use in {method}", expected="dawid_skene, one_coin or one_coin_side_bias",
                                  remedy="Choose one of these or leave gold out"))  # fmt: skip


def _by_scores(verdicts: Verdicts, completions: Mapping[str, tuple[str, str]]) -> Outcome:
    """Bradley-Terry with raters, sides and ties: the probability is that of the scores, with their errors."""
    counts: dict[str, Counter[str]] = {}
    for task, _, label in verdicts.rows():
        counts.setdefault(task, Counter())[label] += 1
    sides = {task: completions.get(task, (f"{task}/a", f"{task}/b")) for task in counts}
    rows = [(*sides[task], rater, _RESULTS[label]) for task, rater, label in verdicts.rows()]
    fit = rater_bradley_terry(comparisons_from_rows(rows, swapped=verdicts.sides()))
    place = {name: i for i, name in enumerate(fit.completion_names)}
    pairs = {task: _scored(fit, place[sides[task][0]], place[sides[task][1]], count) for task, count in counts.items()}
    raters = {
        name: RaterOutcome(accuracy=_expected_accuracy(fit, rows, name, place), side_bias=float(fit.side_bias[i]) if verdicts.has_sides else None)
        for i, name in enumerate(fit.rater_names)
    }  # fmt: skip
    return Outcome(method="bradley_terry", pairs=pairs, raters=raters)


def _scored(fit: RaterRanking, first: int, second: int, count: Counter[str]) -> PairOutcome:
    gap, error = fit.gap(first, second)
    return PairOutcome(p_a=fit.p_better(first, second), num_votes=count.total(), agreement=max(count.values()) / count.total(), score_gap=gap,
                       score_gap_error=error)  # fmt: skip


_RESULTS = {"a": 1.0, "b": 0.0, "tie": 0.5}


def _expected_accuracy(
    fit: RaterRanking, rows: Sequence[tuple[str, str, str, float]], rater: str, place: Mapping[str, int]
) -> float:
    """Mean chance that the rater names the completion with the higher score, over the pairs that the rater saw."""
    a = float(fit.discrimination[fit.rater_names.index(rater)])
    gaps = [
        abs(float(fit.scores[place[first]] - fit.scores[place[second]]))
        for first, second, name, _ in rows
        if name == rater
    ]
    return sum(1 / (1 + math.exp(-a * gap)) for gap in gaps) / len(gaps)


def rater_outcomes(votes: Votes, found: Aggregate) -> dict[str, RaterOutcome]:
    """What an aggregation says about each rater."""
    bias = found.side_bias
    return {
        name: RaterOutcome(accuracy=_known(found.rater_accuracy[i]), side_bias=None if bias is None else float(bias[i]))
        for i, name in enumerate(votes.rater_names)
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
