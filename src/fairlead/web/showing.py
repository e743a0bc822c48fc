"""An item as a rater sees it: texts on their sides, the choices that the guideline allows, what was written before.

Nothing here names a completion, a model, a length or the canonical order: the page is made from this alone.
"""

from dataclasses import dataclass

from markupsafe import Markup

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Assignment, Draft, Flag, Guideline, Verdict
from fairlead.web.importing import pair_of
from fairlead.web.projects import current_guideline
from fairlead.web.queue import item_of
from fairlead.web.rendering import marked_differences, to_html

ROLES = {"system": "Instructions to the assistant", "user": "Person", "assistant": "Assistant", "tool": "Tool"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One verdict that can be given."""

    value: str
    """Choice and strength as sent: left3, tie, right1, both_bad."""
    key: str
    """On the keyboard."""
    label: str
    side: str
    """left, middle or right of the screen."""


GRADED = (
    Option(value="left3", key="1", label="Left much better", side="left"),
    Option(value="left2", key="2", label="Left better", side="left"),
    Option(value="left1", key="3", label="Left slightly better", side="left"),
    Option(value="tie", key="4", label="Equally good", side="middle"),
    Option(value="right1", key="5", label="Right slightly better", side="right"),
    Option(value="right2", key="6", label="Right better", side="right"),
    Option(value="right3", key="7", label="Right much better", side="right"),
    Option(value="both_bad", key="9", label="Both bad", side="middle"),
)
BINARY = (
    Option(value="left0", key="1", label="Left is better", side="left"),
    Option(value="tie", key="0", label="Equally good", side="middle"),
    Option(value="right0", key="2", label="Right is better", side="right"),
    Option(value="both_bad", key="9", label="Both bad", side="middle"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of the conversation."""

    role: str
    text: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One reply."""

    name: str
    """Left or Right."""
    text: Markup
    marked: Markup | None
    """As written, with what the other side lacks in <mark>; None where the texts are too long to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Everything on the screen for one item."""

    assignment_id: str
    turns: tuple[Turn, ...]
    sides: tuple[Side, Side]
    options: tuple[Option, ...]
    guideline_version: int
    rationale_rule: str
    """off, optional or required."""
    chosen: str
    """Value of the option given before; empty for a new item."""
    rationale: str
    flag_note: str


def options_of(guideline: Guideline) -> tuple[Option, ...]:
    """What this version allows, from left to right."""
    table = GRADED if guideline.scale == "graded" else BINARY
    forbidden = {
        value
        for value, is_there in (("tie", guideline.ties == "allowed"), ("both_bad", guideline.both_bad))
        if not is_there
    }
    return tuple(option for option in table if option.value not in forbidden)


def show(rows: Rows, assignment: Assignment) -> Shown:
    """Bring an assignment onto the screen."""
    pair = pair_of(rows, item_of(rows, assignment))
    guideline = current_guideline(rows, assignment.project_id)
    texts = (pair.b.text, pair.a.text) if assignment.swapped else (pair.a.text, pair.b.text)
    marked = marked_differences(*texts) or (None, None)
    verdict, draft, flag = (
        rows.get(Verdict, assignment.id),
        rows.get(Draft, assignment.id),
        rows.get(Flag, assignment.id),
    )
    return Shown(
        assignment_id=assignment.id, guideline_version=guideline.version, rationale_rule=guideline.rationale,
        turns=tuple(Turn(role=ROLES[turn.role], text=to_html(turn.content)) for turn in pair.prompt.messages),
        sides=(Side(name="Left", text=to_html(texts[0]), marked=marked[0]), Side(name="Right", text=to_html(texts[1]), marked=marked[1])),
        options=options_of(guideline), chosen=given_before(verdict, assignment) if verdict else "",
        rationale=draft.text if draft else verdict.rationale if verdict else "", flag_note=flag.note if flag else "",
    )  # fmt: skip


def given_before(verdict: Verdict, assignment: Assignment) -> str:
    """A stored verdict as the option that it was on this rater's screen."""
    if verdict.verdict not in ("a", "b"):
        return verdict.verdict
    is_left = (verdict.verdict == "a") != assignment.swapped
    return f"{'left' if is_left else 'right'}{abs(verdict.strength)}"
