"""The preference types of TRL: explicit prompt, implicit prompt, and unpaired.

TRL takes the longest common prefix of characters of two implicit strings for the prompt, which moves the first words that the
replies share into it ("It is blue" / "It is green"). Here messages are cut between turns and strings at the end of a line or
a word; `meta` says where.
"""

import re
from collections.abc import Hashable, Sequence
from typing import Any

from fairlead.core.io import Row
from fairlead.core.records import Label, Message, Messages, Preference
from fairlead.formats.base import Format, Item, LeftOut, Neighbours, Unusable, Values, mostly
from fairlead.formats.conversations import (
    IDENTICAL,
    NO_COMMON_PROMPT,
    NO_REPLY,
    SEVERAL_TURNS,
    assistant,
    check_prompt,
    checked,
    demonstration,
    prompts_by,
    split_conversations,
    user,
    with_system,
)
from fairlead.formats.fields import is_messages, keep, messages, number, text, truth
from fairlead.formats.transcripts import is_transcript, parse_transcript

_LINE_END = re.compile(r"\n+(?:[A-Z]\w*(?: \w+)?:)?")  # with the name of a speaker, for it belongs to the prompt
_WORD_END = re.compile(r"\s+")
_SCORES = (
    ("score_chosen", "score_rejected"), ("chosen_rating", "rejected_rating"), ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"), ("rating_chosen", "rating_rejected"),
)  # fmt: skip
ASKING = frozenset(
    (
        "prompt",
        "instruction",
        "question",
        "query",
        "input",
        "context",
        "conversation",
        "conversations",
        "messages",
        "history",
        "post",
    )
)
"""Columns that may hold the prompt: beside one of these, text sides are completions and hold no prompt of their own."""
NO_LABEL = "label is not true or false"


def prompt_of(values: Values) -> Messages:
    """Read `prompt`, after the text of a `system` column if there is one."""
    return with_system(values, _asked(values))


def _asked(values: Values) -> Messages:
    """Read `prompt`: messages, a transcript that ends with an open assistant turn, or plain text."""
    value = values.get("prompt")
    if isinstance(value, (list, tuple)):
        return messages(value, "prompt")
    plain = text(values, "prompt")
    if is_transcript(plain) and (turns := parse_transcript(plain))[-1] == assistant("") and len(turns) > 1:
        return turns[:-1]
    return user(plain)


def completion_of(values: Values, name: str, *, prompt: Messages) -> str:
    """Read a completion: text, one assistant message, or the whole conversation with the prompt repeated."""
    value = values.get(name)
    if not isinstance(value, (list, tuple, dict)):
        return text(values, name)
    turns = messages([value] if isinstance(value, dict) else value, name)
    if turns[: len(prompt)] == prompt:
        turns = turns[len(prompt) :]
    if len(turns) != 1:
        raise Unusable(SEVERAL_TURNS if turns else f"empty {name}")
    (turn,) = turns
    if turn.role != "assistant":
        raise Unusable(NO_REPLY)
    return turn.content


def sides_of(values: Values) -> tuple[Messages, str, str]:
    """Prompt, chosen and rejected of a row whose sides are completions or whole conversations.

    Of conversations the prompt is what both share, and the field `prompt` must be said in it (data sets put only one turn of a
    longer conversation there).
    """
    if all(is_transcript(values.get(name)) for name in ("prompt", "chosen", "rejected")):
        chosen, rejected = parse_transcript(values["chosen"]), parse_transcript(values["rejected"])
    elif all(_is_conversation(values.get(side)) for side in ("chosen", "rejected")):
        chosen, rejected = messages(values["chosen"], "chosen"), messages(values["rejected"], "rejected")
    else:
        asked, prompt = _asked(values), prompt_of(values)
        return prompt, completion_of(values, "chosen", prompt=asked), completion_of(values, "rejected", prompt=asked)
    if chosen == rejected:
        raise Unusable(IDENTICAL)
    shared, better, worse = split_conversations(chosen, rejected)
    if values.get("prompt") is not None:
        said = {turn.content.strip() for turn in shared}
        if not all(turn.content.strip() in said for turn in _asked(values)):
            raise Unusable("prompt is not in the conversations")
    return with_system(values, shared), better, worse


