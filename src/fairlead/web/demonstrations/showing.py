"""A task as its rater sees it. Nothing here names the person who wrote a reply or the model that wrote a draft."""

from dataclasses import dataclass

from markupsafe import Markup

from fairlead.core.records import Prompt as PromptRecord
from fairlead.core.records import from_dict
from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Prompt
from fairlead.store.annotation.written import Demonstration, Writing, WritingTask
from fairlead.web.demonstrations.actions import draft_of
from fairlead.web.demonstrations.desk import is_due
from fairlead.web.demonstrations.drafts import ask_of
from fairlead.web.projects import current_guideline
from fairlead.web.rendering import to_html
from fairlead.web.showing import Turn, turns_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Everything on the screen for one task."""

    task_id: str
    part: str
    """write, or review."""
    turns: tuple[Turn, ...]
    guideline_version: int
    text: str
    """In the field: what was being written, what came back, or the reply to be reviewed."""
    reply: Markup
    """The reply to be reviewed, rendered; empty for writing."""
    draft: str
    """As a model wrote it; empty where there is none, and for a review."""
    draft_html: Markup
    asked: str
    """Of a draft that somebody asked the served policy for: waiting, ready or failed; empty where nobody did."""
    failure: str
    """Why there is none."""
    took_draft: bool
    reason: str
    """Why it was sent back, for its author."""
    is_due: bool
    """False when it was done meanwhile."""


def show(rows: Rows, task: WritingTask, found: Demonstration) -> Shown:
    """Bring a task onto the screen."""
    draft = draft_of(rows, task.writing_id)[1] if task.part == "write" else ""
    asked, failure = ask_of(rows, task.writing_id) if task.part == "write" else ("", "")
    is_own = found.author_id == task.person_id
    before = found.text if task.part == "review" or (is_own and found.state == "returned") else ""
    return Shown(
        task_id=task.id, part=task.part, turns=turns_of(prompt_of(rows, task.writing_id)), text=before if task.text is None else task.text,
        guideline_version=current_guideline(rows, task.project_id).version, reply=to_html(found.text) if task.part == "review" else Markup(""),
        draft=draft, draft_html=to_html(draft), took_draft=task.took_draft, reason=found.reason if is_own and found.state == "returned" else "",
        asked=asked, failure=failure, is_due=task.state == "open" and is_due(task, found),
    )  # fmt: skip


def prompt_of(rows: Rows, writing_id: str) -> PromptRecord:
    """The conversation of a writing."""
    writing = rows.get(Writing, writing_id)
    assert writing is not None, f"writing {writing_id} is not there"
    prompt = rows.get(Prompt, (writing.project_id, writing.prompt_id))
    assert prompt is not None, f"writing {writing_id} lacks its prompt"
    return from_dict(PromptRecord, prompt.record)
