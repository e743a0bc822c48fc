"""Fairlead's own records, one JSON object a line."""

import re
from collections.abc import Callable
from typing import Any

from fairlead.core.errors import DataError
from fairlead.core.io import Row
from fairlead.core.records import AnyRecord, Demonstration, Label, Preference, Prompt, StepLabels, from_dict, to_dict
from fairlead.formats.base import Format, Item, Read, Unusable, Values, mostly
from fairlead.formats.conversations import check_prompt, checked
from fairlead.formats.nesting import is_too_deep
from fairlead.formats.steps import checked_steps


def _reader(cls: type[AnyRecord], check: Callable[[AnyRecord], object]) -> Read:
    def read(row: Row) -> list[Item]:
        if is_too_deep(row.values):
            raise Unusable("nested too deep")
        try:
            record = from_dict(cls, row.values, where="row")
        except (DataError, TypeError, ValueError) as error:
            raise Unusable(f"not a {cls.__name__}{_faulty_field(error)}") from error
        check(record)
        return [record]

    return read


def _faulty_field(error: Exception) -> str:
    """The field that a message of `from_dict` names, without indices and values, so that equal faults count together."""
    found = re.match(r"row\.([\w.\[\]]+)", str(error))
    if found is None:
        return ""
    field = re.sub(r"\[[0-9]+\]", "[]", found[1])
    return f" ({field})"


def _has_prefix(prefix: str) -> Callable[[Values], bool]:
    def matches(values: Values) -> bool:
        return "schema" in values and str(values.get("id", "")).startswith(f"{prefix}-")

    return matches


def _write(preference: Preference) -> dict[str, Any]:
    return to_dict(preference)


def _check_preference(record: Preference) -> None:
    checked(record)
    if not 0.5 <= record.p_chosen <= 1:
        raise Unusable("p_chosen is not in [0.5, 1]")
    if record.weight < 0:
        raise Unusable("weight is negative")


def _check_demonstration(record: Demonstration) -> None:
    if not any(m.role == "assistant" and m.content.strip() for m in record.messages):
        raise Unusable("no assistant turn")


def _check_label(record: Label) -> None:
    check_prompt(record.prompt)
    if not record.completion.strip():
        raise Unusable("empty completion")
    if record.weight < 0:
        raise Unusable("weight is negative")


def _check_steps(record: StepLabels) -> None:
    checked_steps(record)


FAIRLEAD = Format(
    name="fairlead", kind="preferences", is_own=True, detect=mostly(lambda v: {"prompt", "chosen", "rejected", "schema"} <= set(v)),
    read=_reader(Preference, _check_preference), write=_write,
    doc="Fairlead's own Preference records, with every field.",
)  # fmt: skip
FAIRLEAD_DEMONSTRATIONS = Format(
    name="fairlead_demonstrations", kind="demonstrations", is_own=True, detect=mostly(_has_prefix(Demonstration.prefix)),
    read=_reader(Demonstration, _check_demonstration), doc="Fairlead's own Demonstration records.",
)  # fmt: skip
FAIRLEAD_LABELS = Format(
    name="fairlead_labels", kind="labels", is_own=True, detect=mostly(_has_prefix(Label.prefix)),
    read=_reader(Label, _check_label), doc="Fairlead's own Label records.",
)  # fmt: skip
FAIRLEAD_STEPS = Format(
    name="fairlead_steps", kind="steps", is_own=True, detect=mostly(_has_prefix(StepLabels.prefix)),
    read=_reader(StepLabels, _check_steps), doc="Fairlead's own StepLabels records.",
)  # fmt: skip
FAIRLEAD_PROMPTS = Format(
    name="fairlead_prompts", kind="prompts", is_own=True, detect=mostly(_has_prefix(Prompt.prefix)),
    read=_reader(Prompt, lambda prompt: check_prompt(prompt.messages)), doc="Fairlead's own Prompt records.",
)  # fmt: skip