def _is_conversation(value: Any) -> bool:
    return is_messages(value) and len(value) > 1


def _read_explicit(row: Row) -> list[Item]:
    values = row.values
    prompt, chosen, rejected = sides_of(values)
    margin, p_chosen = optional_number(values, "margin", 0.0), optional_number(values, "p_chosen", 1.0)
    if not 0.5 <= p_chosen <= 1:
        raise Unusable("p_chosen is not in [0.5, 1]")
    preference = Preference(
        prompt=prompt, chosen=chosen, rejected=rejected, p_chosen=p_chosen, margin=margin, is_tie=p_chosen == 0.5, meta=keep(values, "id"),
    )  # fmt: skip
    return [checked(preference)]


def optional_number(values: Values, name: str, default: float) -> float:
    """Return a number, or the default when it is missing, null, or an empty cell."""
    if values.get(name) is None or values[name] == "":
        return default
    value = number(values[name])
    if value is None:
        raise Unusable(f"{name} is not a number")
    return value


def _write_explicit(preference: Preference) -> dict[str, Any]:
    if preference.is_tie or preference.p_chosen == 0.5:
        raise Unusable("TRL has no ties")
    return {
        "prompt": [to_message(m) for m in preference.prompt],
        "chosen": [to_message(assistant(preference.chosen))],
        "rejected": [to_message(assistant(preference.rejected))],
        "margin": preference.margin,
        "p_chosen": preference.p_chosen,
    }


def to_message(message: Message) -> dict[str, str]:
    """One message as plain data."""
    return {"role": message.role, "content": message.content}


def _read_implicit(row: Row) -> list[Item]:
    values = row.values
    if isinstance(values.get("chosen"), str):
        return [checked(split_text(text(values, "chosen"), text(values, "rejected")))]
    chosen, rejected = messages(values.get("chosen"), "chosen"), messages(values.get("rejected"), "rejected")
    if chosen == rejected:
        raise Unusable(IDENTICAL)
    prompt, better, worse = split_conversations(chosen, rejected)
    prompt = with_system(values, prompt)
    return [checked(Preference(prompt=prompt, chosen=better, rejected=worse, meta=keep(values, "id")))]


def split_text(chosen: str, rejected: str) -> Preference:
    """Split two texts at the last end of a line that they share, or else of a word; nothing of either text is lost.

    Raises:
        Unusable: they share no whole line or word, or nothing would be left of one of them.
    """
    if chosen == rejected:
        raise Unusable(IDENTICAL)
    num_shared = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    shared = chosen[:num_shared]
    lines = [(m.end(), "line") for m in _LINE_END.finditer(shared)]
    words = [(m.start(), "word") for m in _WORD_END.finditer(shared)]
    for cut, unit in [*reversed(lines), *reversed(words)]:
        if shared[:cut].strip() and chosen[cut:].strip() and rejected[cut:].strip():
            meta = {"prompt_cut": unit, "prompt_chars": cut}
            return Preference(prompt=user(chosen[:cut]), chosen=chosen[cut:], rejected=rejected[cut:], meta=meta)
    raise Unusable(NO_COMMON_PROMPT)


def _read_unpaired(row: Row) -> list[Item]:
    """Demonstrations: completions with label true; the others are skipped and counted."""
    label = label_of(row)
    prompt = prompt_of(row.values)
    completion = completion_of(row.values, "completion", prompt=prompt)
    if not label:
        return [LeftOut(reason="label is false", is_fault=False)]
    return [demonstration((*prompt, assistant(completion)), meta=keep(row.values, "id"))]


def _read_labels(row: Row) -> list[Item]:
    """Every completion, good or bad."""
    is_good, prompt = label_of(row), prompt_of(row.values)
    check_prompt(prompt)
    completion = completion_of(row.values, "completion", prompt=prompt)
    if not completion.strip():
        raise Unusable("empty completion")
    return [Label(prompt=prompt, completion=completion, is_good=is_good, meta=keep(row.values, "id"))]


