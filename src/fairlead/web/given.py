"""Items that somebody rated with their texts, votes and decisions, read in pieces: exports of any size hold some hundreds of them in memory.

Hidden anchors ask twice and are not among them. Read within one transaction, so that all pieces are of one moment.

Example:
    for each in given_items(rows, project.id, rated_ids(rows, project.id)):
        print(each.item.content_id, len(each.votes))
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fairlead.core.errors import DataError, explain
from fairlead.core.records import Completion, Prompt, from_dict
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.outside import OutsideRating
from fairlead.store.annotation.schema import Assignment, Event, Item, Person, Verdict
from fairlead.web.importing import NewItem
from fairlead.web.outside import ratings_of

Vote = tuple[Verdict, Assignment, str]
"""A verdict, the assignment that it answers, and the pseudonym of its rater."""
NUM_A_PIECE = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One item and what was said of it."""

    item: Item
    texts: NewItem
    votes: tuple[Vote, ...]
    """By pseudonym; skips among them. None where only raters of other tools spoke."""
    times: tuple[int, ...]
    """Of the votes, milliseconds since 1970."""
    decision: Decision | None
    outside: tuple[dict[str, Any], ...] = ()
    """Records of ratings of other tools, where they are asked for."""


def no_votes(project: schema.Project) -> DataError:
    """For an export of a project in which nobody has voted."""
    return DataError(explain(project.name, None, "has no votes yet", expected="at least one vote",
                             remedy="Invite raters first: fairlead annotate invite"))  # fmt: skip


def rated_ids(rows: Rows, project_id: str, *, by_prompt: bool = False, with_outside: bool = False) -> list[str]:
    """Ids of items with a vote or skip, in the order of their contents' hashes.

    Args:
        by_prompt: those of one prompt together, prompts in the order of their ids.
        with_outside: also those that only raters of other tools rated.
    """
    is_rated = sa.select(Verdict.item_id).where(Verdict.item_id == Item.id).exists()
    if with_outside:
        is_rated |= sa.select(OutsideRating.id).where(OutsideRating.item_id == Item.id).exists()
    order = (Item.prompt_id, Item.content_id) if by_prompt else (Item.content_id,)
    wanted = sa.select(Item.id).where(Item.project_id == project_id, Item.use != "anchor", is_rated).order_by(*order)
    return list(rows.scalars(wanted))


def given_items(rows: Rows, project_id: str, item_ids: Sequence[str], *, with_outside: bool = False) -> Iterator[Given]:
    """The items of these ids, in their order."""
    for start in range(0, len(item_ids), NUM_A_PIECE):
        yield from _piece(rows, project_id, item_ids[start : start + NUM_A_PIECE], with_outside=with_outside)


def _piece(rows: Rows, project_id: str, item_ids: Sequence[str], *, with_outside: bool) -> Iterator[Given]:
    items = {item.id: item for item in rows.scalars(sa.select(Item).where(Item.id.in_(item_ids)))}
    votes: dict[str, list[tuple[Vote, int]]] = {}
    for verdict, assignment, pseudonym, at in rows.execute(
        sa.select(Verdict, Assignment, Person.pseudonym, Event.at).join(Assignment, Assignment.id == Verdict.assignment_id)
        .join(Person, Person.id == Verdict.person_id).join(Event, Event.number == Verdict.event_number)
        .where(Verdict.item_id.in_(item_ids)).order_by(Person.pseudonym)
    ):  # fmt: skip
        votes.setdefault(verdict.item_id, []).append(((verdict, assignment, pseudonym), at))
    prompts = _contents(rows, schema.Prompt, project_id, {item.prompt_id for item in items.values()})
    completions = _contents(rows, schema.Completion, project_id, {name for item in items.values() for name in item.completions})  # fmt: skip
    decisions = {
        decision.item_id: decision
        for decision in rows.scalars(sa.select(Decision).where(Decision.item_id.in_(item_ids)))
    }
    outside = ratings_of(rows, item_ids) if with_outside else {}
    for name in item_ids:
        item, own = items[name], votes.get(name, [])
        texts = NewItem(
            prompt=from_dict(Prompt, prompts[item.prompt_id]),
            completions=tuple(from_dict(Completion, completions[each]) for each in item.completions),
        )
        yield Given(item=item, texts=texts, votes=tuple(vote for vote, _ in own), times=tuple(at for _, at in own),
                    decision=decisions.get(name), outside=tuple(outside.get(name, ())))  # fmt: skip


def _contents(
    rows: Rows, table: type[schema.Prompt] | type[schema.Completion], project_id: str, ids: set[str]
) -> dict[str, dict[str, object]]:
    found = rows.execute(sa.select(table.id, table.record).where(table.project_id == project_id, table.id.in_(ids)))
    return {row[0]: row[1] for row in found}
