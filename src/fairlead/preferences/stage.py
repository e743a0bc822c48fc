"""The preferences stage: votes to preferences with probabilities, and readings of how far raters agree.

Flow: after feedback, before rewards and DPO. It can also be entered with a file of preferences in any known format.

Reads tasks.jsonl and judgments.jsonl (feedback), completions.jsonl, prompts.jsonl; or the file that `path` names.
Writes preferences.jsonl (records.Preference), raters.json (when there are votes), rejects.jsonl (when a row was rejected).

Example:
    config = parse_config(PreferencesConfig, {"min_votes": 3}, where="preferences")
    summary = run(config, inputs={"feedback": f, "completions": c, "prompts": p}, out=folder, services=services)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import pydantic

from fairlead.core.config import Config
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import Gate
from fairlead.core.io import Rejects, read_records, write_json, write_jsonl
from fairlead.core.records import Completion, Judgment, Preference, Prompt, Task
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.formats import read_preferences
from fairlead.preferences import agreement, counts
from fairlead.preferences.aggregate import Method, Verdicts, choose_method
from fairlead.preferences.agreement import read_agreement, read_ceiling
from fairlead.preferences.decisions import Rule, aggregate_decided, decisions_in, ratings_in
from fairlead.preferences.pairs import (
    Candidate,
    Ledger,
    Rules,
    build_preferences,
    check_pairs,
    drop_repeats,
    follow_prompts,
    mean_ratings,
    split_by_prompt,
)
from fairlead.preferences.raters import read_raters
from fairlead.preferences.reporting import VoteReading, summarise
from fairlead.preferences.truth import read_gold, read_truth
from fairlead.stats.agreement import agreement_report

GATES: tuple[Gate, ...] = (*agreement.GATES, *counts.GATES)


class PreferencesConfig(Config):
    """How votes become preferences, or which file they are read from."""

    path: str | None = None
    """File of preferences to read instead of votes; null aggregates the votes of the feedback stage."""
    format: str | None = None
    """Name of the file's format; null detects it. Only with path."""
    aggregation: Literal["auto"] | Method = "auto"
    """Rater model; auto takes one_coin_side_bias where sides were recorded and exchanged, else one_coin."""
    decisions: Rule = "decide"
    """What an adjudicator's decision on a pair does: decide sets its probability to 1 for the side that won and 1/2 for a tie, and takes
    its ratings by criterion; beside leaves it to the votes. Votes are kept either way."""
    min_votes: int = pydantic.Field(default=1, ge=1)
    """Pairs with fewer votes are left out; skips are no votes. Not asked of a rater's edit, which nobody else is shown."""
    min_posterior: float = pydantic.Field(default=0.5, ge=0.5, lt=1)
    """Pairs whose likelier side has a lower probability count as ties."""
    ties: Literal["keep", "drop"] = "drop"
    """keep: ties are written with is_tie set (reward training can use them); drop: they are left out and counted."""
    margin: Literal["off", "log_odds"] = "off"
    """log_odds: the margin of a pair is ln(p / (1 - p)) of its probability, capped at p = 0.99; off: 0."""
    heldout: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Share of prompts held out, by hash of the prompt; not used where the file or the recipe's prompts have splits. 0 for none."""
    num_resamples: int = pydantic.Field(default=2000, ge=100)
    """Bootstrap resamples behind the intervals of agreement."""

    @pydantic.model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.format is not None and self.path is None:
            raise ValueError(
                explain(
                    "format",
                    self.format,
                    "has no file to apply to",
                    expected="path as well",
                    remedy="Set path or remove it",
                )
            )
        return self

    def rules(self) -> Rules:
        """What becomes of a pair."""
        return Rules(min_votes=self.min_votes, min_posterior=self.min_posterior, ties=self.ties, margin=self.margin)


