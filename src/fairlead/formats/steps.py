"""Replies whose steps are each labelled right or wrong: data of process-reward models.

A label is 1 for right and 0 for wrong, or a probability. Steps at the start of a reply that carry no label of their own (the common
beginning of alternatives) are `num_given`.
"""

import re
from collections.abc import Sequence
from typing import Any

from fairlead.core.io import Row
from fairlead.core.records import StepLabels
from fairlead.formats.base import Format, Item, LeftOut, Unusable, Values, mostly
from fairlead.formats.conversations import check_prompt, prompts_by, user
from fairlead.formats.fields import items, keep, number, text, truth, valid_text, whole
from fairlead.formats.trl import prompt_of

_MARK = "\u043a\u0438"
"""What Math-Shepherd writes at the end of a step."""
_FIRST_STEP = re.compile(r"\s*(?=\bStep 1:)")
_RATINGS = {1: 1.0, 0: 1.0, -1: 0.0}
"""PRM800K: right, neutral, wrong; neutral counts as right, as in Lightman et al. 2023, arXiv:2305.20050, appendix."""
NO_LABEL = "a label is no truth value and no probability"


def checked_steps(record: StepLabels) -> StepLabels:
    """Return labelled steps that can be trained on.

    Raises:
        Unusable: the prompt or a step is blank, labels and steps do not match, or a label is no probability.
    """
    check_prompt(record.prompt)
    if not all(step.strip() for step in record.steps):
        raise Unusable("empty step")
    if record.num_given < 0 or len(record.labels) != len(record.steps) - record.num_given or not record.labels:
        raise Unusable("labels and steps differ in number")
    if not all(0 <= label <= 1 for label in record.labels):
        raise Unusable(NO_LABEL)
    return record


def _label(value: Any) -> float:
    found = number(value)
    is_right = truth(value)
    if is_right is not None:
        return float(is_right)
    if found is None or not 0 <= found <= 1:
        raise Unusable(NO_LABEL)
    return found


def _read_trl(row: Row) -> list[Item]:
    values = row.values
    steps = tuple(valid_text(step, "a step") for step in items(values, "completions"))
    labels = tuple(_label(label) for label in items(values, "labels"))
    return [checked_steps(StepLabels(prompt=prompt_of(values), steps=steps, labels=labels, meta=keep(values, "id")))]


def _read_prm800k(row: Row) -> list[Item]:
    """The path that was followed, and each alternative to one of its steps with the steps before as given."""
    prompt = user(text(_mapping(row.values, "question"), "problem"))
    path: list[str] = []
    labels: list[float] = []
    found: list[Item] = []
    for step in items(_mapping(row.values, "label"), "steps"):
        if not isinstance(step, dict):
            raise Unusable("a step is no object")
        given, chosen = step.get("completions") or (), whole(step.get("chosen_completion"))
        if not isinstance(given, (list, tuple)):
            raise Unusable("completions is not a list")
        for i, option in enumerate(given):
            label = _rating(option)
            if i != chosen and label is not None:
                found.append(_labelled(prompt, (*path, _step_text(option)), (label,), num_given=len(path)))
        following, label = _followed(step, given, chosen)
        if following is None:
            break
        if label is None:
            found.append(LeftOut(reason="step: chosen without a rating", is_fault=False))
            break
        path.append(following)
        labels.append(label)
    whole_path = [_labelled(prompt, tuple(path), tuple(labels), num_given=0)] if path else []
    if not whole_path and not found:
        raise Unusable("no rated step")
    return [*whole_path, *found]


def _followed(step: Values, given: Sequence[Any], chosen: int | None) -> tuple[str | None, float | None]:
    """The step that the solution went on with and its label; people's own corrections are right."""
    if chosen is not None:
        if not 0 <= chosen < len(given):
            raise Unusable("chosen_completion names no completion")
        return _step_text(given[chosen]), _rating(given[chosen])
    human = step.get("human_completion")
    return (_step_text(human), 1.0) if human is not None else (None, None)


