"""An item as a rater sees it: texts on their sides, the choices that the guideline allows, what was written before.

Nothing here names a completion, a model, a length or the canonical order: the page is made from this alone.
"""

import json
from dataclasses import dataclass

import sqlalchemy as sa
from markupsafe import Markup

from fairlead.core.records import Prompt
from fairlead.store.annotation.database import Rows, run
from fairlead.store.annotation.schema import Assignment, Draft, Flag, Guideline, Verdict, table_of
from fairlead.web.contents import content_of
from fairlead.web.projects import NEWEST, Rules, get_guideline, rules_of
from fairlead.web.rendering import as_written, marked_differences, to_html

ROLES = {"system": "Instructions to the assistant", "user": "Person", "assistant": "Assistant", "tool": "Tool"}

_SPAN = ("start", "end", "label", "note")


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


RANKED = (Option(value="both_bad", key="0", label="All bad", side="middle"),)
"""Beside the places of a ranking."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One reply."""

    name: str
    """Left or Right; of three or more the number that is also its key."""
    text: Markup
    marked: Markup | None
    """As written, with what the other side lacks in <mark>; None where the texts are too long to compare."""
    title: str
    """Left reply, or Reply 3."""
    written: Markup
    """As written, to mark passages in; empty where the guideline does not ask for them."""
    raw: str
    """To be edited; empty where the guideline does not ask for edits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Everything on the screen for one item."""

    assignment_id: str
    turns: tuple[Turn, ...]
    sides: tuple[Side, ...]
    options: tuple[Option, ...]
    rules: Rules
    guideline_version: int
    given: dict[str, str]
    """Fields of the form: a draft, else what was sent before; empty for a new item."""
    flag_note: str


def options_of(guideline: Guideline, *, num: int) -> tuple[Option, ...]:
    """What this version allows for so many replies, from left to right."""
    table = RANKED if num > 2 else GRADED if guideline.scale == "graded" else BINARY
    forbidden = {
        value
        for value, is_there in (("tie", guideline.ties == "allowed"), ("both_bad", guideline.both_bad))
        if not is_there
    }
    return tuple(option for option in table if option.value not in forbidden)


_VERDICT, _DRAFT, _FLAG = table_of(Verdict).c, table_of(Draft).c, table_of(Flag).c
_WRITTEN = (
    sa.select(_VERDICT.event_number, _DRAFT.fields, _FLAG.note, NEWEST).select_from(table_of(Assignment))
    .outerjoin(table_of(Verdict), _VERDICT.assignment_id == table_of(Assignment).c.id)
    .outerjoin(table_of(Draft), _DRAFT.assignment_id == table_of(Assignment).c.id)
    .outerjoin(table_of(Flag), _FLAG.assignment_id == table_of(Assignment).c.id)
    .where(table_of(Assignment).c.id == sa.bindparam("assignment"))
)  # fmt: skip
"""What the rater has written so far, each None where there is nothing; and the newest version of the guideline."""


def show(rows: Rows, assignment: Assignment) -> Shown:
    """Bring an assignment onto the screen."""
    item = content_of(rows, assignment.item_id)
    texts = [item.completions[int(digit)].text for digit in assignment.shown]
    num = len(texts)
    marked = (marked_differences(texts[0], texts[1]) if num == 2 else None) or (None,) * num
    names = side_names(num)
    asked = {"assignment": assignment.id, "project": assignment.project_id}
    number, draft, note, version = run(rows, _WRITTEN, asked).one()
    guideline = get_guideline(rows, assignment.project_id, version)
    verdict = None if number is None else rows.get(Verdict, assignment.id)
    rules = rules_of(guideline)
    return Shown(
        assignment_id=assignment.id, guideline_version=guideline.version, rules=rules,
        turns=turns_of(item.prompt),
        sides=tuple(
            Side(name=names[i][0], title=names[i][1], text=to_html(texts[i]), marked=marked[i],
                 written=as_written(texts[i]) if rules.spans else Markup(), raw=texts[i] if rules.edits else "")
            for i in range(num)
        ),
        options=options_of(guideline, num=num), flag_note=note or "",
        given=draft if draft is not None else fields_before(verdict, assignment) if verdict else {},
    )  # fmt: skip


def side_names(num: int) -> tuple[tuple[str, str], ...]:
    """Name and title of what stands at each place: Left and Left reply, or 3 and Reply 3."""
    if num == 2:
        return (("Left", "Left reply"), ("Right", "Right reply"))
    return tuple((str(place), f"Reply {place}") for place in range(1, num + 1))


def turns_of(prompt: Prompt) -> tuple[Turn, ...]:
    """A conversation for the screen."""
    return tuple(Turn(role=ROLES[turn.role], text=to_html(turn.content)) for turn in prompt.messages)


def given_before(verdict: Verdict, assignment: Assignment) -> str:
    """A stored verdict as the option that it was on this rater's screen; empty for a ranking."""
    if verdict.verdict in ("both_bad", "skip"):
        return verdict.verdict
    if len(assignment.shown) > 2:
        return ""
    if verdict.verdict == "tie":
        return "tie"
    is_left = assignment.shown[0] == str(verdict.ranking[0][0])
    return f"{'left' if is_left else 'right'}{abs(verdict.strength)}"


def places_before(verdict: Verdict, assignment: Assignment) -> list[int | None]:
    """The place that each reply got, from left to right: 1 the best, equal ones the same; None where none was given."""
    found = {position: rank for rank, tied in enumerate(verdict.ranking, start=1) for position in tied}
    return [found.get(int(digit)) for digit in assignment.shown]


def fields_before(verdict: Verdict, assignment: Assignment) -> dict[str, str]:
    """A stored verdict as the fields of the form that gave it."""
    at = {int(digit): place for place, digit in enumerate(assignment.shown)}
    found = {"choice": given_before(verdict, assignment), "rationale": verdict.rationale}
    if len(assignment.shown) > 2:
        found |= {f"rank_{i}": str(place) for i, place in enumerate(places_before(verdict, assignment)) if place}
    for name, ratings in verdict.criteria.items():
        found |= {f"rate_{name}_{at[position]}": str(rating) for position, rating in enumerate(ratings)}
    if verdict.spans:
        spans = [{"place": at[span["completion"]], **{name: span[name] for name in _SPAN}} for span in verdict.spans]
        found["spans"] = json.dumps(spans)
    if verdict.edited is not None:
        found |= {"edit_place": str(at[verdict.edited]), "edit_text": verdict.edited_text}
    return found


def in_words(verdict: Verdict, assignment: Assignment) -> str:
    """A stored verdict as its rater knows it: by what stood where."""
    if verdict.verdict == "skip":
        return "Skipped"
    options = GRADED if len(assignment.shown) == 2 else RANKED
    labels = {option.value: option.label for option in options} | {"left0": "Left", "right0": "Right"}
    at = {int(digit): str(place + 1) for place, digit in enumerate(assignment.shown)}
    order = " > ".join(" = ".join(sorted(at[position] for position in tied)) for tied in verdict.ranking)
    return labels.get(given_before(verdict, assignment), order)
