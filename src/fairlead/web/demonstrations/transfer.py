"""Conversations into a project of demonstrations, and accepted replies out of it for supervised fine-tuning.

    demonstrations.jsonl   an accepted reply a line as `core.records.Demonstration`: sft.data of a recipe
    style-guide-N.md       every version that authors read
    manifest.json          counts and SHA-256 of each file

People appear under their pseudonyms only. What was sent back and never accepted stays in the events.
"""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairlead.core import records
from fairlead.core.errors import DataError, explain
from fairlead.core.io import read_records, write_json, write_jsonl, write_text
from fairlead.core.records import Completion, Message, Prompt, from_dict, to_dict
from fairlead.formats import detect_format, prompt_part, read_demonstrations, read_prompts
from fairlead.store.annotation import schema
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.written import Demonstration, Writing
from fairlead.web.demonstrations.actions import MAX_REPLY
from fairlead.web.demonstrations.derive import untouched
from fairlead.web.errors import invalid
from fairlead.web.events import record
from fairlead.web.importing import MAX_TEXT
from fairlead.web.matching import demand
from fairlead.web.needs import needs_of
from fairlead.web.people import new_id
from fairlead.web.projects import get_project
from fairlead.web.screening import NUM_FAULTS, Placed, screened


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A conversation that wants a reply."""

    prompt: Prompt
    draft: Completion | None = None


@dataclass(slots=True, kw_only=True)
class Found:
    """Conversations of a file or folder, and what became of the rest."""

    wanted: list[Wanted]
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Rows, prompts or drafts that gave nothing, by reason."""
    faults: list[str] = field(default_factory=list[str])
    """The first faulty rows: line and reason."""

    def leave_out(self, reason: str, num: int = 1) -> None:
        """Count what gave nothing."""
        self.left_out[reason] = self.left_out.get(reason, 0) + num


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What an import changed."""

    num_new: int
    num_drafts: int
    num_known: int
    """Conversations that the project has already."""


def read_wanted(path: Path, *, with_drafts: bool, rejects_file: Path) -> Found:
    """Read a folder with prompts.jsonl (and completions.jsonl), or a file in any known format: the prompts of its rows.

    Args:
        with_drafts: offer what the source has as a reply as a draft: a prompt's first completion, or a demonstration's last turn.
    Raises:
        DataError: nothing usable is in it.
    """
    found = Found(wanted=[])
    given = _of_run(path, with_drafts) if path.is_dir() else _of_file(path, with_drafts, found, rejects_file)
    seen: set[str] = set()
    for wanted in given:
        reason = _fault(wanted.prompt)
        if reason is None and wanted.prompt.id in seen:
            reason = "conversations that came before"
        if reason is not None:
            found.leave_out(reason)
            continue
        seen.add(wanted.prompt.id)
        found.wanted.append(Wanted(prompt=wanted.prompt, draft=_usable(wanted.draft, found)))
    if not found.wanted:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in found.left_out.items()) or "it is empty"
        raise DataError(explain(path, None, f"gives no conversation to reply to ({reasons})", expected="prompts",
                                remedy="Check the file"))  # fmt: skip
    return found


def _of_run(folder: Path, with_drafts: bool) -> Iterator[Wanted]:
    if not (folder / "prompts.jsonl").is_file():
        raise DataError(explain(folder / "prompts.jsonl", None, "is missing", expected="prompts.jsonl in the folder",
                                remedy="Copy it from a run, or name a file of prompts"))  # fmt: skip
    first: dict[str, Completion] = {}
    if with_drafts:
        for completion in read_records(folder / "completions.jsonl", Completion):
            first.setdefault(completion.prompt_id, completion)
    for prompt in read_records(folder / "prompts.jsonl", Prompt):
        yield Wanted(prompt=prompt, draft=first.get(prompt.id))


def _of_file(path: Path, with_drafts: bool, found: Found, rejects_file: Path) -> Iterator[Wanted]:
    with Placed(rejects_file, original=path) as rejects, screened(path, found.leave_out, rejects) as file:
        has_replies = with_drafts and detect_format(file).kind == "demonstrations"
        reading = (read_demonstrations if has_replies else read_prompts)(file, rejects=rejects)
        for row in reading:
            if isinstance(row, records.Demonstration):
                prompt = prompt_part(row)
                yield Wanted(prompt=prompt, draft=Completion(prompt_id=prompt.id, text=row.messages[-1].content, model=row.source))  # fmt: skip
            else:
                yield Wanted(prompt=row)
        found.faults = rejects.listed(NUM_FAULTS)
    for reason, num in (*reading.report.rejects.items(), *reading.report.skips.items()):
        found.leave_out(f"rows: {reason}", num)


def _fault(prompt: Prompt) -> str | None:
    texts = [message.content for message in prompt.messages]
    if any("\0" in text for text in texts):
        return "conversations with a NUL character"
    if max(map(len, texts)) > MAX_TEXT:
        return f"conversations with a text beyond {MAX_TEXT:,} characters"
    try:
        needs_of(prompt.meta)
    except ValueError as fault:
        return f"conversations whose language or skills are {fault}"
    return None


def _usable(draft: Completion | None, found: Found) -> Completion | None:
    if draft is None or (draft.text.strip() and len(draft.text) <= MAX_REPLY and "\0" not in draft.text):
        return draft
    found.leave_out(f"drafts that are empty, beyond {MAX_REPLY:,} characters or with a NUL character")
    return None


def add_wanted(database: Database, project_id: str, wanted: Sequence[Wanted], *, by: str | None = None) -> Added:
    """Put conversations into a project, all or none; those that it has are counted and left alone, with their drafts."""
    with database.write() as rows:
        if get_project(rows, project_id).kind != "demonstration":
            raise invalid("This project compares replies. Choose a project of demonstrations, or a new name.")
        known = set(rows.scalars(sa.select(Writing.prompt_id).where(Writing.project_id == project_id)))
        new = [each for each in wanted if each.prompt.id not in known]
        add_content(rows, project_id, schema.Prompt, [each.prompt for each in new])
        add_content(rows, project_id, schema.Completion, [each.draft for each in new if each.draft])
        made = [
            Writing(id=new_id(), project_id=project_id, prompt_id=each.prompt.id, draft_id=each.draft.id if each.draft else None,
                    rank=secrets.randbelow(2**53), needs=" ".join(needs_of(each.prompt.meta)))
            for each in new
        ]  # fmt: skip
        rows.add_all(made)
        rows.flush()
        rows.add_all(untouched(writing.id, project_id, writing.rank) for writing in made)
        demand(rows, project_id, rows.scalars(sa.select(Writing.needs).where(Writing.project_id == project_id).distinct()).all())  # fmt: skip
        record(rows, "writings.imported", person_id=by, project_id=project_id, content={"writings": len(new)})
        num_drafts = sum(each.draft is not None for each in new)
        return Added(num_new=len(new), num_drafts=num_drafts, num_known=len(wanted) - len(new))


def add_content(
    rows: Rows, project_id: str, table: type[schema.Prompt] | type[schema.Completion], given: Sequence[Prompt | Completion]
) -> None:  # fmt: skip
    """Insert the texts that the project does not have."""
    known = set(rows.scalars(sa.select(table.id).where(table.project_id == project_id)))
    new = {each.id: each for each in given if each.id not in known}
    rows.add_all(table(project_id=project_id, id=name, record=to_dict(each)) for name, each in new.items())
    rows.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written."""

    num_demonstrations: int
    num_drafted: int
    num_edited: int
    num_authors: int