def label_of(row: Row) -> bool:
    """Read `label`, also as 0/1 or as the text of a CSV file."""
    label = truth(row.values.get("label"))
    if label is None:
        raise Unusable(NO_LABEL)
    return label


def _read_unpaired_group(rows: Sequence[Row]) -> list[Item]:
    """Preferences: the n-th true with the n-th false of the rows that follow each other with one prompt."""
    found: list[Item] = []
    sides: dict[bool, list[tuple[Row, Messages, str]]] = {True: [], False: []}
    for row in rows:
        try:
            prompt = prompt_of(row.values)
            sides[label_of(row)].append((row, prompt, completion_of(row.values, "completion", prompt=prompt)))
        except Unusable as fault:
            found.append(LeftOut(reason=str(fault), row=row))
    num_pairs = min(map(len, sides.values()))
    for (good, prompt, chosen), (bad, _, rejected) in zip(
        sides[True][:num_pairs], sides[False][:num_pairs], strict=True
    ):
        try:
            found.append(checked(Preference(prompt=prompt, chosen=chosen, rejected=rejected)))
        except Unusable as fault:
            found += [LeftOut(reason=str(fault), row=row) for row in (good, bad)]
    for row, _, _ in sides[True][num_pairs:] + sides[False][num_pairs:]:
        found.append(LeftOut(reason="no completion with the other label beside it", is_fault=False, row=row))
    return found


def prompt_key(row: Row) -> Hashable:
    """Equal for rows with one prompt; a row without a usable prompt stands alone."""
    try:
        return prompt_of(row.values)
    except Unusable:
        return row.number


def score_fields(values: Values) -> tuple[str, str] | None:
    """The fields that score the two sides, if there are any; pairs with scores are read as ultrafeedback_binarized."""
    return next((names for names in _SCORES if set(names) <= set(values)), None)


def _is_explicit(values: Values) -> bool:
    return {"prompt", "chosen", "rejected"} <= set(values) and "schema" not in values and score_fields(values) is None


def sides_stand_alone(values: Values) -> bool:
    """Are both sides bare completions whose prompt stands in another column than `prompt`?"""
    sides = [values.get("chosen"), values.get("rejected")]
    are_bare = all(not isinstance(side, list) or len(side) == 1 for side in sides) and not all(
        map(is_transcript, sides)
    )
    return {"chosen", "rejected"} <= set(values) and "prompt" not in values and are_bare and bool(ASKING & set(values))


def _is_implicit(values: Values) -> bool:
    if "prompt" in values or not {"chosen", "rejected"} <= set(values) or score_fields(values) is not None:
        return False
    chosen, rejected = values["chosen"], values["rejected"]
    is_hh = is_transcript(chosen) and is_transcript(rejected)
    return isinstance(chosen, (str, list)) and not is_hh and not sides_stand_alone(values)


TRL = Format(
    name="trl", kind="preferences", detect=mostly(_is_explicit), read=_read_explicit,
    write=_write_explicit, also={"prompts": prompts_by(prompt_of)},
    doc="TRL explicit: `prompt`, `chosen`, `rejected`, each text or messages; optional `margin`. A prompt that `chosen` repeats is removed.",
)  # fmt: skip
TRL_IMPLICIT = Format(
    name="trl_implicit", kind="preferences", detect=mostly(_is_implicit), read=_read_implicit,
    doc="TRL implicit: `chosen` and `rejected` hold the prompt too; it is cut between turns, or for text at the end of a line or word.",
)  # fmt: skip
TRL_UNPAIRED = Format(
    name="trl_unpaired", kind="demonstrations", also={"labels": _read_labels, "prompts": prompts_by(prompt_of)},
    detect=mostly(lambda v: {"prompt", "completion", "label"} <= set(v)), read=_read_unpaired,
    neighbours=Neighbours(kind="preferences", key=prompt_key, read=_read_unpaired_group),
    doc="TRL unpaired: `prompt`, `completion`, `label`: good or bad. True labels are demonstrations; neighbours with one prompt and both are pairs.",
)  # fmt: skip
