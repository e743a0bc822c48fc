"""Projects and the versions of their guidelines."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa
from pydantic import ConfigDict

from fairlead.store.annotation.database import READS, Database, Rows, run
from fairlead.store.annotation.schema import Guideline, Project, copy_of, table_of
from fairlead.store.annotation.skills import Demand
from fairlead.web.contents import Kept
from fairlead.web.errors import Refused, invalid, missing
from fairlead.web.events import record
from fairlead.web.people import new_id, now_ms

MAX_GUIDELINE = 200_000  # characters
MAX_CRITERIA, MAX_POINTS = 3, 10
MAX_QUESTION, MAX_END = 200, 40  # characters
_CRITERION = re.compile(r"[a-z][a-z0-9_]{0,29}")
MAX_REASON = 500  # characters
FIRST_GUIDELINE = """# Which reply is better?

Read the conversation, then both replies to the end. Choose the reply that you would rather have received.

- **Helpful**: it does what was asked, completely and correctly.
- **Honest**: it says what is so, and says when it does not know.
- **Harmless**: it does not help to hurt anybody.

A longer reply is not better for being longer. When you cannot decide after a second reading, choose the one that is slightly better.
"""

FIRST_STYLE_GUIDE = """# How shall the assistant reply?

Write the reply that you would be glad to receive, as if the assistant had written it.

- **Answer first**: what was asked comes before what else is good to know.
- **Right**: write only what you know or have looked up. Say where you are not sure.
- **Plain**: short sentences, no flattery, no repetition of the question.
- **Harmless**: do not help to hurt anybody; say so in one sentence and offer what you can do.

