"""Scores of a finished or running policy's samples once more, by the models that were active when they were first scored.

Example:
    for again in score_again(pipeline, policy="ppo", step=200): ...
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairlead.core.config import parse_config
from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.reward_section import ComposeSection
from fairlead.core.services import Services
from fairlead.models.load import load_tokenizer
from fairlead.pipeline.composing import composer_factory
from fairlead.pipeline.run import Pipeline
from fairlead.rewards.scored import SCORED_FILE, ScoredSample, read_scored
from fairlead.store.artifacts import Artifact
from fairlead.text import ChatText
from fairlead.train.budget import PlainBudget
from fairlead.train.memory import MOST_TOKENS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredAgain:
    """One component's score of one sample, then and now."""

    sample: ScoredSample
    component: str
    active: str
    """Artifact id of the model that scored; empty for what is no model."""
    then: float
    now: float

    @property
    def is_same(self) -> bool:
        """Equal but for rounding: batches were cut otherwise."""
        return math.isclose(self.then, self.now, rel_tol=1e-4, abs_tol=1e-4) or (
            math.isnan(self.then) and math.isnan(self.now)
        )


def score_again(pipeline: Pipeline, *, policy: str, step: int | None = None) -> Iterator[ScoredAgain]:
    """Every logged score of a policy (of one step) beside what the same model says now.

    Judges compare within a group, of which the log may hold a part; they are left out.

    Raises:
        ConfigError: no such policy, or it has no composed reward.
        DataError: nothing was logged (of that step).
        StoreError: a model that scored was deleted.
    """
    artifact = _policy(pipeline, policy)
    section = _section(artifact, policy)
    rows = [row for row in _logged(artifact) if step is None or row.step == step]
    if not rows:
        steps = sorted({row.step for row in _logged(artifact)})
        raise DataError(explain("--step", step, "has no logged samples", expected="one of " + ", ".join(map(str, steps[:20])),
                                remedy="Name another step, or set rewards.log_samples"))  # fmt: skip
    inputs = {role: pipeline.store.get(id) for role, id in artifact.inputs.items()}
    text = pipeline.recipe.text
    chat = ChatText(load_tokenizer(str(artifact.path)), template=text.template, name=policy)
    services = Services(work=Path(), seed=pipeline.recipe.seed, device=pipeline.device)
    compose = composer_factory(store=pipeline.store, folders=pipeline.finder.folders, find_file=pipeline.finder.find,
                               inputs={role: found.path for role, found in inputs.items()}, services=services, template=text.template)  # fmt: skip
    kept = {name: part for name, part in section.components.items() if part.type != "judge"}
    if not kept:
        raise ConfigError(explain(f"policies.{policy}.rewards", None, "has judges only, which compare within a group",
                                  expected="a component that scores by itself", remedy="There is nothing to score again"))  # fmt: skip
    composer = compose(section.model_copy(update={"components": kept, "log_samples": 0}), prompts=None, policy=chat,
                       budget=PlainBudget(MOST_TOKENS), heed=lambda: None)  # fmt: skip
    for at in sorted({row.step for row in rows}):
        of_step = [row for row in rows if row.step == at]
        found = composer.answers([row.prompt for row in of_step], [row.completion for row in of_step], step=at)
        yield from _compared(of_step, found)


def _compared(rows: list[ScoredSample], found: Mapping[str, np.ndarray]) -> Iterator[ScoredAgain]:
    for i, row in enumerate(rows):
        for name, values in found.items():
            yield ScoredAgain(
                sample=row,
                component=name,
                active=row.active.get(name, ""),
                then=row.components[name],
                now=float(values[i]),
            )


def _policy(pipeline: Pipeline, policy: str) -> Artifact:
    made = {
        name.partition(".")[2]: r.artifact
        for name, r in pipeline.records.items()
        if name.startswith("policies.") and r.artifact
    }
    if policy not in made:
        raise ConfigError(explain("--policy", policy, f"was not trained in run {pipeline.recipe.name}{nearest(policy, made)}",
                                  expected="one of " + ", ".join(made) if made else "a run that trained one",
                                  remedy="Name another policy"))  # fmt: skip
    return made[policy]


def _section(artifact: Artifact, policy: str) -> ComposeSection:
    """The section as it was when the policy was trained, whatever the recipe says now."""
    data = artifact.manifest["config"].get("rewards")
    if not data:
        raise ConfigError(explain(f"policies.{policy}.rewards", None, "is not there, so nothing was logged", expected="a composed reward",
                                  remedy="Name a policy with rewards.components"))  # fmt: skip
    return parse_config(ComposeSection, data, where=f"policies.{policy}.rewards")


def _logged(artifact: Artifact) -> list[ScoredSample]:
    path = artifact.path / SCORED_FILE
    return list(read_scored(path)) if path.is_file() else []
