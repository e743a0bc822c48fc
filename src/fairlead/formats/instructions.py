"""Instruction data: Alpaca and ShareGPT, as demonstrations and as the pairs that LLaMA-Factory reads."""

from fairlead.core.io import Row
from fairlead.core.records import Message, Messages, Preference
from fairlead.formats.base import Format, Item, Unusable, Values, mostly
from fairlead.formats.conversations import (
    BAD_EXAMPLE,
    assistant,
    checked,
    demonstration,
    is_bad_example,
    prompts_by,
    user,
    with_system,
)
from fairlead.formats.fields import has_text, has_turns, items, keep, messages, optional_text, text, valid_text
from fairlead.formats.trl import completion_of, optional_number, score_fields, sides_stand_alone
from fairlead.formats.ultrafeedback import scored


def _read_alpaca(row: Row) -> list[Item]:
    return [demonstration((*_question(row.values), assistant(text(row.values, "output"))), meta=keep(row.values, "id"))]


def _question(values: Values) -> Messages:
    instruction, extra = text(values, "instruction"), optional_text(values, "input") or ""
    question = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return with_system(values, (*_history(values), *user(question)))


def _history(values: Values) -> Messages:
    """Earlier turns as [[instruction, reply], ...], a common extension."""
    turns: list[Message] = []
    earlier = values.get("history") or []
    if not isinstance(earlier, (list, tuple)):
        raise Unusable("history is not a list of pairs")
    for pair in earlier:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Unusable("history is not a list of pairs")
        question, reply = (valid_text(part, "history") for part in pair)
        turns += [*user(question), assistant(reply)]
    return tuple(turns)


def _read_sharegpt(row: Row) -> list[Item]:
    if is_bad_example(row.values):
        return [BAD_EXAMPLE]
    turns = messages(items(row.values, "conversations"), "conversations")
    return [demonstration(with_system(row.values, turns), meta=keep(row.values, "id"))]


def _is_sharegpt(values: Values) -> bool:
    return has_turns(values.get("conversations")) and not {"chosen", "rejected"} <= set(values)


def _read_alpaca_preferences(row: Row) -> list[Item]:
    return [_compared(row.values, _instruction(row.values))]


def _instruction(values: Values) -> Messages:
    """The prompt of a pair: `instruction` and `input`, or else the first of `question`, `query`, `input`."""
    name = next((name for name in ("instruction", "question", "query", "input") if values.get(name)), "instruction")
    question = text(values, name)
    return _question(
        {**values, "instruction": question, "input": values.get("input") if name == "instruction" else None}
    )


def _read_sharegpt_preferences(row: Row) -> list[Item]:
    return [_compared(row.values, _conversation(row.values))]


def _conversation(values: Values) -> Messages:
    name = "conversations" if values.get("conversations") else "messages"
    return with_system(values, messages(items(values, name), name))


def _compared(values: Values, prompt: Messages) -> Preference:
    chosen, rejected = (completion_of(values, name, prompt=()) for name in ("chosen", "rejected"))
    names, margin = score_fields(values), optional_number(values, "margin", 0.0)
    meta = keep(values, "id", *(names or ()))
    pair = Preference(prompt=prompt, chosen=chosen, rejected=rejected, margin=margin, meta=meta)
    return scored(pair, values, *names) if names else checked(pair)


def _is_alpaca_preferences(values: Values) -> bool:
    has_question = any(isinstance(values.get(name), str) for name in ("instruction", "question", "query", "input"))
    return sides_stand_alone(values) and has_question and not {"conversations", "messages"} & set(values)


def _is_sharegpt_preferences(values: Values) -> bool:
    return sides_stand_alone(values) and any(has_turns(values.get(name)) for name in ("conversations", "messages"))


ALPACA = Format(
    name="alpaca", kind="demonstrations", detect=mostly(lambda v: has_text(v, "instruction", "output")), read=_read_alpaca,
    also={"prompts": prompts_by(_question)},
    doc="Alpaca: `instruction`, `input` (joined by a blank line when there is one), `output`; optional `system` and `history`.",
)  # fmt: skip
SHAREGPT = Format(
    name="sharegpt", kind="demonstrations", detect=mostly(_is_sharegpt), read=_read_sharegpt,
    doc="ShareGPT: `conversations` of {from, value} or {role, content}; human, gpt, system and tool turns.",
)  # fmt: skip
ALPACA_PREFERENCES = Format(
    name="alpaca_preferences", kind="preferences", detect=mostly(_is_alpaca_preferences), read=_read_alpaca_preferences,
    also={"prompts": prompts_by(_instruction)},
    doc="Pairs of LLaMA-Factory and Orca: `instruction` with `input`, or `question`; `chosen`, `rejected`; optional `system`, `history`, scores.",
)  # fmt: skip
SHAREGPT_PREFERENCES = Format(
    name="sharegpt_preferences", kind="preferences", detect=mostly(_is_sharegpt_preferences), read=_read_sharegpt_preferences,
    also={"prompts": prompts_by(_conversation)},
    doc="Pairs of LLaMA-Factory: `conversations` that end with a question, `chosen` and `rejected` one turn each.",
)  # fmt: skip
