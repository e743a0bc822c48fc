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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from fairlead.core.errors import ConfigError, explain
from fairlead.core.records import Judgment
from fairlead.stats.aggregation import Aggregate, dawid_skene, majority, one_coin, weighted
from fairlead.stats.agreement import rater_agreement
from fairlead.stats.arrays import IntArray
from fairlead.stats.rater_bradley_terry import RaterRanking, comparisons_from_rows, rater_bradley_terry
from fairlead.stats.votes import Votes, votes_from_rows

Method = Literal["majority", "dawid_skene", "one_coin", "one_coin_side_bias", "weighted", "bradley_terry"]
WINNERS = ("a", "b")
LABELS = ("a", "b", "tie")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Judgments ready to be counted: who said what of which task, when in their own work, seen on which side.

    Skips are no votes, and "both bad" is a tie: neither says which completion is better.
    """

    rows: Sequence[tuple[str, str, str]]
    """[N] (task, rater, label), label one of a, b, tie."""
    swapped: Sequence[bool]
    """[N] b was shown on the left."""
    order: Sequence[int]
    """[N] position in the rater's own sequence."""
    num_skips: int = 0
    num_both_bad: int = 0

    @classmethod
    def from_judgments(cls, judgments: Iterable[Judgment]) -> Self:
        """Read off verdicts; the order of judgments does not matter."""
        found = sorted(judgments, key=lambda j: (j.task_id, j.rater, j.id))
        rows = [(j.task_id, j.rater, j.verdict) for j in found]
        return cls.from_rows(rows, swapped=[j.swapped for j in found], order=[j.order for j in found])

    @classmethod
    def from_rows(
        cls, rows: Sequence[tuple[str, str, str]], *, swapped: Sequence[bool], order: Sequence[int] | None = None
    ) -> Self:
        """Take (task, rater, verdict) with any of the verdicts of a judgment, in upper or lower case."""
        verdicts = [row[2].lower() for row in rows]
        keep = [i for i, verdict in enumerate(verdicts) if verdict != "skip"]
        return cls(
            rows=[(rows[i][0], rows[i][1], verdicts[i] if verdicts[i] in WINNERS else "tie") for i in keep],
            swapped=[swapped[i] for i in keep], order=[order[i] if order is not None else 0 for i in keep],
            num_skips=len(rows) - len(keep), num_both_bad=verdicts.count("both_bad"),
        )  # fmt: skip

    @property
    def has_ties(self) -> bool:
        """True when somebody called a tie."""
        return any(label == "tie" for _, _, label in self.rows)

    @property
    def has_sides(self) -> bool:
        """True when sides were exchanged for some votes and not for others: otherwise a side bias cannot be told."""
        return any(self.swapped) and not all(self.swapped)

    def votes(self) -> Votes:
        """All votes, with tie as a label of its own when it occurs."""
        labels = LABELS if self.has_ties else WINNERS
        return votes_from_rows(self.rows, label_names=labels, swapped=self.swapped)

    def decided(self) -> "Verdicts":
        """Only the votes that name a winner."""
        keep = [i for i, row in enumerate(self.rows) if row[2] in WINNERS]
        return Verdicts(
            rows=[self.rows[i] for i in keep],
            swapped=[self.swapped[i] for i in keep],
            order=[self.order[i] for i in keep],
        )

    def orders(self) -> IntArray:
        """[N] position of each vote in its rater's sequence."""
        return np.array(self.order, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOutcome:
    """What the votes say about one pair."""

    p_a: float
    """Probability that a is better."""
    num_votes: int
    agreement: float
    """Share of the votes for the most frequent label."""

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
    counts: dict[str, Counter[str]] = {}
    for task, _, label in verdicts.rows:
        counts.setdefault(task, Counter())[label] += 1
    if method == "bradley_terry":
        _require_no_gold(method, gold)
        return _by_scores(verdicts, counts, completions or {})
    votes = verdicts.decided().votes()
    found = run_method(votes, method=method, gold=gold) if len(votes.items) else None
    p_decided = dict(zip(votes.item_names, found.posterior[:, 0], strict=True)) if found else {}
    pairs = {task: _pair(count, float(p_decided.get(task, 0.5))) for task, count in counts.items()}
    return Outcome(method=method, pairs=pairs, raters=rater_outcomes(votes, found) if found else {})


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


def _by_scores(
    verdicts: Verdicts, counts: Mapping[str, Counter[str]], completions: Mapping[str, tuple[str, str]]
) -> Outcome:
    """Bradley-Terry with raters, sides and ties: the probability is that of the scores, with their errors."""
    sides = {task: completions.get(task, (f"{task}/a", f"{task}/b")) for task in counts}
    rows = [(*sides[task], rater, _RESULTS[label]) for task, rater, label in verdicts.rows]
    fit = rater_bradley_terry(comparisons_from_rows(rows, swapped=verdicts.swapped if verdicts.has_sides else None))
    place = {name: i for i, name in enumerate(fit.completion_names)}
    pairs = {
        task: PairOutcome(p_a=fit.p_better(place[sides[task][0]], place[sides[task][1]]), num_votes=count.total(),
                          agreement=max(count.values()) / count.total())
        for task, count in counts.items()
    }  # fmt: skip
    raters = {
        name: RaterOutcome(accuracy=_expected_accuracy(fit, rows, name, place), side_bias=float(fit.side_bias[i]) if verdicts.has_sides else None)
        for i, name in enumerate(fit.rater_names)
    }  # fmt: skip
    return Outcome(method="bradley_terry", pairs=pairs, raters=raters)


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


def _pair(count: Counter[str], p_decided: float) -> PairOutcome:
    total = count.total()
    tie_share = count["tie"] / total
    p_a = (1 - tie_share) * p_decided + tie_share / 2
    return PairOutcome(p_a=p_a, num_votes=total, agreement=max(count.values()) / total)


def rater_outcomes(votes: Votes, found: Aggregate) -> dict[str, RaterOutcome]:
    """What an aggregation says about each rater."""
    bias = found.side_bias
    return {
        name: RaterOutcome(accuracy=_known(found.rater_accuracy[i]), side_bias=None if bias is None else float(bias[i]))
        for i, name in enumerate(votes.rater_names)
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
