"""Everything that scores a policy's completions as one object: asks each component for the prompts that it is for, survives those that
fail, composes, normalises, logs.

    prompts, completions -> router -> components (each for its rows) -> failed or infinite? drop by rule -> compose.py -> statistics

Legend: B completions of a round.

Example:
    composer = Composer(section, parts)
    composed = composer.score(prompts, completions, step=0)
    composed.total[~composed.dropped]
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import ComposedReward
from fairlead.core.records import Completion, Prompt
from fairlead.core.reward_section import ComposeSection
from fairlead.rewards.compose import group_index, normalise_then_sum, weight_then_sum
from fairlead.rewards.router import Router
from fairlead.rewards.running import RunningStatistics, running_statistics
from fairlead.rewards.scored import ScoredLog
from fairlead.rewards.sources import Source

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
_TOTAL = "total"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answers:
    """All components on all completions."""

    values: dict[str, Floats]
    failed: dict[str, Bools]
    dropped: Bools
    token_rewards: tuple[Floats, ...] | None
    is_paid: Bools
    """Completions that some component pays at single tokens."""
    metrics: dict[str, float]
    """What components log besides."""


@dataclass(slots=True, eq=False)
class Composer:
    """A `core.protocols.RewardComposer`. Not thread-safe.

    Invariant: statistics of a component belong to the model that was active when they were taken; a swap starts new ones.
    """

    section: ComposeSection
    sources: Mapping[str, Source]
    say: Callable[[str], None] = lambda _text: None
    reference: Callable[[], tuple[Sequence[Prompt], Sequence[Completion]]] | None = None
    """Reads the samples that `normalise_by: reference` stands on; [R] prompts and completions."""
    log: ScoredLog | None = None
    dollars: float = 0.0
    """See RewardComposer."""
    router: Router = field(init=False)
    _statistics: dict[str, RunningStatistics] = field(default_factory=dict[str, RunningStatistics])
    _num_failed_rounds: int = 0
    _said: set[str] = field(default_factory=set[str])

    def __post_init__(self) -> None:
        assert set(self.sources) == set(self.section.components), "a source for each component"
        self.router = Router(self.section.components)

    @property
    def needs_groups(self) -> bool:
        """See RewardComposer."""
        return self.section.normalisation == "group"

    @property
    def weights(self) -> dict[str, float]:
        """Of the components that count in the total; those paid at single tokens do not."""
        parts = self.section.components.items()
        return {name: part.weight for name, part in parts if part.weight and not self.sources[name].is_dense}

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int, is_aside: bool = False
    ) -> ComposedReward:
        """See RewardComposer."""
        answers = self._ask(prompts, completions, step=step)
        active = self.active(step)
        total = self._combine(answers, group_index(prompts), active, step=step, learns=not is_aside)
        dropped = answers.dropped | np.isnan(total)
        total = np.where(dropped, np.nan, total)
        composed = ComposedReward(
            total=total, components=answers.values, dropped=dropped, token_rewards=answers.token_rewards, is_advantage=self.needs_groups,
            active=active, metrics=self._metrics(answers, total, dropped, step=step),
        )  # fmt: skip
        if is_aside:
            return composed
        self._heed_failures(dropped)
        if self.log is not None:
            self.log.write(step, prompts, completions, composed)
        return composed

    def answers(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> dict[str, Floats]:
        """[B] raw scores by component, as `score` gives them, without touching statistics or the log."""
        return self._ask(prompts, completions, step=step).values

    def active(self, step: int) -> dict[str, str]:
        """Artifact ids of the models that score at `step`, by component."""
        found = {name: source.active(step) for name, source in self.sources.items()}
        return {name: id for name, id in found.items() if id}

    def _ask(self, prompts: Sequence[Prompt], completions: Sequence[Completion], *, step: int) -> _Answers:
        size = len(completions)
        values, failures = dict[str, Floats](), dict[str, Bools]()
        dropped, is_paid = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        tokens = [np.zeros(len(c.token_ids)) for c in completions]
        applies, metrics = self.router.applies(prompts), dict[str, float]()
        for name, source in self.sources.items():
            part, rows = self.section.components[name], np.flatnonzero(applies[name]).tolist()
            found, failed = np.full(size, np.nan), np.zeros(size, dtype=bool)
            if len(rows):
                asked = source.ask([prompts[i] for i in rows], [completions[i] for i in rows], step=step)
                found[rows], failed[rows] = asked.values, asked.failed | np.isinf(asked.values)
                found[failed] = np.nan
                metrics |= {f"reward/{name}_{key}": value for key, value in asked.metrics.items()}
                self.dollars += asked.metrics.get("judge_dollars", 0.0)
                self._tell(name, failed, asked.reason)
                for i, paid in zip(rows, asked.token_rewards or (), strict=False):
                    tokens[i] += part.weight * paid
                    is_paid[i] |= bool(part.weight) and not np.isnan(found[i])
            if part.weight and part.on_failure == "drop":
                dropped |= failed
            values[name], failures[name] = found, failed
        is_dense = any(source.is_dense for source in self.sources.values())
        return _Answers(
            values=values,
            failed=failures,
            dropped=dropped,
            token_rewards=tuple(tokens) if is_dense else None,
            is_paid=is_paid,
            metrics=metrics,
        )

    def _tell(self, name: str, failed: Bools, reason: str) -> None:
        """Stop where the recipe wants it, else say it once; the metric counts the rest."""
        if not failed.any():
            return
        why = reason or "a score that is not finite"
        if self.section.components[name].on_failure == "stop":
            raise EngineError(explain(f"rewards.components.{name}", None, f"failed on {int(failed.sum())} of {len(failed)} completions ({why})",
                                      expected="scores, for its on_failure is stop", remedy="Repair it, or set on_failure: drop"))  # fmt: skip
        if name not in self._said:
            self._said.add(name)
            self.say(f"rewards.components.{name} failed on {int(failed.sum())} of {len(failed)} completions ({why}). "
                     f"Said once; reward/{name}_failed counts them.")  # fmt: skip

    def _combine(
        self, answers: _Answers, groups: npt.NDArray[np.int64], active: Mapping[str, str], *, step: int, learns: bool
    ) -> Floats:
        """[B] totals; NaN where nothing that weighs applies."""
        known = {name: np.where(answers.dropped, np.nan, answers.values[name]) for name in self.weights}
        by = self.section.normalisation
        if not known:
            total = np.full(len(groups), np.nan)
        elif by == "group":
            total = normalise_then_sum(known, self.weights, groups)
        elif self.section.combine == "normalise_then_sum":
            scaled = {
                name: self._scaled(name, scores, active, step=step, learns=learns) for name, scores in known.items()
            }
            total = weight_then_sum(scaled, self.weights)
        else:
            total = weight_then_sum(known, self.weights)
            total = total if by == "method" else self._scaled(_TOTAL, total, active, step=step, learns=learns)
        return np.where(np.isnan(total) & answers.is_paid, 0.0, total)

    def _scaled(self, name: str, scores: Floats, active: Mapping[str, str], *, step: int, learns: bool) -> Floats:
        """[B] in units of its statistics: those of all rounds with these models (and of this one where it `learns`), or of the reference samples."""
        key = _key(name, active)
        if self.section.normalisation == "running":
            statistics = self._statistics.setdefault(key, RunningStatistics())
            if learns:
                statistics.update(scores)
        elif key not in self._statistics:
            self._take_reference(active, step=step)
        return self._statistics[key].normalised(scores)

    def _take_reference(self, active: Mapping[str, str], *, step: int) -> None:
        """Statistics of every component and of their sum on the reference samples."""
        assert self.reference is not None, "normalise_by: reference has samples"
        prompts, completions = self.reference()
        answers = self._ask(prompts, completions, step=step)
        columns = {name: answers.values[name] for name in self.weights}
        for name, scores in {**columns, _TOTAL: weight_then_sum(columns, self.weights)}.items():
            statistics = self._statistics[_key(name, active)] = RunningStatistics()
            statistics.update(scores)

    def _metrics(self, answers: _Answers, total: Floats, dropped: Bools, *, step: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, scores in answers.values.items():
            known, failed = scores[~np.isnan(scores)], answers.failed[name]
            if len(known):
                found |= {f"reward/{name}_mean": float(known.mean()), f"reward/{name}_std": float(known.std())}
            share = (~np.isnan(scores) | failed).mean() if len(scores) else 0.0
            found |= {f"reward/{name}_share": float(share), f"reward/{name}_failed": float(failed.sum())}
        kept = total[~dropped]
        if len(kept):
            found |= {"reward/total_mean": float(kept.mean()), "reward/total_std": float(kept.std())}
        swaps = {
            name: part.swaps for name, part in self.section.components.items() if part.type == "model" and part.swaps
        }
        found |= {f"reward/{name}_swaps": float(sum(at <= step for at in steps)) for name, steps in swaps.items()}
        return found | answers.metrics | {"reward/dropped": float(dropped.mean()) if len(dropped) else 0.0}

    def _heed_failures(self, dropped: Bools) -> None:
        """End the run when nothing could be scored for so long that it will not come back by itself."""
        self._num_failed_rounds = self._num_failed_rounds + 1 if len(dropped) and dropped.all() else 0
        if self._num_failed_rounds >= self.section.max_failed_rounds:
            raise EngineError(explain("rewards", None, f"scored no completion in {self._num_failed_rounds} rounds in a row",
                                      expected=f"some in {self.section.max_failed_rounds} (max_failed_rounds)",
                                      remedy="Repair the component that failed, then run the same command to go on"))  # fmt: skip

    def state(self) -> dict[str, Any]:
        """See RewardComposer."""
        return {
            "statistics": {key: found.state() for key, found in self._statistics.items()},
            "num_failed_rounds": self._num_failed_rounds,
            "dollars": self.dollars,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See RewardComposer."""
        self._statistics = {key: running_statistics(found) for key, found in state["statistics"].items()}
        self._num_failed_rounds = int(state["num_failed_rounds"])
        self.dollars = float(state["dollars"])

    def save(self, out: Path) -> None:
        """See RewardComposer."""
        if self.log is not None:
            self.log.save(out)


def _key(name: str, active: Mapping[str, str]) -> str:
    """Under which statistics are kept: those of a component belong to its model, those of the sum to all models."""
    models = [active[name]] if name in active else sorted(active.values()) if name == _TOTAL else []
    return "@".join([name, *models])
