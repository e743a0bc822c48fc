"""A project as rated items, and these as files of other programs: Label Studio, Argilla, TRL, HH and the like.

Raters appear under pseudonyms; ratings of other tools only when asked for, marked by the file they are from (`meta.outside`).

Example:
    export_as(database, project, Path("pairs.jsonl"), to="trl", method="one_coin")
"""

import datetime
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairlead.core.annotations import RatedItem, asked_in
from fairlead.core.errors import ConfigError, explain
from fairlead.core.records import Completion, from_dict
from fairlead.preferences.item_export import Written, check_target, write_rated
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Assignment, Item, Project, Verdict
from fairlead.web.decisions import decision_meta, ranked_meta
from fairlead.web.exporting import add_files
from fairlead.web.frames import is_swapped
from fairlead.web.given import Given, given_items, no_votes, rated_ids
from fairlead.web.inclusion import Inclusion, inclusions
from fairlead.web.outside import renamed_spans
from fairlead.web.projects import get_project

ENDINGS = {"labels": ".csv", "label_studio": ".json", "label_studio_min": ".json", "argilla": ".json"}
"""Of tables, and of files for tools that import whole JSON lists; all others are JSONL."""


_SOURCE = "fairlead annotate"
"""Of texts whose origin nobody named, so that a tool on the way does not put its own in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadItems:
    """Every item that somebody rated, in the order of their contents' hashes, with the decision on it and how it came in.

    They are read from the database, some hundreds at a time, whenever they are gone through, while its transaction lasts. Hidden anchors ask
    twice and stay out.
    """

    rows: Rows
    project_id: str
    ids: Sequence[str]
    included: Mapping[str, Inclusion]
    with_outside: bool

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[RatedItem]:
        for each in given_items(self.rows, self.project_id, self.ids, with_outside=self.with_outside):
            yield _item(each, came_in=self.included.get(each.item.id))


def rated_items(rows: Rows, project_id: str, *, with_outside: bool = False) -> ReadItems:
    """Find the items; they are read when they are gone through."""
    return ReadItems(
        rows=rows, project_id=project_id, ids=rated_ids(rows, project_id, with_outside=with_outside),
        included=inclusions(rows, get_project(rows, project_id)), with_outside=with_outside,
    )  # fmt: skip


def _item(given: Given, *, came_in: Inclusion | None) -> RatedItem:
    item, texts, names = given.item, given.texts, given.item.completions
    decided = decision_meta(given.decision) if len(names) == 2 else ranked_meta(given.decision, names)
    meta = {"use": item.use, **asked_in(texts.prompt.meta)} | (came_in.meta() if came_in else {}) | decided
    source = _SOURCE if texts.prompt.source == "unknown" else texts.prompt.source
    said = zip(given.votes, given.times, strict=True)
    ratings = [_rating(item, *vote, at) for vote, at in said] + [_named(each, names) for each in given.outside]
    return from_dict(RatedItem, {
        "prompt": [{"role": turn.role, "content": turn.content} for turn in texts.prompt.messages],
        "replies": [_reply(completion) for completion in texts.completions], "ratings": ratings, "item": item.content_id,
        "slice": texts.prompt.slice, "source": source, "split": texts.prompt.split, "meta": meta,
    })  # fmt: skip


def _reply(completion: Completion) -> dict[str, str]:
    return {
        "id": completion.id,
        "text": completion.text,
        "model": "" if completion.model == "unknown" else completion.model,
    }


def _rating(item: Item, verdict: Verdict, assignment: Assignment, pseudonym: str, at: int) -> dict[str, Any]:
    names = item.completions
    is_pair, is_decided = len(names) == 2, verdict.verdict not in ("skip", "both_bad")
    meta: dict[str, Any] = {"order": assignment.position}
    if verdict.spans:
        meta["spans"] = [{**span, "completion": names[span["completion"]]} for span in verdict.spans]
    return {
        "rater": pseudonym, "verdict": verdict.verdict if is_pair or not is_decided else None, "strength": verdict.strength,
        "swapped": is_pair and is_swapped(assignment.shown),
        "ranking": [] if is_pair else [[names[position] for position in tied] for tied in verdict.ranking],
        "answers": {name: dict(zip(names, given, strict=True)) for name, given in verdict.criteria.items()},
        "rationale": verdict.rationale, "edits": {} if verdict.edited is None else {names[verdict.edited]: verdict.edited_text},
        "skip_reason": verdict.skip_reason, "duration_ms": verdict.active_ms, "guideline_version": str(verdict.guideline_version),
        "created_at": datetime.datetime.fromtimestamp(at / 1000, datetime.UTC).isoformat(timespec="milliseconds"),
        "source_id": f"event-{verdict.event_number}", "meta": meta,
    }  # fmt: skip


def _named(record: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """A rating of another tool, with positions turned into the ids of the completions."""
    at = {str(position): name for position, name in enumerate(names)}

    def renamed(answer: Any) -> Any:
        return (
            {at[key]: value for key, value in answer.items()}
            if isinstance(answer, dict) and set(answer) <= set(at)
            else answer
        )

    return {
        **record, "ranking": [[at[name] for name in tied] for tied in record["ranking"]], "edits": renamed(record["edits"]),
        "answers": {question: renamed(answer) for question, answer in record["answers"].items()}, "meta": renamed_spans(record["meta"], at),
    }  # fmt: skip


def export_as(
    database: Database, project: Project, out: Path, *, to: str, method: str = "auto", is_blind: bool = False, with_outside: bool = False
) -> Written:  # fmt: skip
    """Write a project as a file of another program.

    Args:
        to: one of `item_export.TARGETS`; `.parquet` by the name of the file.
        method: how votes become preferences, where the format holds those.
        is_blind: leave the names of models out.
        with_outside: with the ratings of other tools.
    Raises:
        ConfigError: the format or the method is not known, or people write in this project and do not vote.
        DataError: there is nothing to write, or nothing that the format can hold.
    """
    check_target(to)
    if project.kind == "demonstration":
        raise ConfigError(explain("format", to, f"holds votes, and in {project.name} people write replies", expected="native",
                                  remedy="Leave the format out: what was accepted is written for sft.data"))  # fmt: skip
    with database.read() as rows:
        items = rated_items(rows, project.id, with_outside=with_outside)
        if not items.ids:
            raise no_votes(project)
        out.parent.mkdir(parents=True, exist_ok=True)
        return write_rated(out, items, to=to, method=method, is_blind=is_blind)


def write_archive_as(
    archive: zipfile.ZipFile, database: Database, project_id: str, *, to: str, method: str = "auto", is_blind: bool = False,
    with_outside: bool = False,
) -> None:  # fmt: skip
    """The same into an archive."""
    with database.read() as rows:
        project = get_project(rows, project_id)
    with tempfile.TemporaryDirectory(prefix="fairlead-export-") as folder:
        file = Path(folder) / f"{to}{ENDINGS.get(to, '.jsonl')}"
        export_as(database, project, file, to=to, method=method, is_blind=is_blind, with_outside=with_outside)
        add_files(archive, Path(folder))
