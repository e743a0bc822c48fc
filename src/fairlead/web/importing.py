"""Items into a project, and their texts out of it.

Example:
    added = add_items(database, project.id, [NewItem.of(prompt, completions)])
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import sqlalchemy as sa

from fairlead.core.annotations import Rating
from fairlead.core.records import Completion, Prompt, Task, content_hash, from_dict, to_dict
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.web.errors import invalid
from fairlead.web.events import record
from fairlead.web.matching import demand
from fairlead.web.needs import needs_of
from fairlead.web.outside import Kept, keep_ratings
from fairlead.web.people import new_id
from fairlead.web.projects import get_project
from fairlead.web.rounds import first_round

MAX_TEXT = 400_000
"""Characters of a conversation or a reply; a longer one cannot be read on a screen."""
_CHUNK = 500  # rows of one statement; SQLite takes 32,766 values


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """Two to nine completions of one prompt, in canonical order: that of their ids, which says nothing of them."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    answer: str = ""
    """What the file says of two: a (the first is better), b or tie; kept only where items come in as anchors. Empty when it does not say."""

    @classmethod
    def of(cls, prompt: Prompt, completions: Iterable[Completion], *, best: str = "", is_tie: bool = False) -> Self:
        """Put them in order.

        Args:
            best: text of the better one, where that is known.
        """
        ordered = tuple(sorted(completions, key=lambda completion: completion.id))
        answer = "tie" if is_tie else "" if not best else "a" if ordered[0].text == best else "b"
        return cls(prompt=prompt, completions=ordered, answer=answer)

    @property
    def content_id(self) -> str:
        """Of two the id of their comparison as the pipeline knows it, else a hash of the same kind."""
        ids = [completion.id for completion in self.completions]
        if len(ids) == 2:
            return Task(prompt_id=self.prompt.id, completion_a=ids[0], completion_b=ids[1]).id
        return f"i-{content_hash([self.prompt.id, *ids])}"

    @property
    def needs(self) -> str:
        """Language and skills that its rater must have, as `needs` writes them."""
        return " ".join(needs_of(self.prompt.meta))


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What an import changed."""

    num_items: int
    num_calibration: int
    num_known: int
    """Items that the project has already."""
    outside: Kept = field(default_factory=Kept)
    """What became of the ratings of another tool."""


def add_items(
    database: Database, project_id: str, items: Sequence[NewItem], *, by: str | None = None,
    ratings: Mapping[str, Sequence[Rating]] | None = None, source: str = "",
) -> Added:  # fmt: skip
    """Put items into a project, all or none; those that it has are counted and left alone.

    Args:
        ratings: what raters of another tool said, by content id; kept apart from the project's votes.
        source: name of the file that they are from.

    Until the project has its calibration items, new ones become those, drawn at random.
    """
    with database.write() as rows:
        project = get_project(rows, project_id)
        if project.kind != "comparison":
            raise invalid("In this project people write. Choose a project that compares, or a new name.")
        added = put_items(rows, project, items, by=by, source=source)
        return replace(added, outside=keep_ratings(rows, project_id, ratings or {}, source=source))


def put_items(
    rows: Rows, project: schema.Project, items: Sequence[NewItem], *, by: str | None, source: str = ""
) -> Added:
    """The same in a transaction that runs already, without ratings."""
    project_id = project.id
    known = set(rows.scalars(sa.select(schema.Item.content_id).where(schema.Item.project_id == project_id)))
    given = {item.content_id: item for item in items}
    new = {name: item for name, item in given.items() if name not in known}
    num_calibration = rows.scalar(
        sa.select(sa.func.count()).select_from(schema.Item).where(schema.Item.project_id == project_id, schema.Item.use == "calibration")
    ) or 0  # fmt: skip
    names = list(new)
    secrets.SystemRandom().shuffle(names)
    num_more = min(max(0, project.calibration_items - num_calibration), len(names))
    uses = ["calibration" if i < num_more else "production" for i in range(len(names))]
    made = insert_items(rows, project, [new[name] for name in names], uses)
    first_round(rows, project_id, [(item["id"], item["rank"]) for item in made if item["use"] == "calibration"])
    record(rows, "items.imported", person_id=by, project_id=project_id, content={"items": len(made), "source": source})
    return Added(num_items=len(made), num_calibration=num_more, num_known=len(given) - len(new))


def insert_items(
    rows: Rows, project: schema.Project, items: Sequence[NewItem], uses: Sequence[str]
) -> list[dict[str, Any]]:
    """Insert items that the project does not have, each for its use, with their texts; return their rows."""
    _insert_content(rows, project.id, schema.Prompt, {item.prompt.id: to_dict(item.prompt) for item in items})
    _insert_content(rows, project.id, schema.Completion, {c.id: to_dict(c) for item in items for c in item.completions})
    made = [
        {"id": new_id(), "project_id": project.id, "content_id": item.content_id, "prompt_id": item.prompt.id,
         "completions": [completion.id for completion in item.completions], "use": use, "rank": secrets.randbelow(2**53), "needs": item.needs}
        for item, use in zip(items, uses, strict=True)
    ]  # fmt: skip
    demand(rows, project.id, {item["needs"] for item in made if item["use"] == "production"})
    _insert(rows, schema.Item, made)
    _insert(rows, schema.Progress, [
        {"item_id": item["id"], "project_id": project.id, "use": item["use"], "rank": item["rank"], "needs": item["needs"], "num_votes": 0,
         "num_skips": 0, "pattern": "", "num_extra": 0, "num_lacking": project.votes_per_item if item["use"] == "production" else 0}
        for item in made
    ])  # fmt: skip
    return made


def _insert_content(
    rows: Rows, project_id: str, table: type[schema.Table], records: Mapping[str, dict[str, object]]
) -> None:
    columns = table.__table__.c
    known = set(rows.scalars(sa.select(columns.id).where(columns.project_id == project_id)))
    _insert(rows, table, [{"project_id": project_id, "id": name, "record": row} for name, row in records.items() if name not in known])  # fmt: skip


def _insert(rows: Rows, table: type[schema.Table], values: Iterable[Mapping[str, object]]) -> None:
    listed = list(values)
    for start in range(0, len(listed), _CHUNK):
        rows.execute(sa.insert(table), [dict(row) for row in listed[start : start + _CHUNK]])


def texts_of(rows: Rows, item: schema.Item) -> NewItem:
    """The texts of an item."""
    prompt = rows.get(schema.Prompt, (item.project_id, item.prompt_id))
    found = [rows.get(schema.Completion, (item.project_id, name)) for name in item.completions]
    assert prompt is not None and None not in found, f"item {item.id} lacks a text"
    completions = tuple(from_dict(Completion, row.record) for row in found if row is not None)
    return NewItem(prompt=from_dict(Prompt, prompt.record), completions=completions)
