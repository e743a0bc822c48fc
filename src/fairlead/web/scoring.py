"""Scores of a reward model into a project, from a file: what the active choice of pairs takes as uncertainty.

    {"completion_id": "c-3f2a...", "value": 1.37}     records of a run (`scores.jsonl`)
    {"completion": "the whole text", "score": 1.37}   any other file

Raters never see them. The newest file replaces what earlier ones said of the same completions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairlead.core.io import Rejects, read_rows
from fairlead.store.annotation.choosing import ModelScore
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.schema import Completion
from fairlead.web.events import record
from fairlead.web.projects import get_project

IMPORTED = "scores.imported"
_CHUNK = 400  # rows of one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenScore:
    """One row of a file; it names its completion by id or by text."""

    completion_id: str
    text: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresPut:
    """What an import of scores changed."""

    num_scores: int
    """Completions of the project that have one now."""
    num_unknown: int
    """Rows that name no completion of the project."""


def read_scores(path: Path, *, rejects_file: Path) -> tuple[list[GivenScore], dict[str, int], list[tuple[str, str]]]:
    """(scores, faulty rows by reason, place and reason of the first faulty rows).

    Raises:
        DataError: no such file, or it is damaged.
    """
    found: list[GivenScore] = []
    with Rejects(rejects_file) as rejects:
        for row in read_rows(path):
            read = _read(row.values)
            if isinstance(read, str):
                rejects.add(row, read)
            else:
                found.append(read)
        return found, dict(rejects.counts), rejects.first(20)


def _read(values: dict[str, Any]) -> GivenScore | str:
    name, text = values.get("completion_id", ""), values.get("completion", "")
    if not isinstance(name, str) or not isinstance(text, str) or bool(name) == bool(text) or "\0" in name:
        return "names no completion (completion_id, or completion with the whole text)"
    given = values.get("value", values.get("score"))
    try:
        value = float(given) if isinstance(given, (int, float, str)) and not isinstance(given, bool) else math.nan
    except ValueError:
        value = math.nan
    return GivenScore(completion_id=name, text=text, value=value) if math.isfinite(value) else "has no finite value or score"  # fmt: skip


def put_scores(database: Database, project_id: str, given: Sequence[GivenScore], *, by: str | None) -> ScoresPut:
    """Store scores of the project's completions; the last row of a completion counts."""
    with database.read() as rows:
        get_project(rows, project_id)
        texts: dict[str, list[str]] = {}
        ids: set[str] = set()
        for name, text in rows.execute(
            sa.select(Completion.id, Completion.record["text"].as_string()).where(Completion.project_id == project_id)
        ).all():  # fmt: skip
            ids.add(name)
            texts.setdefault(text, []).append(name)
    values: dict[str, float] = {}
    num_unknown = 0
    for score in given:
        names = [score.completion_id] if score.completion_id in ids else texts.get(score.text, [])
        num_unknown += not names
        values |= dict.fromkeys(names, score.value)
    made = [{"project_id": project_id, "completion_id": name, "value": value} for name, value in values.items()]
    with database.write() as rows:
        for start in range(0, len(made), _CHUNK):
            part = made[start : start + _CHUNK]
            rows.execute(sa.delete(ModelScore).where(
                ModelScore.project_id == project_id, ModelScore.completion_id.in_([row["completion_id"] for row in part])
            ))  # fmt: skip
            rows.execute(sa.insert(ModelScore), part)
        record(rows, IMPORTED, person_id=by, project_id=project_id, content={"num": len(made), "num_unknown": num_unknown})  # fmt: skip
        num = rows.scalar(sa.select(sa.func.count()).select_from(ModelScore).where(ModelScore.project_id == project_id))
    return ScoresPut(num_scores=num or 0, num_unknown=num_unknown)
