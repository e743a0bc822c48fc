"""Texts into a project: a run's completions, or pairs of any preference file that `formats` reads.

What a file says of quality (chosen, rejected, scores) is left behind: raters see two texts in an order that says nothing.

Example:
    found = read_pairs("hh.jsonl.gz", rejects_file=Path("rejects.jsonl"))
    added = add_pairs(database, project.id, found.pairs)
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects, read_records
from fairlead.core.records import Completion, Prompt, Task, from_dict, to_dict
from fairlead.feedback.tasks import make_tasks
from fairlead.formats import prompt_part, read_preferences
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.web.events import record
from fairlead.web.people import new_id
from fairlead.web.projects import get_project

MAX_TEXT = 400_000
"""Characters of a conversation or a reply; a longer one cannot be read on a screen."""
NUM_FAULTS = 20
"""Faulty rows that a message lists; the rejects file has all."""
_CHUNK = 500  # rows of one statement; SQLite takes 32,766 values


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two completions of one prompt, in canonical order."""

    prompt: Prompt
    a: Completion
    b: Completion

    @property
    def task(self) -> Task:
        """The comparison as the pipeline knows it."""
        return Task(prompt_id=self.prompt.id, completion_a=self.a.id, completion_b=self.b.id)


@dataclass(slots=True, kw_only=True)
class Found:
    """Pairs of a file or folder, and what became of the rest."""

    pairs: list[Pair]
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Rows, prompts or pairs that gave nothing, by reason."""
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
    """Pairs that the project has already."""


def read_source(path: Path, *, pairs_per_prompt: int, seed: int, rejects_file: Path) -> Found:
    """Read a folder with prompts.jsonl and completions.jsonl, or a file of preferences in any known format.

    Raises:
        DataError: nothing usable is in it.
    """
    found = (
        _read_run(path, pairs_per_prompt=pairs_per_prompt, seed=seed)
        if path.is_dir()
        else _read_file(path, rejects_file)
    )
    found.pairs, pairs = [], found.pairs
    for pair in pairs:
        reason = _fault(pair)
        if reason is None:
            found.pairs.append(pair)
        else:
            found.leave_out(reason)
    if not found.pairs:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in found.left_out.items()) or "it is empty"
        raise DataError(explain(path, None, f"gives no pair to rate ({reasons})", expected="two different completions of a prompt",
                                remedy="Check the file"))  # fmt: skip
    return found


def _read_run(folder: Path, *, pairs_per_prompt: int, seed: int) -> Found:
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
    found = Found(
        pairs=[
            Pair(prompt=prompts[t.prompt_id], a=completions[t.completion_a], b=completions[t.completion_b])
            for t in plan.tasks
        ]
    )
    found.leave_out("prompts with fewer than two completions", plan.num_single)
    found.leave_out("prompts whose completions are all equal", plan.num_identical)
    return found


def _read_file(path: Path, rejects_file: Path) -> Found:
    found = Found(pairs=[])
    with Rejects(rejects_file) as rejects:
        reading = read_preferences(path, rejects=rejects)
        for preference in reading:
            prompt = prompt_part(preference)
            texts = (Completion(prompt_id=prompt.id, text=text, model="unknown") for text in (preference.chosen, preference.rejected))  # fmt: skip
            a, b = sorted(texts, key=lambda completion: completion.id)
            found.pairs.append(Pair(prompt=prompt, a=a, b=b))
        found.faults = [f"{where}: {reason}" for where, reason in rejects.first(NUM_FAULTS)]
    for reason, num in (*reading.report.rejects.items(), *reading.report.skips.items()):
        found.leave_out(f"rows: {reason}", num)
    return found


def _fault(pair: Pair) -> str | None:
    texts = (*(message.content for message in pair.prompt.messages), pair.a.text, pair.b.text)
    if not pair.a.text.strip() or not pair.b.text.strip():
        return "pairs with an empty reply"
    if pair.a.text.strip() == pair.b.text.strip():
        return "pairs of equal replies"
    if any("\0" in text for text in texts):
        return "pairs with a NUL character"
    if max(map(len, texts)) > MAX_TEXT:
        return f"pairs with a text beyond {MAX_TEXT:,} characters"
    return None


def add_pairs(database: Database, project_id: str, pairs: Sequence[Pair], *, by: str | None = None) -> Added:
    """Put pairs into a project, all or none; those that it has are counted and left alone.

    Until the project has its calibration items, new pairs become those, drawn at random.
    """
    with database.write() as rows:
        project = get_project(rows, project_id)
        known = set(rows.scalars(sa.select(schema.Item.pair_id).where(schema.Item.project_id == project_id)))
        new = {pair.task.id: pair for pair in pairs if pair.task.id not in known}
        _insert_content(
            rows, project_id, schema.Prompt, {pair.prompt.id: to_dict(pair.prompt) for pair in new.values()}
        )
        _insert_content(rows, project_id, schema.Completion, {c.id: to_dict(c) for pair in new.values() for c in (pair.a, pair.b)})  # fmt: skip
        num_calibration = rows.scalar(
            sa.select(sa.func.count()).select_from(schema.Item).where(schema.Item.project_id == project_id, schema.Item.use == "calibration")
        ) or 0  # fmt: skip
        names = list(new)
        secrets.SystemRandom().shuffle(names)
        num_more = min(max(0, project.calibration_items - num_calibration), len(names))
        items = [
            {"id": new_id(), "project_id": project_id, "pair_id": name, "prompt_id": new[name].prompt.id, "completion_a": new[name].a.id,
             "completion_b": new[name].b.id, "use": "calibration" if i < num_more else "production", "rank": secrets.randbelow(2**53)}
            for i, name in enumerate(names)
        ]  # fmt: skip
        _insert(rows, schema.Item, items)
        _insert(rows, schema.Progress, [
            {"item_id": item["id"], "project_id": project_id, "use": item["use"], "rank": item["rank"], "num_votes": 0, "num_skips": 0,
             "pattern": ""}
            for item in items
        ])  # fmt: skip
        record(rows, "items.imported", person_id=by, project_id=project_id, content={"items": len(items)})
        return Added(num_items=len(items), num_calibration=num_more, num_known=len({p.task.id for p in pairs} & known))


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


def pair_of(rows: Rows, item: schema.Item) -> Pair:
    """The texts of an item."""
    prompt = rows.get(schema.Prompt, (item.project_id, item.prompt_id))
    a = rows.get(schema.Completion, (item.project_id, item.completion_a))
    b = rows.get(schema.Completion, (item.project_id, item.completion_b))
    assert prompt is not None and a is not None and b is not None, f"item {item.id} lacks a text"
    return Pair(prompt=from_dict(Prompt, prompt.record), a=from_dict(Completion, a.record), b=from_dict(Completion, b.record))  # fmt: skip
