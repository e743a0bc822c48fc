"""Texts in and votes out, as files."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from fairlead.store.annotation.database import Database
from fairlead.web import importing, policy, projects
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import ImportShown
from fairlead.web.errors import Refused, invalid
from fairlead.web.exporting import zip_project
from fairlead.web.policy import Actor

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
) -> ImportShown:  # fmt: skip
    """Put a file of pairs or rated items in any known format into a project: the body is the file, up to 64 MB. Known items are left alone."""
    policy.may_import(who)
    if ending not in ENDINGS:
        raise invalid(f"ending is not one of {', '.join(ENDINGS)}. Name what the file is.")
    with tempfile.TemporaryDirectory(prefix="fairlead-import-") as folder:
        file = Path(folder) / f"upload{ending}"
        with file.open("wb") as out:
            async for part in request.stream():
                await run_in_threadpool(out.write, part)
        return await run_in_threadpool(_import, data, who, project_id, file, is_strict=strict, group_size=group_size)


def _import(
    database: Database, who: Actor, project_id: str, file: Path, *, is_strict: bool, group_size: int
) -> ImportShown:
    with database.read() as rows:
        projects.get_project(rows, project_id)
    found = importing.read_source(file, group_size=group_size, seed=0, rejects_file=file.with_name("rejects.jsonl"))
    faults = [fault.removeprefix(f"{file}:").removeprefix(str(file)) for fault in found.faults]
    if is_strict and found.left_out:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in found.left_out.items())
        listed = "; ".join(faults)
        raise Refused(422, "invalid", f"Nothing was imported: {reasons}. {listed}")
    added = importing.add_items(database, project_id, found.items, by=who.person_id)
    return ImportShown(num_items=added.num_items, num_calibration=added.num_calibration, num_known=added.num_known, left_out=found.left_out,
                       faults=faults)  # fmt: skip


@router.get("/projects/{project_id}/export", response_class=FileResponse)
def export(who: Who, data: Data, project_id: str) -> FileResponse:
    """All votes as `fairlead annotate export` writes them, in a zip archive."""
    policy.may_export(who)
    archive = zip_project(data, project_id)
    return FileResponse(archive, filename="votes.zip", media_type="application/zip",
                        background=BackgroundTask(shutil.rmtree, archive.parent))  # fmt: skip
