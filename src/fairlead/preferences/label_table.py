"""The votes of each pair added up in every way, side by side: a row a pair, a column for each method's posterior.

    item, a, b                          the pair, by the ids that its source has
    num_votes, votes_a, votes_b, votes_tie, agreement
    decision                            what an adjudicator said; every method holds it fixed
    method, label, p_a                  under the method that was asked for: it is named, and never chosen silently
    p_a_majority, p_a_weighted, ...     probability that a is better, under each method
    arm, inclusion, inclusion_weight    how the item came in, where pairs were chosen actively
    score_gap, score_gap_error          of Bradley-Terry with raters: score of a minus score of b (log-odds), with its standard error

A method that does not run on these votes has empty cells, and a note says why. Posteriors are probabilities and have no standard error of their
own; how sure Bradley-Terry is of its scores is in `score_gap_error`, and its p_a accounts for it.

Example:
    table = label_table(items, method="one_coin")
    next(table.rows())["p_a_one_coin"], table.chosen      # 0.93, one_coin
"""

import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.core.annotations import INCLUSION, RatedItems
from fairlead.core.errors import DataError, explain
from fairlead.preferences.aggregate import Method, Outcome
from fairlead.preferences.item_pairs import Gathered, Pair, add_up, gather, named_method
from fairlead.preferences.pairs import EDITED_FROM

METHODS: tuple[Method, ...] = typing.get_args(Method)
_FIRST = (
    "item",
    "a",
    "b",
    "num_votes",
    "votes_a",
    "votes_b",
    "votes_tie",
    "agreement",
    "decision",
    "method",
    "label",
    "p_a",
)
_LAST = ("score_gap", "score_gap_error", *INCLUSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """All pairs under all methods."""

    gathered: Gathered
    outcomes: Mapping[Method, Outcome]
    """Of those methods that ran."""
    columns: tuple[str, ...]
    chosen: Method
    """Whose label and probability stand in `label` and `p_a`."""
    notes: tuple[str, ...]
    """Which methods did not run, and why."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row a pair, made anew each time."""
        known = self.outcomes[self.chosen].pairs
        for pair in self.gathered.pairs():
            if pair.task.id in known and EDITED_FROM not in pair.task.meta:
                yield _row(pair, self.outcomes, self.chosen, self.gathered.decided)


def label_table(items: RatedItems, *, method: str) -> LabelTable:
    """Add the votes up by every method.

    Args:
        method: whose result is the label; `auto` models sides where they were recorded and exchanged, and the row names what it took.
    Raises:
        ConfigError: the method is not known.
        DataError: nobody voted, or the method that was asked for does not run on these votes.
    """
    gathered = gather(items)
    if not gathered.verdicts.num_votes:
        raise DataError(
            explain(
                "votes", 0, "give no label", expected="at least one vote that is no skip", remedy="Collect votes first"
            )
        )
    chosen = named_method(method, gathered.verdicts)
    outcomes, notes = _all(gathered, chosen)
    columns = (*_FIRST, *(f"p_a_{name}" for name in METHODS), *_LAST)
    return LabelTable(gathered=gathered, outcomes=outcomes, columns=columns, chosen=chosen, notes=notes)


def _all(gathered: Gathered, chosen: Method) -> tuple[dict[Method, Outcome], tuple[str, ...]]:
    found: dict[Method, Outcome] = {}
    notes: list[str] = []
    for method in METHODS:
        if method == "one_coin_side_bias" and not gathered.verdicts.has_sides and method != chosen:
            notes.append(f"{method} is empty: all pairs were shown the same way round")
            continue
        try:
            found[method] = add_up(gathered, method=method)
        except DataError as error:
            if method == chosen:
                raise
            notes.append(f"{method} is empty: {error}")
    return found, tuple(notes)


def _row(pair: Pair, outcomes: Mapping[Method, Outcome], chosen: Method, decided: Mapping[str, str]) -> dict[str, Any]:
    said = Counter("tie" if verdict in ("tie", "both_bad") else verdict for _, verdict in pair.votes)
    now = outcomes[chosen].pairs[pair.task.id]
    scored = outcomes["bradley_terry"].pairs[pair.task.id] if "bradley_terry" in outcomes else None
    return {
        "item": pair.task.id, "a": pair.names[0], "b": pair.names[1], "num_votes": now.num_votes,
        "votes_a": said["a"], "votes_b": said["b"], "votes_tie": said["tie"], "agreement": round(now.agreement, 6),
        "decision": decided.get(pair.task.id, ""), "method": chosen, "label": "tie" if now.p_a == 0.5 else "a" if now.p_a > 0.5 else "b",
        "p_a": round(now.p_a, 6),
        **{f"p_a_{name}": round(outcomes[name].pairs[pair.task.id].p_a, 6) if name in outcomes else None for name in METHODS},
        "score_gap": _rounded(scored.score_gap if scored else None), "score_gap_error": _rounded(scored.score_gap_error if scored else None),
        **{name: pair.task.meta.get(name) for name in INCLUSION},
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
