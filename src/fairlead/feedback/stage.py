"""The feedback stage: completions to comparisons, comparisons to judgments, here by simulated raters with a known truth.

Flow: after completions, before preferences. People's votes enter through the same records (task, judgment), from the file of the
rating application that `path` names (people.py); this stage makes them where no people are at hand, so that the whole loop can be run
and measured.

Reads completions.jsonl and prompts.jsonl, and the gold scorer from `services.extras["gold_scorer"]`; nothing of it with `path`.
Writes tasks.jsonl, judgments.jsonl, and gold.jsonl. What gold.jsonl holds no rater sees and no later step learns from: it serves
tests and the figure that says how often votes are right.

Example:
    config = parse_config(FeedbackConfig, {"votes_per_pair": 5, "panel": {"rater-03": {"side_bias": 1.5}}}, where="feedback")
    summary = run(config, inputs={"completions": folder_1, "prompts": folder_2}, out=folder_3, services=services)
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pydantic

from fairlead.core.config import Config
from fairlead.core.errors import ConfigError, DataError, Interrupted, explain, nearest
from fairlead.core.io import read_records, write_jsonl
from fairlead.core.protocols import Scorer
from fairlead.core.records import Completion, Judgment, Prompt, Task
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.feedback.people import take_votes
from fairlead.feedback.round import GATES as GATES
from fairlead.feedback.round import Collected, summarise
from fairlead.feedback.simulated import RaterTraits, ScoreTable, SimulatedRater, simulated_panel
from fairlead.feedback.tasks import Assignment, TaskPlan, assign_raters, make_tasks


class RaterOverride(Config):
    """Traits of one simulated rater that replace the drawn ones; only the keys that are given count."""

    ability: float = pydantic.Field(default=3.0, ge=0)
    """Logits for a typical difference in gold score."""
    lapse: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of judgments that are a coin flip."""
    side_bias: float = 0.0
    """Logits towards the left; negative favours the right."""
    tie_width: float = pydantic.Field(default=0.0, ge=0)
    """Logits by which one side must lead; only with ties: allowed."""
    length_bias: float = 0.0
    """Logits for e times as many characters."""
    half_life: float | None = pydantic.Field(default=None, gt=0)
    """Judgments after which the ability has halved; None does not drift."""


class FeedbackConfig(Config):
    """Votes of people from a file, or how many comparisons are rated by how many simulated raters, under which rules."""

    path: str | None = None
    """File of people's votes that `fairlead annotate export` wrote (comparisons.jsonl); null simulates raters."""
    num_raters: int = pydantic.Field(default=20, ge=1)
    """Simulated raters in the panel."""
    votes_per_pair: int = pydantic.Field(default=5, ge=1)
    """Raters who see each pair; weighting raters pays from 5 on, diagnosing them from 3 on."""
    pairs_per_prompt: int = pydantic.Field(default=1, ge=1)
    """At most this many pairs of different completions of one prompt."""
    guideline_version: str = "none"
    """Version of the guideline that raters followed; recorded in every task and judgment."""
    ties: Literal["forced", "allowed"] = "forced"
    """forced: every judgment names a winner; allowed: raters may call a tie."""
    cost_per_judgment: float = pydantic.Field(default=0.30, ge=0)
    """Dollars for one judgment by a person; prices what people would have cost. Simulated judgments cost 0."""
    panel: dict[str, RaterOverride] = pydantic.Field(default_factory=dict)
    """Traits to change, by rater name (rater-01, rater-02, ...)."""

    @pydantic.model_validator(mode="after")
    def _check_source(self) -> Self:
        simulated = sorted(self.model_fields_set - {"path", "cost_per_judgment"})
        if self.path is not None and simulated:
            raise ValueError(explain(simulated[0], getattr(self, simulated[0]), "says how raters are simulated, but path names votes of people",
                                     expected="path, or simulated raters", remedy="Remove one of them"))  # fmt: skip
        return self

    @pydantic.model_validator(mode="after")
    def _check_panel(self) -> Self:
        if self.votes_per_pair > self.num_raters:
            raise ValueError(explain("votes_per_pair", self.votes_per_pair, "needs more raters than there are",
                                     expected=f"<= num_raters={self.num_raters}", remedy="Lower it or raise num_raters"))  # fmt: skip
        for name, traits in self.panel.items():
            if traits.tie_width > 0 and self.ties == "forced":
                raise ValueError(explain(f"panel.{name}.tie_width", traits.tie_width, "has no effect when ties are forced", expected="0",
                                         remedy="Set ties: allowed or remove it"))  # fmt: skip
        return self


