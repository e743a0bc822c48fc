"""Texts in and votes out, as files."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from fairlead.core.config import parse_yaml
from fairlead.core.errors import ConfigError, DataError
from fairlead.formats.vendor import mapping_from
from fairlead.store.annotation.database import Database
from fairlead.web import anchors, importing, policy, projects, reading
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import ImportShown
from fairlead.web.demonstrations import transfer as wanted
from fairlead.web.errors import Refused, invalid
from fairlead.web.exporting import write_archive
from fairlead.web.needs import need_of
from fairlead.web.policy import Actor
from fairlead.web.rated import write_archive_as
from fairlead.web.sending import send

router = APIRouter(tags=["transfer"])
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet")


@router.post(
    "/projects/{project_id}/import",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def import_texts(
    request: Request, who: Who, data: Data, project_id: str,
    ending: Annotated[str, Query(description="What the file's name ends with: " + ", ".join(ENDINGS))] = ".jsonl",
    strict: Annotated[bool, Query(description="Import nothing when a row cannot be used.")] = False,
    group_size: Annotated[int, Query(ge=2, le=9, description="Completions of an item: 2 to compare, more to rank all of a prompt.")] = 2,
    gold: Annotated[bool, Query(description="The file's answers are right: these pairs are hidden anchors.")] = False,
    test: Annotated[str, Query(description="With gold: these pairs are the test of skill:code, or language:de, in place of anchors.")] = "",
    format: Annotated[str, Query(max_length=40, description="Of the file; recognised when left out.")] = "",
    mapping: Annotated[str, Query(max_length=8000, description="Which column is what in a vendor's table, as YAML.")] = "",
    drafts: Annotated[bool, Query(description="Demonstrations: offer the replies that the file has as drafts.")] = False,
) -> ImportShown:  # fmt: skip
    """Put a file of pairs, rated items or conversations in any known format into a project: the body is the file, up to 64 MB. What the project has
    already is left alone, and votes of other tools are kept apart."""
    policy.may_import(who)
    if ending not in ENDINGS:
        raise invalid(f"ending is not one of {', '.join(ENDINGS)}. Name what the file is.")
    with tempfile.TemporaryDirectory(prefix="fairlead-import-") as folder:
        file = Path(folder) / f"upload{ending}"
        with file.open("wb") as out:
            async for part in request.stream():
                await run_in_threadpool(out.write, part)
        asked = _Asked(
            is_strict=strict,
            group_size=group_size,
            is_gold=gold,
            test=test,
            format=format,
            mapping=mapping,
            with_drafts=drafts,
        )
        return await run_in_threadpool(_import, data, who, project_id, file, asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """How a file is to be read."""

    is_strict: bool
    group_size: int
    is_gold: bool
    test: str
    format: str
    mapping: str
    with_drafts: bool


def _import(database: Database, who: Actor, project_id: str, file: Path, asked: _Asked) -> ImportShown:
    if asked.test and not asked.is_gold:
        raise invalid("A test needs known answers. Send gold=true beside it.")
    with database.read() as rows:
        project = projects.get_project(rows, project_id)
    try:
        if project.kind == "demonstration":
            return _import_wanted(database, who, project_id, file, asked)
        return _import_items(database, who, project_id, file, asked)
    except (ConfigError, DataError) as error:  # the name of a temporary file says nothing to whoever sent it
        raise type(error)(str(error).replace(f"{file.parent}/", "")) from error


def _require_whole(asked: _Asked, left_out: Mapping[str, int], faults: Sequence[str]) -> None:
    if asked.is_strict and left_out:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in left_out.items())
        raise Refused(422, "invalid", f"Nothing was imported: {reasons}. {'; '.join(faults)}")


def _import_wanted(database: Database, who: Actor, project_id: str, file: Path, asked: _Asked) -> ImportShown:
    found = wanted.read_wanted(file, with_drafts=asked.with_drafts, rejects_file=file.with_name("rejects.jsonl"))
    _require_whole(asked, found.left_out, found.faults)
    added = wanted.add_wanted(database, project_id, found.wanted, by=who.person_id)
    return ImportShown(
        num_items=added.num_new, num_calibration=0, num_known=added.num_known, num_outside=0, num_repeats=0, num_uneven=0,
        left_out=found.left_out, faults=found.faults,
    )  # fmt: skip


def _import_items(database: Database, who: Actor, project_id: str, file: Path, asked: _Asked) -> ImportShown:
    columns = mapping_from(parse_yaml(asked.mapping, where="mapping")) if asked.mapping else None
    found = reading.read_source(file, group_size=asked.group_size, seed=0, rejects_file=file.with_name("rejects.jsonl"),
                                source_format=asked.format or None, mapping=columns)  # fmt: skip
    _require_whole(asked, found.left_out, found.faults)
    if asked.is_gold:
        qualifies = need_of(asked.test) if asked.test else ""
        num_new, num_known = anchors.add_gold(database, project_id, found.items, by=who.person_id, qualifies=qualifies)
        return ImportShown(
            num_items=num_new, num_calibration=0, num_known=num_known, num_outside=0, num_repeats=found.repeats, num_uneven=found.num_uneven,
            left_out=found.left_out, faults=found.faults,
        )  # fmt: skip
    added = importing.add_items(
        database, project_id, found.items, by=who.person_id, ratings=found.ratings, source="upload over the API"
    )
    return ImportShown(
        num_items=added.num_items, num_calibration=added.num_calibration, num_known=added.num_known, num_outside=added.outside.num_ratings,
        num_repeats=found.repeats, num_uneven=found.num_uneven, left_out=found.left_out, faults=found.faults,
    )  # fmt: skip


@router.get("/projects/{project_id}/export", response_class=StreamingResponse)
def export(
    who: Who, data: Data, project_id: str,
    format: Annotated[str, Query(max_length=40, description="native, or what `fairlead votes convert` writes.")] = "native",
    method: Annotated[str, Query(max_length=40, description="How votes are added up, where the format holds labels or preferences.")] = "auto",
    blind: Annotated[bool, Query(description="Leave the names of models out.")] = False,
    outside: Annotated[bool, Query(description="With the votes of other tools.")] = False,
) -> StreamingResponse:  # fmt: skip
    """All votes as `fairlead annotate export` writes them, in a zip archive."""
    policy.may_export(who)
    if format == "native" and (blind or outside or method != "auto"):
        raise invalid(
            "native names models and holds the own votes alone. Choose another format, fairlead_items for instance."
        )
    write = (
        functools.partial(write_archive, database=data, project_id=project_id)
        if format == "native"
        else functools.partial(write_archive_as, database=data, project_id=project_id, to=format, method=method, is_blind=blind,
                               with_outside=outside)
    )  # fmt: skip
    return send(write, filename="votes.zip")