def export_demonstrations(database: Database, project: schema.Project, out: Path) -> Export:
    """Write all files of a project as of one moment.

    Raises:
        DataError: nothing has been accepted yet.
    """
    with database.read() as rows:
        found = list(_accepted(rows, project))
        versions = rows.scalars(sa.select(schema.Guideline).where(schema.Guideline.project_id == project.id))
        guidelines = {guideline.version: guideline.text for guideline in versions}
    if not found:
        raise DataError(explain(project.name, None, "has no accepted demonstration yet", expected="replies that a second person accepted",
                                remedy="Let raters write and review: fairlead annotate invite"))  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_jsonl(out / "demonstrations.jsonl", (to_dict(each) for each in found))
    used = sorted({int(each.meta["guideline_version"]) for each in found})
    for version in used:
        write_text(out / f"style-guide-{version}.md", guidelines[version])
    export = Export(
        num_demonstrations=len(found), num_drafted=sum("draft" in each.meta for each in found),
        num_edited=sum(each.meta["is_edited"] for each in found), num_authors=len({each.meta["author"] for each in found}),
    )  # fmt: skip
    names = ["demonstrations.jsonl", *(f"style-guide-{version}.md" for version in used)]
    write_json(out / "manifest.json", {
        "project": project.name, "demonstrations": export.num_demonstrations, "drafted": export.num_drafted, "edited": export.num_edited,
        "authors": export.num_authors, "sha256": {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names},
    })  # fmt: skip
    return export


def _accepted(rows: Rows, project: schema.Project) -> Iterator[records.Demonstration]:
    found = rows.execute(
        sa.select(Demonstration, schema.Prompt.record).join(Writing, Writing.id == Demonstration.writing_id)
        .join(schema.Prompt, (schema.Prompt.project_id == Writing.project_id) & (schema.Prompt.id == Writing.prompt_id))
        .where(Demonstration.project_id == project.id, Demonstration.state == "accepted").order_by(Writing.prompt_id)
    ).all()  # fmt: skip
    names = {row[0]: row[1] for row in rows.execute(sa.select(schema.Person.id, schema.Person.pseudonym)).all()}
    for each, kept in found:
        prompt = from_dict(Prompt, kept)
        reply = Message(role="assistant", content=each.text)
        yield records.Demonstration(messages=(*prompt.messages, reply), slice=prompt.slice, source=prompt.source, split=prompt.split,
                                    meta=_provenance(rows, project, prompt, each, names))  # fmt: skip


def _provenance(
    rows: Rows, project: schema.Project, prompt: Prompt, each: Demonstration, names: dict[str, str]
) -> dict[str, Any]:
    """Who wrote and reviewed it, under which style guide, and what of it a model wrote."""
    made: dict[str, Any] = {
        "project": project.name, "prompt_id": prompt.id, "author": names[str(each.author_id)], "reviewer": names[str(each.reviewer_id)],
        "guideline_version": str(each.guideline_version), "num_rounds": each.round, "is_edited": each.is_edited,
        "review_kept": round(each.review_kept, 4), "is_drafted": each.is_drafted,
    }  # fmt: skip
    if each.active_ms is not None:
        made["active_ms"] = each.active_ms
    if each.is_drafted:
        draft = rows.get(schema.Completion, (project.id, each.draft_id))
        assert draft is not None, f"draft {each.draft_id} is not there"
        made["draft"] = {"completion_id": each.draft_id, "model": draft.record["model"], "from_draft": round(each.from_draft, 4),
                         "draft_kept": round(each.draft_kept, 4)}  # fmt: skip
    return made