def run(config: FeedbackConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Take the votes of people, or make tasks, let the simulated panel judge them, and write what was said.

    Raises:
        DataError: completions without a prompt, no pair of different texts, or no pair that the gold scorer can tell apart.
        Interrupted: ctrl-C; nothing is written, because the same seed gives the same judgments again.
    """
    if config.path is not None:
        return take_votes(
            services.extras["find_file"](config.path), out=out, cost_per_judgment=config.cost_per_judgment
        )
    material = _read_material(inputs)
    plan = make_tasks(
        material.by_prompt(), pairs_per_prompt=config.pairs_per_prompt, seed=services.seed,
        guideline_version=config.guideline_version,
    )  # fmt: skip
    _require_tasks(plan)
    tasks, gold, differences = _score(plan.tasks, material, services.extras["gold_scorer"])
    raters = _panel(config, gold=gold, unit=_typical(differences), seed=services.seed)
    assignments = assign_raters(tasks, raters=list(raters), votes_per_pair=config.votes_per_pair, seed=services.seed)
    start = time.perf_counter()
    judgments = _judge(assignments, raters, material, services)
    duration_s = time.perf_counter() - start
    write_jsonl(out / "tasks.jsonl", tasks)
    write_jsonl(out / "judgments.jsonl", judgments)
    write_jsonl(out / "gold.jsonl", ({"task_id": task.id, "scorer": gold.name, "difference": float(d)}
                                     for task, d in zip(tasks, differences, strict=True)))  # fmt: skip
    collected = Collected(
        plan=plan, judgments=judgments, panel=[rater.traits for rater in raters.values()],
        gold={task.id: float(d) for task, d in zip(tasks, differences, strict=True)},
        duration_s=duration_s, ties=config.ties, cost_per_judgment=config.cost_per_judgment,
    )  # fmt: skip
    return summarise(collected)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Material:
    """Prompts and completions by id."""

    prompts: Mapping[str, Prompt]
    completions: Mapping[str, Completion]

    def by_prompt(self) -> dict[str, list[Completion]]:
        """Completions of each prompt, prompts in the order of the file of completions."""
        groups: dict[str, list[Completion]] = {}
        for completion in self.completions.values():
            groups.setdefault(completion.prompt_id, []).append(completion)
        return groups


def _read_material(inputs: Mapping[str, Path]) -> _Material:
    path = inputs["completions"] / "completions.jsonl"
    prompts = {prompt.id: prompt for prompt in read_records(inputs["prompts"] / "prompts.jsonl", Prompt)}
    completions = {completion.id: completion for completion in read_records(path, Completion)}
    for completion in completions.values():
        if completion.prompt_id not in prompts:
            raise DataError(explain(f"{path}: {completion.id}.prompt_id", completion.prompt_id, "is no prompt of prompts.jsonl",
                                    expected="completions of these prompts", remedy="Sample completions again from the current prompts"))  # fmt: skip
    return _Material(prompts=prompts, completions=completions)


def _require_tasks(plan: TaskPlan) -> None:
    if not plan.tasks:
        raise DataError(explain("feedback", None, f"has nothing to compare: of {plan.num_prompts} prompts {plan.num_identical} have only equal "
                                f"completions and {plan.num_single} fewer than two", expected="two different completions of a prompt",
                                remedy="Raise completions.num_samples or completions.temperature"))  # fmt: skip


def _score(tasks: Sequence[Task], material: _Material, scorer: Scorer) -> tuple[list[Task], ScoreTable, np.ndarray]:
    """Tasks that the gold scorer can judge, its scores, and [tasks] the differences a minus b."""
    used = list(dict.fromkeys(member for task in tasks for member in (task.completion_a, task.completion_b)))
    completions = [material.completions[name] for name in used]
    values = scorer.score([material.prompts[c.prompt_id] for c in completions], completions)
    table = ScoreTable(scorer.name, dict(zip(used, (float(v) for v in values), strict=True)))
    differences = np.array([table.values[t.completion_a] - table.values[t.completion_b] for t in tasks])
    is_judgeable = np.isfinite(differences)
    if not np.any(differences[is_judgeable] != 0):
        raise DataError(explain("gold_scorer", scorer.name, f"tells none of {len(tasks)} pairs apart", expected="different scores within pairs",
                                remedy="Check that the scorer fits these prompts"))  # fmt: skip
    return [task for task, keep in zip(tasks, is_judgeable, strict=True) if keep], table, differences[is_judgeable]


def _typical(differences: np.ndarray) -> float:
    """Root mean square: what one unit of ability refers to, so that a panel is equally good whatever the score's scale."""
    return float(np.sqrt(np.mean(differences**2)))


def _panel(config: FeedbackConfig, *, gold: Scorer, unit: float, seed: int) -> dict[str, SimulatedRater]:
    panel = {t.name: t for t in simulated_panel(config.num_raters, seed=seed, is_tie_allowed=config.ties == "allowed")}
    for name, override in config.panel.items():
        if name not in panel:
            raise ConfigError(explain(f"feedback.panel.{name}", None, f"is no rater of the panel{nearest(name, panel)}",
                                      expected=f"rater-01 to rater-{config.num_raters:02d}", remedy="Rename it or raise num_raters"))  # fmt: skip
        panel[name] = _overridden(panel[name], override)
    return {name: SimulatedRater(traits, gold=gold, seed=seed, unit=unit) for name, traits in panel.items()}


def _overridden(traits: RaterTraits, override: RaterOverride) -> RaterTraits:
    return dataclasses.replace(traits, **override.model_dump(exclude_unset=True))


def _judge(
    assignments: Sequence[Assignment], raters: Mapping[str, SimulatedRater], material: _Material, services: Services
) -> list[Judgment]:
    judgments: list[Judgment] = []
    with services.progress("feedback", len(assignments)) as bar:
        for item in assignments:
            if services.should_stop():
                raise Interrupted(
                    f"feedback stopped after {len(judgments)} of {len(assignments)} judgments; run the same command again"
                )
            task = item.task
            a, b = material.completions[task.completion_a], material.completions[task.completion_b]
            prompt = material.prompts[task.prompt_id]
            judgments.append(raters[item.rater].judge(task, prompt, a, b, swapped=item.swapped, order=item.order))
            bar.advance()
    return judgments
