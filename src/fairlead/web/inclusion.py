"""How pairs came to be rated, read back: arms for the lead's page, probabilities and weights for exports.

Weights are those of `stats.sampling.design_weights`, for each group of pairs that ask for the same: their sum estimates how many pairs there
are, their weighted figures those of all pairs. Pairs begun before the first batch are all of their kind and weigh 1; what was opened at
random after the choice was switched off is a last batch. Pairs that a calibration round opened in between stand outside and have no weight.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.core.annotations import INCLUSION
from fairlead.stats.intervals import Interval, wilson
from fairlead.stats.sampling import design_weights
from fairlead.store.annotation.choosing import Batch, ModelScore, PairChoice
from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Assignment, Event, Progress, Project
from fairlead.store.annotation.totals import read_pattern
from fairlead.web.choosing import is_on

NUM_BATCHES = 8
"""Newest ones that the page lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """How one rated pair came in."""

    arm: str
    """active, random, before (begun before the first batch) or outside (opened by a calibration round)."""
    probability: float | None
    """With which its batch was to hold it, and it was to be rated by now; None outside."""
    weight: float | None
    """What it stands for; None outside."""

    def meta(self) -> dict[str, Any]:
        """As exports write it (`core.annotations.INCLUSION`)."""
        return dict(zip(INCLUSION, (self.arm, self.probability, self.weight), strict=True))


def inclusions(rows: Rows, project: Project) -> dict[str, Inclusion]:
    """By item, of all production pairs with a vote; empty where pairs were never chosen actively."""
    batches = list(rows.scalars(sa.select(Batch).where(Batch.project_id == project.id).order_by(Batch.number)))
    if not batches:
        return {}
    rated: dict[str, list[str]] = {}
    for item_id, needs in rows.execute(
        sa.select(Progress.item_id, Progress.needs).where(Progress.project_id == project.id, Progress.use == "production", Progress.num_votes > 0)
    ).all():  # fmt: skip
        rated.setdefault(needs, []).append(item_id)
    choices = {row.item_id: row for row in rows.scalars(sa.select(PairChoice).where(PairChoice.project_id == project.id))}  # fmt: skip
    begun = _begun(rows, project.id)
    found: dict[str, Inclusion] = {}
    for needs, items in rated.items():
        own = [batch for batch in batches if batch.needs == needs]
        found |= _of_group(rows, project, needs, items, choices=choices, batches=own, begun=begun)
    return found


def _of_group(
    rows: Rows, project: Project, needs: str, items: list[str], *, choices: Mapping[str, PairChoice], batches: list[Batch],
    begun: Mapping[str, int],
) -> dict[str, Inclusion]:  # fmt: skip
    others = [item_id for item_id in items if item_id not in choices]
    before = [item_id for item_id in others if batches and begun[item_id] < batches[0].event_number]
    later = [item_id for item_id in others if not batches or begun[item_id] >= batches[0].event_number]
    drawn = [
        (choices[item_id].number, choices[item_id].inclusion, choices[item_id].arm, item_id)
        for item_id in items
        if item_id in choices
    ]
    drawn_of = sa.select(PairChoice.number, sa.func.count()).where(PairChoice.project_id == project.id)
    sizes = {row[0]: row[1] for row in rows.execute(drawn_of.group_by(PairChoice.number)).all()}
    is_last_random = not is_on(project) or not batches
    if is_last_random and later:
        last = max(sizes, default=0) + 1
        drawn += [(last, len(later) / (len(later) + _num_left(rows, project.id, needs)), "random", item_id) for item_id in later]  # fmt: skip
        sizes[last] = len(later)
    found = {item_id: Inclusion(arm="before", probability=1.0, weight=1.0) for item_id in before}
    if not is_last_random:
        found |= {item_id: Inclusion(arm="outside", probability=None, weight=None) for item_id in later}
    if drawn:
        numbers = [row[0] for row in drawn]
        weights = design_weights(numbers, [row[1] for row in drawn], drawn=sizes)
        share = {number: numbers.count(number) / sizes[number] for number in set(numbers)}
        found |= {item_id: Inclusion(arm=arm, probability=pi * share[number], weight=float(weight))
                  for (number, pi, arm, item_id), weight in zip(drawn, weights, strict=True)}  # fmt: skip
    return found


def _begun(rows: Rows, project_id: str) -> dict[str, int]:
    """Number of the first event on each item."""
    first = (
        sa.select(Assignment.item_id, sa.func.min(Event.number)).join(Event, Event.assignment_id == Assignment.id)
        .where(Assignment.project_id == project_id).group_by(Assignment.item_id)
    )  # fmt: skip
    return {row[0]: row[1] for row in rows.execute(first).all()}


def _num_left(rows: Rows, project_id: str, needs: str) -> int:
    """Pairs without a vote that no batch drew."""
    chosen = sa.select(PairChoice.item_id).where(PairChoice.project_id == project_id, PairChoice.item_id == Progress.item_id)  # fmt: skip
    left = sa.select(sa.func.count()).select_from(Progress).where(
        Progress.project_id == project_id, Progress.use == "production", Progress.needs == needs, Progress.num_votes == 0, ~chosen.exists()
    )  # fmt: skip
    return rows.scalar(left) or 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Pairs that came in one way."""

    name: str
    num_chosen: int
    num_rated: int
    differ: Interval
    """Share of pairs with two votes or more on which they differ: what the choice is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceState:
    """What the lead sees of the choice of pairs."""

    is_on: bool
    arms: tuple[Arm, ...]
    batches: tuple[Batch, ...]
    """The newest."""
    num_batches: int
    num_scores: int
    """Completions with a score of a reward model."""


def choice_state(rows: Rows, project: Project) -> ChoiceState:
    """Counts by arm; the newest batches."""
    found = rows.execute(
        sa.select(PairChoice.arm, Progress.pattern, sa.func.count()).join(Progress, Progress.item_id == PairChoice.item_id)
        .where(PairChoice.project_id == project.id).group_by(PairChoice.arm, Progress.pattern)
    ).all()  # fmt: skip
    arms = tuple(_arm(name, [(pattern, num) for arm, pattern, num in found if arm == name]) for name in ("active", "random"))  # fmt: skip
    of = Batch.project_id == project.id
    newest = tuple(rows.scalars(sa.select(Batch).where(of).order_by(Batch.number.desc()).limit(NUM_BATCHES)))
    num_scores = rows.scalar(sa.select(sa.func.count()).select_from(ModelScore).where(ModelScore.project_id == project.id))  # fmt: skip
    return ChoiceState(
        is_on=is_on(project),
        arms=arms,
        batches=newest,
        num_batches=newest[0].number if newest else 0,
        num_scores=num_scores or 0,
    )


def _arm(name: str, patterns: list[tuple[str, int]]) -> Arm:
    num_rated = num_twice = num_differ = 0
    for pattern, num in patterns:
        labels = read_pattern(pattern)
        del labels["skip"]
        num_rated += num * (labels.total() > 0)
        num_twice += num * (labels.total() > 1)
        num_differ += num * (len(labels) > 1)
    return Arm(name=name, num_chosen=sum(num for _, num in patterns), num_rated=num_rated, differ=wilson(num_differ, num_twice))  # fmt: skip
