"""Instruction data: Alpaca and ShareGPT."""

from fairlead.core.io import Row
from fairlead.core.records import Message, Messages
from fairlead.formats.base import Format, Item, Unusable, Values, mostly
from fairlead.formats.conversations import assistant, demonstration, prompts_by, user
from fairlead.formats.fields import has_text, items, keep, optional_text, role, text, valid_text


def _read_alpaca(row: Row) -> list[Item]:
    return [demonstration((*_question(row.values), assistant(text(row.values, "output"))), meta=keep(row.values, "id"))]


def _question(values: Values) -> Messages:
    instruction, extra = text(values, "instruction"), optional_text(values, "input") or ""
    question = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    return (*_system(values), *_history(values), *user(question))


def _system(values: Values) -> Messages:
    system = optional_text(values, "system") or ""
    return (Message(role="system", content=system),) if system.strip() else ()


def _history(values: Values) -> Messages:
    """Earlier turns as [[instruction, reply], ...], a common extension."""
    turns: list[Message] = []
    for pair in values.get("history") or []:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Unusable("history is not a list of pairs")
        question, reply = (valid_text(part, "history") for part in pair)
        turns += [*user(question), assistant(reply)]
    return tuple(turns)


def _read_sharegpt(row: Row) -> list[Item]:
    turns = [_turn(value) for value in items(row.values, "conversations")]
    return [demonstration((*_system(row.values), *turns), meta=keep(row.values, "id"))]


def _turn(value: object) -> Message:
    if not isinstance(value, dict) or "from" not in value or "value" not in value:
        raise Unusable("conversations has a turn without from and value")
    return Message(role=role(value["from"], "conversations"), content=valid_text(value["value"], "conversations value"))


def _is_sharegpt(values: Values) -> bool:
    turns = values.get("conversations")
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and {"from", "value"} <= set(turns[0])


ALPACA = Format(
    name="alpaca", kind="demonstrations", detect=mostly(lambda v: has_text(v, "instruction", "output")), read=_read_alpaca,
    also={"prompts": prompts_by(_question)},
    doc="Alpaca: `instruction`, `input` (joined by a blank line when there is one), `output`; optional `system` and `history`.",
)  # fmt: skip
SHAREGPT = Format(
    name="sharegpt", kind="demonstrations", detect=mostly(_is_sharegpt), read=_read_sharegpt,
    doc="ShareGPT: `conversations` of {from, value}; human, gpt, system and tool turns.",
)  # fmt: skip