def run(config: PreferencesConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Aggregate votes (or read a file), split by prompt, write preferences.jsonl.

    Raises:
        DataError: no preference is left, all pairs are one and the same, or votes name unknown tasks or completions.
    """
    ledger = Ledger()
    if config.path is not None:
        found, votes, notes = _from_file(config, path=services.extras["find_file"](config.path), out=out, ledger=ledger)
        if "prompts" in inputs:
            found = follow_prompts(found, read_records(inputs["prompts"] / "prompts.jsonl", Prompt))
    else:
        material = read_material(inputs)
        votes = read_votes(
            material,
            wanted=config.aggregation,
            rule=config.decisions,
            seed=services.seed,
            num_resamples=config.num_resamples,
        )
        found, notes = (
            build_preferences(material.candidates(votes, rule=config.decisions), rules=config.rules(), ledger=ledger),
            (),
        )
    distinct = drop_repeats(found, ledger)
    _require_variety(distinct, ledger)
    preferences = split_by_prompt(distinct, heldout=config.heldout)
    write_jsonl(out / "preferences.jsonl", preferences)
    if votes is not None:
        write_json(out / "raters.json", [reading.to_data() for reading in votes.raters])
    return summarise(preferences, votes=votes, ledger=ledger, scope=services.extras["scope"], notes=notes)


def _from_file(
    config: PreferencesConfig, *, path: Path, out: Path, ledger: Ledger
) -> tuple[list[Preference], None, tuple[str, ...]]:
    with Rejects(out / "rejects.jsonl") as rejects:
        reading = read_preferences(path, format=config.format, rejects=rejects)
        found = check_pairs(reading, rules=config.rules(), ledger=ledger)
    report = reading.report
    notes = [f"Read {report.used:,} of {report.rows:,} rows of {path.name} as {report.format}; "
             f"{sum(report.rejects.values()):,} rejected, {sum(report.skips.values()):,} hold no pair."]  # fmt: skip
    notes += [f"Rejected: {count:,} {reason}." for reason, count in sorted(report.rejects.items())]
    return found, None, (*notes, "The file gives no single votes: how far its raters agreed is unknown.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Everything that votes speak of, by id."""

    tasks: Mapping[str, Task]
    judgments: tuple[Judgment, ...]
    completions: Mapping[str, Completion]
    prompts: Mapping[str, Prompt]
    gold: Mapping[str, float] | None

    def candidates(self, votes: VoteReading, *, rule: Rule) -> list[Candidate]:
        """Every task with its votes, in the order of tasks.jsonl; under the rule decide, with the ratings of whoever decided it."""
        by_task: dict[str, list[Judgment]] = {}
        for judgment in sorted(self.judgments, key=lambda j: j.id):
            if judgment.verdict != "skip":
                by_task.setdefault(judgment.task_id, []).append(judgment)
        decided = {task.id: ratings_in(task) for task in self.tasks.values()} if rule == "decide" else {}
        return [
            Candidate(task=task, prompt=self.prompts[task.prompt_id], a=self.completions[task.completion_a],
                      b=self.completions[task.completion_b], outcome=votes.outcome.pairs.get(task.id),
                      judgments=tuple(j.id for j in by_task.get(task.id, ())),
                      ratings=decided.get(task.id) or mean_ratings(by_task.get(task.id, ())))
            for task in self.tasks.values()
        ]  # fmt: skip


def read_material(inputs: Mapping[str, Path]) -> Material:
    """Read the folders of feedback, completions and prompts, and check that every name is known."""
    folder = inputs["feedback"]
    tasks = {task.id: task for task in read_records(folder / "tasks.jsonl", Task)}
    prompts = {prompt.id: prompt for prompt in read_records(inputs["prompts"] / "prompts.jsonl", Prompt)}
    completions = {c.id: c for c in read_records(inputs["completions"] / "completions.jsonl", Completion)}
    judgments = tuple(read_records(folder / "judgments.jsonl", Judgment))
    for task in tasks.values():
        for name, known in (
            (task.prompt_id, prompts),
            (task.completion_a, completions),
            (task.completion_b, completions),
        ):
            if name not in known:
                raise _unknown(f"{folder / 'tasks.jsonl'}: task {task.id}", name, "prompts and completions of this run")
    for judgment in judgments:
        if judgment.task_id not in tasks:
            raise _unknown(
                f"{folder / 'judgments.jsonl'}: judgment {judgment.id}", judgment.task_id, "a task of tasks.jsonl"
            )
    gold = folder / "gold.jsonl"
    return Material(
        tasks=tasks,
        judgments=judgments,
        completions=completions,
        prompts=prompts,
        gold=read_gold(gold) if gold.exists() else None,
    )


def _unknown(where: str, name: str, expected: str) -> DataError:
    return DataError(explain(where, name, "names what is not there", expected=expected, remedy="Use files of one run"))


def read_votes(
    material: Material, *, wanted: Literal["auto"] | Method, rule: Rule = "decide", seed: int, num_resamples: int
) -> VoteReading:
    """Aggregate, and measure agreement, raters, ceiling and (where a gold score is there) accuracy."""
    verdicts = Verdicts.from_judgments(material.judgments)
    if not verdicts.num_votes:
        raise DataError(explain("judgments", None, f"holds no vote ({verdicts.num_skips} skips)", expected="votes for a or b, or ties",
                                remedy="Collect judgments first"))  # fmt: skip
    sides = {name: (task.completion_a, task.completion_b) for name, task in material.tasks.items()}
    decisions = decisions_in(material.tasks.values()) if rule == "decide" else {}
    outcome = aggregate_decided(verdicts, decisions, method=choose_method(wanted, verdicts), completions=sides)
    votes = verdicts.votes()
    found = read_agreement(votes, seed=seed, num_resamples=num_resamples)
    decided, percent = votes, found.percent
    if verdicts.has_ties:
        decided = verdicts.decided().votes()
        percent = agreement_report(decided, seed=seed, num_resamples=num_resamples)["percent_agreement"]
    truth = (
        read_truth(verdicts, outcome, tasks=material.tasks, gold=material.gold) if material.gold is not None else None
    )
    return VoteReading(
        verdicts=verdicts, outcome=outcome, agreement=found, ceiling=read_ceiling(decided, percent=percent), truth=truth,
        raters=read_raters(votes, orders=verdicts.order, outcomes=outcome.raters),
        guideline_versions=tuple(sorted({j.guideline_version for j in material.judgments})),
        rater_kinds=tuple(sorted({j.rater_kind for j in material.judgments})),
        num_decisions=len(decisions.keys() & outcome.pairs.keys()),
    )  # fmt: skip


def _require_variety(preferences: list[Preference], ledger: Ledger) -> None:
    if not preferences:
        raise DataError(explain("preferences", None, f"is empty: of {ledger.total_in:,} pairs {ledger.reasons() or 'none was there'}",
                                expected="at least one pair with a winner", remedy="Collect more votes, or lower min_votes"))  # fmt: skip
    if len(preferences) == 1 and ledger.dropped["repeating another pair"]:
        raise DataError(explain("preferences", None, f"holds one pair {1 + ledger.dropped['repeating another pair']:,} times",
                                expected="different pairs", remedy="Check the export that wrote it"))  # fmt: skip