def _step_text(option: Any) -> str:
    return text(option, "text") if isinstance(option, dict) else valid_text(option, "a step")


def _rating(option: Any) -> float | None:
    if not isinstance(option, dict):
        raise Unusable("a completion of a step is no object")
    return _RATINGS.get(found) if (found := whole(option.get("rating"))) is not None else None


def _labelled(prompt: Any, steps: tuple[str, ...], labels: tuple[float, ...], *, num_given: int) -> StepLabels:
    return checked_steps(StepLabels(prompt=prompt, steps=steps, labels=labels, num_given=num_given))


def _mapping(values: Values, name: str) -> Values:
    found = values.get(name)
    if not isinstance(found, dict):
        raise Unusable(f"{name} is no object")
    return found


def _read_shepherd(row: Row) -> list[Item]:
    asked, labelled = text(row.values, "input"), text(row.values, "label")
    parts = [part.strip() for part in asked.split(_MARK)]
    if len(parts) < 2 or parts[-1]:
        raise Unusable("input does not end with the mark of a step")
    question, first = _cut_question(parts[0])
    steps = (first, *parts[1:-1])
    signs = _signs(labelled, (parts[0], *parts[1:-1]))
    meta = keep(row.values, "task")
    return [checked_steps(StepLabels(prompt=user(question), steps=steps, labels=signs, meta=meta))]


def _cut_question(start: str) -> tuple[str, str]:
    """The question, and the first step."""
    found = _FIRST_STEP.search(start)
    if found is None or not start[: found.start()].strip():
        raise Unusable("no question before Step 1")
    return start[: found.start()].strip(), start[found.end() :].strip()


def _signs(labelled: str, parts: Sequence[str]) -> tuple[float, ...]:
    """+ or - after each part, in a text that is otherwise the same."""
    place, found = 0, list[float]()
    for part in parts:
        start = labelled.find(part, place)
        place = start + len(part)
        sign = labelled[place:].lstrip()[:1]
        if start < 0 or sign not in ("+", "-"):
            raise Unusable("label does not follow input")
        found.append(float(sign == "+"))
        place = labelled.index(sign, place) + 1
    return tuple(found)


def _prm800k_prompt(values: Values) -> Any:
    return user(text(_mapping(values, "question"), "problem"))


def _shepherd_prompt(values: Values) -> Any:
    return user(_cut_question(text(values, "input").split(_MARK)[0])[0])


def _is_prm800k(values: Values) -> bool:
    question, label = values.get("question"), values.get("label")
    return isinstance(question, dict) and isinstance(label, dict) and "steps" in label


TRL_STEPWISE = Format(
    name="trl_stepwise", kind="steps", also={"prompts": prompts_by(prompt_of)}, read=_read_trl,
    detect=mostly(lambda v: {"prompt", "completions", "labels"} <= set(v)),
    doc="TRL stepwise supervision: `prompt`, `completions` (the steps), `labels`: right or wrong, or a probability.",
)  # fmt: skip
PRM800K = Format(
    name="prm800k", kind="steps", also={"prompts": prompts_by(_prm800k_prompt)}, detect=mostly(_is_prm800k), read=_read_prm800k,
    doc="PRM800K: `question.problem`, `label.steps`. The path taken is one record, each rated alternative another; neutral counts as right.",
)  # fmt: skip
MATH_SHEPHERD = Format(
    name="math_shepherd", kind="steps", also={"prompts": prompts_by(_shepherd_prompt)},
    detect=mostly(lambda v: {"input", "label"} <= set(v) and isinstance(v["input"], str) and _MARK in v["input"]), read=_read_shepherd,
    doc="Math-Shepherd: `input` with a mark after each step, `label` with + or - in its place; what stands before `Step 1:` is the question.",
)  # fmt: skip
