"""Votes that were given in other tools: kept with where they are from, apart from the project's own, and given out only when asked for.

Example:
    ratings = in_order(item, new)                             # as the canonical order has it
    keep_ratings(rows, project_id, {new.content_id: ratings}, source="export.json")
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from fairlead.core.annotations import RatedItem, Rating
from fairlead.core.records import Completion, to_dict
from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.outside import OutsideRater, OutsideRating
from fairlead.store.annotation.schema import Item
from fairlead.web.people import new_id, now_ms

MAX_NAME = 400


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What became of the ratings of a file."""

    num_ratings: int = 0
    num_raters: int = 0
    num_known: int = 0
    """Of raters whose rating of the item is there already; the first is kept."""


def in_order(item: RatedItem, completions: Sequence[Completion]) -> tuple[Rating, ...]:
    """The ratings of an item as they read when its replies stand in canonical order, named by their positions."""
    at = {c.text: str(position) for position, c in enumerate(completions)}
    names = {reply.id: at[reply.text] for reply in item.replies}
    is_turned = len(item.replies) == 2 and names[item.replies[0].id] == "1"
    return tuple(_renamed(rating, names, is_turned=is_turned) for rating in item.ratings)


def _renamed(rating: Rating, names: Mapping[str, str], *, is_turned: bool) -> Rating:
    verdict = rating.verdict
    if is_turned and verdict in ("a", "b"):
        verdict = "b" if verdict == "a" else "a"
    return dataclasses.replace(
        rating, verdict=verdict, strength=-rating.strength if is_turned else rating.strength, swapped=rating.swapped != is_turned,
        ranking=tuple(tuple(names[name] for name in tied) for tied in rating.ranking),
        answers={question: _by_position(answer, names) for question, answer in rating.answers.items()},
        edits=_by_position(rating.edits, names), meta=renamed_spans(rating.meta, names),
    )  # fmt: skip


def _by_position(answer: Any, names: Mapping[str, str]) -> Any:
    is_by_reply = isinstance(answer, Mapping) and set(answer) <= set(names)
    return {names[name]: value for name, value in answer.items()} if is_by_reply else answer


def renamed_spans(meta: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Marked passages (`meta.spans`, as `web.rated` writes them) with other names for the replies that they are in."""
    spans = meta.get("spans")
    if not isinstance(spans, (list, tuple)):
        return meta
    return {**meta, "spans": [_renamed_span(span, names) for span in spans]}


def _renamed_span(span: Any, names: Mapping[str, str]) -> Any:
    is_named = isinstance(span, Mapping) and span.get("completion") in names
    return {**span, "completion": names[span["completion"]]} if is_named else span


def erase_named(rows: Rows, name: str, *, blanked: Callable[[Any], tuple[Any, int]]) -> int:
    """Blank the name of the raters who are called so in files of other tools, and the free text of their ratings.

    Args:
        blanked: a record without its free text, and how many texts that were.
    Returns:
        How many texts were blanked; a name is one.
    """
    num = 0
    for rater in rows.scalars(sa.select(OutsideRater)).all():
        if rater.name.strip().casefold() != name.strip().casefold():
            continue
        rater.name = f"erased {rater.pseudonym}"
        num += 1
        for rating in rows.scalars(sa.select(OutsideRating).where(OutsideRating.rater_id == rater.id)):
            rating.record, num_here = blanked(rating.record)
            num += num_here
    return num


def keep_ratings(rows: Rows, project_id: str, found: Mapping[str, Sequence[Rating]], *, source: str) -> Kept:
    """Store the ratings of items, by their content ids."""
    if not found:
        return Kept()
    items = {
        row[0]: row[1] for row in rows.execute(sa.select(Item.content_id, Item.id).where(Item.project_id == project_id))
    }
    raters = {
        rater.name: rater
        for rater in rows.scalars(sa.select(OutsideRater).where(OutsideRater.project_id == project_id))
    }
    own = sa.select(OutsideRater.id).where(OutsideRater.project_id == project_id)
    known = {
        (row[0], row[1])
        for row in rows.execute(
            sa.select(OutsideRating.item_id, OutsideRating.rater_id).where(OutsideRating.rater_id.in_(own))
        )
    }
    num_ratings, heard = 0, set[str]()
    total = sum(len(ratings) for ratings in found.values())
    for content_id, ratings in found.items():
        for rating in ratings:
            rater = raters.get(rating.rater[:MAX_NAME])
            if rater is None:
                rater = OutsideRater(id=new_id(), project_id=project_id, name=rating.rater[:MAX_NAME], kind=rating.rater_kind,
                                     pseudonym=f"outside-{len(raters) + 1:03d}")  # fmt: skip
                raters[rater.name] = rater
                rows.add(rater)
                rows.flush()
            place = (items[content_id], rater.id)
            if place in known:
                continue
            known.add(place)
            heard.add(rater.id)
            num_ratings += 1
            rows.add(
                OutsideRating(
                    id=new_id(),
                    item_id=place[0],
                    rater_id=rater.id,
                    source=source[:200],
                    record=_record(rating),
                    imported_at=now_ms(),
                )
            )
    return Kept(num_ratings=num_ratings, num_raters=len(heard), num_known=total - num_ratings)


def _record(rating: Rating) -> dict[str, Any]:
    holder = RatedItem(prompt=(), replies=(), ratings=(dataclasses.replace(rating, rater=""),))
    return to_dict(holder)["ratings"][0]


def ratings_of(rows: Rows, item_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """By item id: records of ratings, each with its rater's pseudonym and with the file it is from."""
    found = rows.execute(
        sa.select(OutsideRating, OutsideRater.pseudonym).join(OutsideRater, OutsideRater.id == OutsideRating.rater_id)
        .where(OutsideRating.item_id.in_(item_ids)).order_by(OutsideRater.pseudonym)
    )  # fmt: skip
    grouped: dict[str, list[dict[str, Any]]] = {}
    for rating, pseudonym in found:
        meta = {**rating.record["meta"], "outside": rating.source}
        grouped.setdefault(rating.item_id, []).append({**rating.record, "rater": pseudonym, "meta": meta})
    return grouped


def count_ratings(rows: Rows, project_id: str) -> int:
    """How many ratings of other tools a project has."""
    own = sa.select(OutsideRater.id).where(OutsideRater.project_id == project_id)
    return (
        rows.scalar(sa.select(sa.func.count()).select_from(OutsideRating).where(OutsideRating.rater_id.in_(own))) or 0
    )
