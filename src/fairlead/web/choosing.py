"""Active choice: which of the pairs that nobody has begun are rated next, with the probability of each choice stored.

While a project's random share is below 1, pairs are opened in batches (`stats.sampling`): most of a batch by uncertainty x disagreement x
coverage, at least a fifth at random, the order of both mixed. A batch comes from pairs that ask for the same, so that every rater of them
may get all of it; of a large pool a random stretch is looked at, and its share is part of the probability.

    uncertainty    4 p (1 - p), p = sigmoid(difference of the reward model's scores); the closest two of a ranking; 1 without scores
    disagreement   how often votes differ on rated pairs of the same slice
    coverage       slices that were rated less weigh more

Chosen pairs stand in front of all others in `Progress.rank`; the event holds the batch, so that a replay gives the same order.
"""

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.stats.sampling import choose_pairs, pair_scores, shrunk_disagreement
from fairlead.store.annotation.choosing import Batch, ModelScore, PairChoice
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Event, Item, Progress, Project, Prompt
from fairlead.store.annotation.totals import read_pattern
from fairlead.web.events import record
from fairlead.web.projects import get_project
from fairlead.web.steering import steering_of

DRAWN = "choice.drawn"
KINDS = (DRAWN,)
MAX_SEEN = 4000
"""Pairs of a pool that are looked at for one batch."""
MAX_RATED = 4000
"""Rated pairs from which coverage and disagreement are known."""
FRONT = 2**53
"""Ranks are random below it; what stands in front has a rank below 0."""
_CHUNK = 500  # ids of one statement


def is_on(project: Project) -> bool:
    """Are pairs chosen actively?"""
    return steering_of(project).random_share < 1