Do not copy from the web or from another assistant. Where a draft is offered, take it only if you would have written it so, and correct it.
"""
FIRST_TEXTS = {"comparison": FIRST_GUIDELINE, "demonstration": FIRST_STYLE_GUIDE, "chat": FIRST_GUIDELINE}
"""What a new project asks, by its kind."""
KINDS = tuple(FIRST_TEXTS)
_PROJECT = sa.select(Project).where(Project.id == sa.bindparam("project"))
_COLUMNS = sa.select(table_of(Project)).where(table_of(Project).c.id == sa.bindparam("project"))
_VERSION = sa.select(Guideline).where(Guideline.project_id == sa.bindparam("project"), Guideline.version == sa.bindparam("version"))  # fmt: skip
NEWEST = (
    sa.select(sa.func.max(table_of(Guideline).c.version)).where(table_of(Guideline).c.project_id == sa.bindparam("project")).scalar_subquery()
)  # fmt: skip
"""Version of the guideline of `project`."""
_CURRENT = sa.select(NEWEST)
_KEPT = Kept[tuple[str, int], Guideline](200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """A scale by which every completion is rated beside the verdict."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    """In exports: helpfulness gives the ratings `chosen_helpfulness` and `rejected_helpfulness`."""
    question: str
    points: int = 5
    """Ratings go from 1 (worst) to this."""
    low: str = ""
    """What 1 means."""
    high: str = ""
    """What the highest rating means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a guideline version asks of a verdict."""

    scale: str = "graded"
    """binary, or graded."""
    ties: str = "forced"
    """forced, or allowed: also whether replies of a ranking may share a place."""
    both_bad: bool = False
    rationale: str = "optional"
    """off, optional or required."""
    criteria: tuple[Criterion, ...] = ()
    """At most three."""
    spans: bool = False
    """May raters mark passages?"""
    edits: bool = False
    """May raters write the best completion better?"""


CHOICES = {"scale": ("binary", "graded"), "ties": ("forced", "allowed"), "rationale": ("off", "optional", "required")}


def rules_of(guideline: Guideline) -> Rules:
    """The rules of a stored version."""
    values = {field.name: getattr(guideline, field.name) for field in fields(Rules)}
    return Rules(**{**values, "criteria": tuple(Criterion(**each) for each in guideline.criteria)})


def to_columns(rules: Rules) -> dict[str, Any]:
    """The rules as columns of a version."""
    return {**asdict(rules), "criteria": [asdict(criterion) for criterion in rules.criteria]}


def check_rules(rules: Rules) -> None:
    """Can a guideline ask this?

    Raises:
        Refused: a value is not one of those allowed, or the criteria cannot be told apart or answered.
    """
    for name, allowed in CHOICES.items():
        if getattr(rules, name) not in allowed:
            raise invalid(f"{name} of the guideline is {getattr(rules, name)}. Choose one of {', '.join(allowed)}.")
    if len(rules.criteria) > MAX_CRITERIA:
        raise invalid(f"The guideline has {len(rules.criteria)} criteria. Keep the {MAX_CRITERIA} that matter.")
    for criterion in rules.criteria:
        if not _CRITERION.fullmatch(criterion.name):
            raise invalid(f"A criterion is named {criterion.name[:40]}. Use a word of small letters, digits and _, at most 30.")  # fmt: skip
        if not 1 <= len(criterion.question.strip()) <= MAX_QUESTION or max(len(criterion.low), len(criterion.high)) > MAX_END:  # fmt: skip
            raise invalid(
                f"{criterion.name} has no question, or one that is too long. Write 1 to {MAX_QUESTION} characters, and {MAX_END} for each end."
            )
        if not 2 <= criterion.points <= MAX_POINTS:
            raise invalid(f"{criterion.name} has {criterion.points} points. Choose 2 to {MAX_POINTS}.")
        if any("\0" in text for text in (criterion.question, criterion.low, criterion.high)):
            raise invalid(f"{criterion.name} holds a NUL character. Remove it.")
    names = [criterion.name for criterion in rules.criteria]
    if len(set(names)) < len(names):
        raise invalid("Two criteria have one name. Name them apart.")


def create_project(
    database: Database, name: str, *, kind: str = "comparison", votes_per_item: int = 3, calibration_items: int = 50, by: str | None = None,
    text: str | None = None, rules: Rules | None = None,
) -> Project:  # fmt: skip
    """Make a project with its first guideline.

    Args:
        kind: comparison, demonstration, or chat.
        text: of the guideline; None takes the kind's own.
    """
    if kind not in FIRST_TEXTS:
        raise invalid(f"{kind} is no kind of project. Choose one of {', '.join(FIRST_TEXTS)}.")
    name = " ".join(name.split())
    if not 1 <= len(name) <= 80 or not name.isprintable():
        raise invalid("The name of the project is empty or too long. Choose one of 1 to 80 characters.")
    with database.write() as rows:
        if rows.scalar(sa.select(Project.id).where(Project.name == name)) is not None:
            raise invalid(f"There is a project {name} already. Choose another name.")
        project = Project(id=new_id(), name=name, kind=kind, state="open", votes_per_item=votes_per_item, calibration_items=calibration_items,
                          state_reason="", watched_from=0, steering={}, created_at=now_ms())  # fmt: skip
        rows.add(project)
        rows.flush()
        rows.add(Demand(project_id=project.id, needs=""))
        record(rows, "project.created", person_id=by, project_id=project.id, content={"name": name, "kind": kind})
        _publish(rows, project.id, text=FIRST_TEXTS[kind] if text is None else text,
                 rules=rules or Rules(), by=by)  # fmt: skip
    return project


def publish_guideline(database: Database, project_id: str, *, text: str, rules: Rules, by: str | None) -> int:
    """Make the next version; return its number."""
    with database.write() as rows:
        get_project(rows, project_id)
        return _publish(rows, project_id, text=text, rules=rules, by=by)


def _publish(rows: Rows, project_id: str, *, text: str, rules: Rules, by: str | None) -> int:
    check_rules(rules)
    if not text.strip() or len(text) > MAX_GUIDELINE or "\0" in text:
        raise invalid(f"The guideline is empty or too long. Write 1 to {MAX_GUIDELINE:,} characters.")
    latest = rows.scalar(sa.select(sa.func.max(Guideline.version)).where(Guideline.project_id == project_id)) or 0
    version = latest + 1
    rows.add(Guideline(project_id=project_id, version=version, text=text, author_id=by, published_at=now_ms(), **to_columns(rules)))  # fmt: skip
    record(rows, "guideline.published", person_id=by, project_id=project_id, content={"version": version})
    return version


def get_project(rows: Rows, project_id: str) -> Project:
    """A project, or a refusal. To be changed only where rows are written."""
    if rows.info.get(READS):
        found = run(rows, _COLUMNS, {"project": project_id}).one_or_none()
        project = None if found is None else copy_of(Project, found)
    else:
        project = rows.scalar(_PROJECT, {"project": project_id})
    if project is None:
        raise missing("This project")
    return project


def require_kind(project: Project, kinds: Sequence[str]) -> None:
    """Refuse a page that means nothing for this kind of project."""
    if project.kind not in kinds:
        what = "people write replies" if project.kind == "demonstration" else "people talk to a policy"
        raise Refused(404, "missing", f"There is no such page where {what}. Go to the overview of the project.")


def current_guideline(rows: Rows, project_id: str) -> Guideline:
    """The newest version; not to be changed."""
    newest = run(rows, _CURRENT, {"project": project_id}).scalar()
    if newest is None:
        raise missing("The guideline")
    return get_guideline(rows, project_id, newest)


def get_guideline(rows: Rows, project_id: str, version: int) -> Guideline:
    """One version; not to be changed. Kept in memory, for a version never changes."""
    found = _KEPT.get((project_id, version))
    if found is None:
        found = rows.scalar(_VERSION, {"project": project_id, "version": version})
        if found is None:
            raise missing(f"Version {version} of the guideline")
        if rows.info.get(READS):
            rows.expunge(found)
            _KEPT.put((project_id, version), found)
    return found


def set_project_state(database: Database, project_id: str, *, state: str, by: str | None, reason: str = "") -> None:
    """Pause or resume; raters get no new items while paused. Opening what paused by itself asks for a reason, which is kept."""
    if state not in ("open", "paused"):
        raise invalid(f"{state} is no state of a project. Choose open or paused.")
    with database.write() as rows:
        project = get_project(rows, project_id)
        if state == "open" and project.state_reason:
            reason = checked_reason(reason, why="Opening a project that paused by itself")
        event = record(rows, f"project.{state}", person_id=by, project_id=project_id, content={"reason": reason} if reason else {})  # fmt: skip
        if state == "open" and project.state_reason:
            project.watched_from = event.number
        project.state = state
        project.state_reason = ""


def checked_reason(reason: str, *, why: str) -> str:
    """A reason that somebody gave, cleaned.

    Raises:
        Refused: there is none, or it is too long.
    """
    cleaned = reason.strip()
    if not 1 <= len(cleaned) <= MAX_REASON or "\0" in cleaned:
        raise invalid(f"{why} needs a reason of at most {MAX_REASON} characters. Write one.")
    return cleaned


def find_project(database: Database, name: str) -> Project | None:
    """A project by name."""
    with database.read() as rows:
        return rows.scalar(sa.select(Project).where(Project.name == name))
