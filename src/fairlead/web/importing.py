"""Texts into a project: a run's completions, pairs of any preference file that `formats` reads, or the items of another annotation tool.

What a file says of quality (chosen, rejected, scores) is left behind: raters see texts in an order that says nothing.

Example:
    found = read_source(Path("hh.jsonl.gz"), seed=0, rejects_file=Path("rejects.jsonl"))
    added = add_items(database, project.id, found.items)
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from fairlead.core.annotations import MAX_REPLIES, RatedItem
from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects, read_records
from fairlead.core.records import Completion, Prompt, Task, content_hash, from_dict, to_dict
from fairlead.feedback.tasks import choose_groups, make_tasks
from fairlead.formats import detect_format, prompt_part, read_annotations, read_preferences
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.web.errors import invalid
from fairlead.web.events import record
from fairlead.web.people import new_id
from fairlead.web.projects import get_project
from fairlead.web.rounds import first_round

MAX_TEXT = 400_000
"""Characters of a conversation or a reply; a longer one cannot be read on a screen."""
NUM_FAULTS = 20
"""Faulty rows that a message lists; the rejects file has all."""
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


@dataclass(slots=True, kw_only=True)
class Found:
    """Items of a file or folder, and what became of the rest."""

    items: list[NewItem]
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Rows, prompts or items that gave nothing, by reason."""
    faults: list[str] = field(default_factory=list[str])
    """The first faulty rows: line and reason."""

    def leave_out(self, reason: str, num: int = 1) -> None:
        """Count what gave nothing."""
        if num:
            self.left_out[reason] = self.left_out.get(reason, 0) + num


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What an import changed."""

    num_items: int
    num_calibration: int
    num_known: int
    """Items that the project has already."""


def read_source(path: Path, *, pairs_per_prompt: int = 1, group_size: int = 2, seed: int, rejects_file: Path) -> Found:
    """Read a folder with prompts.jsonl and completions.jsonl, or a file of preferences or rated items in any known format.

    Args:
        group_size: completions of an item. With 2 every pair of a file is an item; with more all completions of a prompt are one, to be
            ranked, up to this many.
    Raises:
        DataError: nothing usable is in it.
    """
    if not 2 <= group_size <= MAX_REPLIES:
        raise DataError(explain("group size", group_size, "cannot be rated", expected=f"2 to {MAX_REPLIES}", remedy="Choose another"))  # fmt: skip
    found = (
        _read_run(path, pairs_per_prompt=pairs_per_prompt, group_size=group_size, seed=seed)
        if path.is_dir()
        else _read_file(path, rejects_file, group_size=group_size, seed=seed)
    )
    found.items, items = [], found.items
    for item in items:
        reason = _fault(item)
        if reason is None:
            found.items.append(item)
        else:
            found.leave_out(reason)
    if not found.items:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in found.left_out.items()) or "it is empty"
        raise DataError(explain(path, None, f"gives no pair to rate ({reasons})", expected="two different completions of a prompt",
                                remedy="Check the file"))  # fmt: skip
    return found


def _read_run(folder: Path, *, pairs_per_prompt: int, group_size: int, seed: int) -> Found:
    for name in ("prompts.jsonl", "completions.jsonl"):
        if not (folder / name).is_file():
            raise DataError(explain(folder / name, None, "is missing", expected="prompts.jsonl and completions.jsonl in one folder",
                                    remedy="Copy both files of a run into a folder, or name a file of pairs"))  # fmt: skip
    prompts = {prompt.id: prompt for prompt in read_records(folder / "prompts.jsonl", Prompt)}
    completions = {c.id: c for c in read_records(folder / "completions.jsonl", Completion)}
    groups: dict[str, list[Completion]] = {}
    for completion in completions.values():
        if completion.prompt_id not in prompts:
            raise DataError(explain(f"{folder / 'completions.jsonl'}: {completion.id}.prompt_id", completion.prompt_id, "is no prompt of the run",
                                    expected="files of one run", remedy="Copy both files of the same run"))  # fmt: skip
        groups.setdefault(completion.prompt_id, []).append(completion)
    plan = make_tasks(groups, pairs_per_prompt=pairs_per_prompt, seed=seed)
    if group_size > 2:
        chosen = choose_groups(groups, group_size=group_size, seed=seed)
        found = Found(items=[NewItem.of(prompts[name], group) for name, group in chosen.items()])
    else:
        named = [(prompts[t.prompt_id], (completions[t.completion_a], completions[t.completion_b])) for t in plan.tasks]
        found = Found(items=[NewItem.of(prompt, texts) for prompt, texts in named])
    found.leave_out("prompts with fewer than two completions", plan.num_single)
    found.leave_out("prompts whose completions are all equal", plan.num_identical)
    return found


def _read_file(path: Path, rejects_file: Path, *, group_size: int, seed: int) -> Found:
    found = Found(items=[])
    with Rejects(rejects_file) as rejects:
        if detect_format(path).kind == "annotations":
            reading = read_annotations(path, rejects=rejects)
            found.items = [_new(_prompt(item), [reply.text for reply in item.replies]) for item in reading]
        else:
            reading = read_preferences(path, rejects=rejects)
            pairs = [
                (prompt_part(preference), (preference.chosen, preference.rejected), preference.is_tie)
                for preference in reading
            ]
            found.items = (
                [_new(prompt, texts, best=texts[0], is_tie=is_tie) for prompt, texts, is_tie in pairs]
                if group_size == 2
                else _join([pair[:2] for pair in pairs], group_size=group_size, seed=seed)
            )
        found.faults = [f"{where}: {reason}" for where, reason in rejects.first(NUM_FAULTS)]
    for reason, num in (*reading.report.rejects.items(), *reading.report.skips.items()):
        found.leave_out(f"rows: {reason}", num)
    return found


def _prompt(item: RatedItem) -> Prompt:
    return Prompt(messages=item.prompt, slice=item.slice, source=item.source, split=item.split)


def _new(prompt: Prompt, texts: Sequence[str], *, best: str = "", is_tie: bool = False) -> NewItem:
    """Who wrote a text is not taken over: raters could not know, and files that name only some models would tell them apart."""
    made = (Completion(prompt_id=prompt.id, text=text, model="unknown") for text in texts)
    return NewItem.of(prompt, made, best=best, is_tie=is_tie)


def _join(pairs: Iterable[tuple[Prompt, tuple[str, str]]], *, group_size: int, seed: int) -> list[NewItem]:
    """All texts of a prompt as one item."""
    prompts: dict[str, Prompt] = {}
    groups: dict[str, list[Completion]] = {}
    for prompt, texts in pairs:
        prompts[prompt.id] = prompt
        groups.setdefault(prompt.id, []).extend(_new(prompt, texts).completions)
    chosen = choose_groups(groups, group_size=group_size, seed=seed)
    return [NewItem.of(prompts[name], group) for name, group in chosen.items()]


def _fault(item: NewItem) -> str | None:
    replies = [completion.text for completion in item.completions]
    texts = (*(message.content for message in item.prompt.messages), *replies)
    if not all(text.strip() for text in replies):
        return "items with an empty reply"
    if len({text.strip() for text in replies}) < len(replies):
        return "items with equal replies"
    if any("\0" in text for text in texts):
        return "items with a NUL character"
    if max(map(len, texts)) > MAX_TEXT:
        return f"items with a text beyond {MAX_TEXT:,} characters"
    return None


def add_items(database: Database, project_id: str, items: Sequence[NewItem], *, by: str | None = None) -> Added:
    """Put items into a project, all or none; those that it has are counted and left alone.

    Until the project has its calibration items, new ones become those, drawn at random.
    """
    with database.write() as rows:
        project = get_project(rows, project_id)
        if project.kind != "comparison":
            raise invalid("In this project people write. Choose a project that compares, or a new name.")
        return put_items(rows, project, items, by=by)


def put_items(rows: Rows, project: schema.Project, items: Sequence[NewItem], *, by: str | None) -> Added:
    """The same in a transaction that runs already."""
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
    record(rows, "items.imported", person_id=by, project_id=project_id, content={"items": len(made)})
    return Added(num_items=len(made), num_calibration=num_more, num_known=len(given) - len(new))


def insert_items(
    rows: Rows, project: schema.Project, items: Sequence[NewItem], uses: Sequence[str]
) -> list[dict[str, Any]]:
    """Insert items that the project does not have, each for its use, with their texts; return their rows."""
    _insert_content(rows, project.id, schema.Prompt, {item.prompt.id: to_dict(item.prompt) for item in items})
    _insert_content(rows, project.id, schema.Completion, {c.id: to_dict(c) for item in items for c in item.completions})
    made = [
        {"id": new_id(), "project_id": project.id, "content_id": item.content_id, "prompt_id": item.prompt.id,
         "completions": [completion.id for completion in item.completions], "use": use, "rank": secrets.randbelow(2**53)}
        for item, use in zip(items, uses, strict=True)
    ]  # fmt: skip
    _insert(rows, schema.Item, made)
    _insert(rows, schema.Progress, [
        {"item_id": item["id"], "project_id": project.id, "use": item["use"], "rank": item["rank"], "num_votes": 0, "num_skips": 0,
         "pattern": "", "num_extra": 0, "num_lacking": project.votes_per_item if item["use"] == "production" else 0}
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
