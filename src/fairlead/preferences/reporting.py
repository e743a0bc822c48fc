"""What the preferences stage says: how many pairs, how sure, how far raters agreed, and what that allows a reward model."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairlead.core.gates import GateResult, percent, percent_interval, some
from fairlead.core.records import Preference
from fairlead.core.sections import Scope
from fairlead.core.summary import Figure, StageSummary, Table
from fairlead.preferences.aggregate import Outcome, Verdicts
from fairlead.preferences.agreement import AgreementReading, Ceiling, as_figure
from fairlead.preferences.counts import judge_count
from fairlead.preferences.pairs import Ledger, count_contradictions
from fairlead.preferences.raters import RaterReading, rater_table
from fairlead.preferences.truth import TruthReading

_POSTERIOR_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteReading:
    """Everything that was read off the votes."""

    verdicts: Verdicts
    outcome: Outcome
    agreement: AgreementReading
    raters: list[RaterReading]
    ceiling: Ceiling | None
    truth: TruthReading | None
    guideline_versions: tuple[str, ...]
    rater_kinds: tuple[str, ...]
    num_decisions: int
    """Pairs that an adjudicator decided, by the rule `decide`."""


def summarise(
    preferences: Sequence[Preference],
    *,
    votes: VoteReading | None,
    ledger: Ledger,
    scope: Scope,
    notes: tuple[str, ...] = (),
) -> StageSummary:
    """Compose the summary; gates about agreement are judged only where single votes are known."""
    num_train = sum(p.split == "train" for p in preferences)
    verdicts: list[GateResult] = [judge_count(num_train, scope=scope)]
    tables, figures = [_posterior_table(preferences)], _count_figures(preferences, ledger)
    if votes is not None:
        verdicts = [*votes.agreement.verdicts(), *verdicts]
        figures += _vote_figures(votes)
        tables = [votes.agreement.table(), rater_table(votes.raters), *tables]
    if ledger.dropped:
        tables.append(
            Table(title="Pairs left out", columns=("reason", "pairs"), rows=tuple(ledger.dropped.most_common()))
        )
    return StageSummary(
        stage="preferences", headline=_headline(preferences, votes, ledger), figures=tuple(figures), verdicts=tuple(verdicts),
        tables=tuple(tables), notes=(*notes, *_notes(preferences, votes)), facts=_facts(preferences, votes, ledger),
    )  # fmt: skip


def _headline(preferences: Sequence[Preference], votes: VoteReading | None, ledger: Ledger) -> str:
    num_train = sum(p.split == "train" for p in preferences)
    text = f"{some(num_train, 'preference')} to train on and {len(preferences) - num_train:,} held out"
    if ledger.dropped:
        text += f" of {some(ledger.total_in, 'pair')} ({ledger.reasons()} left out)"
    if votes is None:
        return f"{text}, read from a file."
    p = votes.agreement.percent
    if not math.isfinite(p.value):
        return f"{text}; agreement was not measured, for no pair has two votes."
    return f"{text}; raters agree on {percent(p.value)} of shared pairs ({percent_interval(p.low, p.high)})."


def _count_figures(preferences: Sequence[Preference], ledger: Ledger) -> list[Figure]:
    num_train = sum(p.split == "train" for p in preferences)
    values = {
        "preferences to train on": num_train, "preferences held out": len(preferences) - num_train,
        "prompts": len({p.prompt for p in preferences}), "ties kept": sum(p.is_tie for p in preferences), "pairs left out": ledger.total_dropped,
    }  # fmt: skip
    return [Figure(name=name, value=value, note="a count, exact") for name, value in values.items()]


def _vote_figures(votes: VoteReading) -> list[Figure]:
    figures = [*votes.agreement.figures()]
    if votes.ceiling is not None:
        figures += votes.ceiling.figures()
    if votes.truth is not None:
        figures += [
            as_figure("single-vote accuracy against gold", "share", votes.truth.single),
            as_figure("aggregated accuracy against gold", "share", votes.truth.aggregated),
            as_figure(
                "gain of aggregation", "share", votes.truth.gain, note="aggregated minus single, paired by prompt"
            ),
        ]
    return figures


def _posterior_table(preferences: Sequence[Preference]) -> Table:
    """How sure the pairs are; held-out pairs included."""
    values = np.array([p.p_chosen for p in preferences])
    rows: list[tuple[str | float | int | None, ...]] = []
    for low, high in itertools.pairwise(_POSTERIOR_EDGES):
        is_last = high == _POSTERIOR_EDGES[-1]
        num = int(np.sum((values >= low) & ((values <= high) if is_last else (values < high))))
        rows.append((f"{low:g} to {high:g}", num, num / len(values)))
    return Table(
        title="How sure the pairs are",
        columns=("probability of the chosen completion", "pairs", "share"),
        rows=tuple(rows),
    )


def _notes(preferences: Sequence[Preference], votes: VoteReading | None) -> list[str]:
    notes: list[str] = []
    num_both = count_contradictions(preferences)
    if num_both:
        notes.append(f"{some(num_both, 'pair occurs', 'pairs occur')} in both directions and pull against each other.")
    if votes is None:
        return notes
    found = votes.verdicts
    notes += votes.agreement.notes()
    notes.append(
        f"Aggregated with {votes.outcome.method}; {some(found.num_votes, 'vote')} by {', '.join(votes.rater_kinds)} raters."
    )
    if found.num_skips:
        notes.append(f"{some(found.num_skips, 'skip is no vote', 'skips are no votes')}.")
    if votes.num_decisions:
        notes.append(
            f"{some(votes.num_decisions, 'pair is', 'pairs are')} as an adjudicator decided (rule decide), whatever the votes say."
        )
    if found.num_both_bad:
        count_as = ('verdict "both bad" counts as a tie: it does', 'verdicts "both bad" count as ties: they do')
        notes.append(f"{some(found.num_both_bad, *count_as)} not say which is better.")
    flagged: dict[str, list[str]] = {}
    for reading in votes.raters:
        for flag in reading.flags:
            flagged.setdefault(flag, []).append(reading.name)
    notes += [f"Raters with the remark {flag}: {', '.join(sorted(names))}." for flag, names in sorted(flagged.items())]
    if len(votes.guideline_versions) > 1:
        notes.append(
            f"Votes were given under several versions of the guideline: {', '.join(votes.guideline_versions)}."
        )
    if votes.truth is not None:
        notes.append(
            "Accuracies against gold are known because raters were simulated; no label was made from the gold score."
        )
    return notes


def _facts(preferences: Sequence[Preference], votes: VoteReading | None, ledger: Ledger) -> dict[str, Any]:
    """What later stages read; a name is left out where its value is unknown."""
    decided = [p for p in preferences if not p.is_tie]
    splits = Counter(p.split for p in preferences)
    facts: dict[str, Any] = {
        "num_train": splits["train"], "num_heldout": splits["heldout"], "num_pairs_in": ledger.total_in,
        "num_left_out": dict(ledger.dropped), "num_ties": len(preferences) - len(decided),
    }  # fmt: skip
    if votes is None:
        return facts
    if decided:
        # Expected share of right labels, if the rater model holds: what a perfect scorer would reach on these labels.
        facts["ceiling_label"] = float(np.mean([p.p_chosen for p in decided]))
    found = votes.agreement
    for name, interval in (("agreement", found.percent), ("alpha", found.alpha)):
        if math.isfinite(interval.value):
            facts[name] = interval.value
    if votes.ceiling is not None:
        facts |= votes.ceiling.facts()
    if votes.truth is not None:
        facts |= {"single_vote_accuracy": votes.truth.single.value, "aggregated_accuracy": votes.truth.aggregated.value}
    facts["method"] = votes.outcome.method
    facts["flagged_raters"] = {r.name: list(r.flags) for r in votes.raters if r.flags}
    return facts