def unopened(project: Project, needs: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Pairs that nobody has begun and no batch has drawn, in the columns of the index."""
    return (
        Progress.project_id == project.id, Progress.use == "production", Progress.needs == needs,
        Progress.num_lacking == project.votes_per_item, Progress.rank >= 0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A pair that may be chosen."""

    item_id: str
    slice: str
    completions: Sequence[str]


def draw(database: Database, project_id: str, needs: Sequence[str]) -> bool:
    """Open the next batch for raters of items with these needs; False when nothing is left to open.

    What is drawn from is read outside of the write; a batch that somebody else opened in between counts as this one.
    """
    with database.read() as rows:
        project = get_project(rows, project_id)
        newest = _newest(rows, project_id)
        count = sa.select(sa.func.count()).select_from(Progress)
        pools = {each: rows.scalar(count.where(*unopened(project, each))) or 0 for each in needs}
        if not any(pools.values()):
            return False
        names = sorted(pools)
        stratum = secrets.SystemRandom().choices(names, weights=[pools[each] for each in names])[0]
        content = _content(rows, project, stratum, num_pool=pools[stratum])
    with database.write() as rows:
        if _newest(rows, project_id) == newest:
            follow(rows, record(rows, DRAWN, person_id=None, project_id=project_id, content={"batch": newest + 1, **content}))  # fmt: skip
    return True


def _newest(rows: Rows, project_id: str) -> int:
    return rows.scalar(sa.select(sa.func.max(Batch.number)).where(Batch.project_id == project_id)) or 0


def _content(rows: Rows, project: Project, needs: str, *, num_pool: int) -> dict[str, Any]:
    settings = steering_of(project)
    seen = _stretch(rows, project, needs, num_pool=num_pool)
    p_first = _p_first(rows, project.id, seen)
    slices = [pair.slice for pair in seen]
    rated = _rated(rows, project.id, needs)
    num_rated = Counter(name for name, differs in rated if differs is not None)
    num_differ = Counter(name for name, differs in rated if differs)
    differ = shrunk_disagreement([num_differ[name] for name in slices], [num_rated[name] for name in slices])
    scores = pair_scores(
        p_first=[0.5 if p is None else p for p in p_first],
        slices=slices,
        rated=[name for name, _ in rated],
        disagreement=differ,
    )
    chosen = choose_pairs(
        scores,
        num_pairs=min(settings.choice_batch, len(seen)),
        seed=secrets.randbits(63),
        random_share=settings.random_share,
    )
    share_seen = len(seen) / num_pool
    pairs = [
        [seen[int(place)].item_id, "random" if is_random else "active", float(chosen.inclusion[place]) * share_seen]
        for place, is_random in zip(chosen.pairs, chosen.is_random, strict=True)
    ]
    return {
        "needs": needs,
        "num_pool": num_pool,
        "num_seen": len(seen),
        "num_scored": sum(p is not None for p in p_first),
        "pairs": pairs,
    }


def _stretch(rows: Rows, project: Project, needs: str, *, num_pool: int) -> list[_Seen]:
    """Some of the pool in the order of ranks, from a random place on and around the end: each pair has the same chance to be in it."""
    asked = (
        sa.select(Progress.item_id, Prompt.record["slice"].as_string(), Item.completions).join(Item, Item.id == Progress.item_id)
        .join(Prompt, sa.and_(Prompt.project_id == Item.project_id, Prompt.id == Item.prompt_id))
    )  # fmt: skip
    ids = sa.select(Progress.item_id).where(*unopened(project, needs)).order_by(Progress.rank, Progress.item_id)
    start = secrets.randbelow(num_pool) if num_pool > MAX_SEEN else 0
    found = list(rows.scalars(ids.offset(start).limit(MAX_SEEN)))
    if start and len(found) < MAX_SEEN:
        found += rows.scalars(ids.limit(min(start, MAX_SEEN - len(found))))
    seen: dict[str, _Seen] = {}
    for part in _parts(found):
        for item_id, name, completions in rows.execute(asked.where(Progress.item_id.in_(part))).all():
            seen[item_id] = _Seen(item_id=item_id, slice=name or "all", completions=completions)
    return [seen[item_id] for item_id in found]


def _parts(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]


def _p_first(rows: Rows, project_id: str, seen: Sequence[_Seen]) -> list[float | None]:
    """Probability that the first of the closest two is better; None where a completion has no score."""
    names = [name for pair in seen for name in pair.completions]
    values: dict[str, float] = {}
    for part in _parts(names):
        asked = sa.select(ModelScore.completion_id, ModelScore.value).where(
            ModelScore.project_id == project_id, ModelScore.completion_id.in_(part)
        )
        values |= {row[0]: row[1] for row in rows.execute(asked).all()}
    return [_closest([values.get(name) for name in pair.completions]) for pair in seen]


def _closest(scores: Sequence[float | None]) -> float | None:
    known = sorted(score for score in scores if score is not None)
    if len(known) < len(scores):
        return None
    gap = min(high - low for low, high in itertools.pairwise(known))
    return 1 / (1 + math.exp(min(gap, 700.0)))


def _rated(rows: Rows, project_id: str, needs: str) -> list[tuple[str, bool | None]]:
    """(slice, do votes differ?) of rated pairs; None of those with one vote."""
    found = rows.execute(
        sa.select(Prompt.record["slice"].as_string(), Progress.pattern).join(Item, Item.id == Progress.item_id)
        .join(Prompt, sa.and_(Prompt.project_id == Item.project_id, Prompt.id == Item.prompt_id))
        .where(Progress.project_id == project_id, Progress.use == "production", Progress.needs == needs, Progress.num_votes > 0)
        .order_by(Progress.num_lacking, Progress.rank).limit(MAX_RATED)
    ).all()  # fmt: skip
    return [(name or "all", _differ(pattern)) for name, pattern in found]


def _differ(pattern: str) -> bool | None:
    labels = read_pattern(pattern)
    del labels["skip"]
    return len(labels) > 1 if labels.total() > 1 else None


def follow(rows: Rows, event: Event) -> None:
    """Put the pairs of a batch in front, in its order."""
    content = event.content
    assert event.project_id is not None, f"event {event.number} names no project"
    number = content["batch"]
    rows.add(Batch(project_id=event.project_id, number=number, event_number=event.number, at=event.at, needs=content["needs"],
                   num_pool=content["num_pool"], num_scored=content["num_scored"], num_seen=content["num_seen"]))  # fmt: skip
    rows.flush()
    rows.add_all(PairChoice(project_id=event.project_id, item_id=item_id, number=number, arm=arm, inclusion=inclusion)
                 for item_id, arm, inclusion in content["pairs"])  # fmt: skip
    places = {item_id: place for place, (item_id, _, _) in enumerate(content["pairs"])}
    for part in _parts(list(places)):
        for progress in rows.scalars(sa.select(Progress).where(Progress.item_id.in_(part))).all():
            progress.rank = number * 2**20 - 2**60 + places[progress.item_id]
    rows.flush()


def forget_derived(rows: Rows) -> None:
    """Before a replay; ranks are those of the items again by then."""
    rows.execute(sa.delete(PairChoice))
    rows.execute(sa.delete(Batch))
    rows.expire_all()
