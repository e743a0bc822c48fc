"""A cell of somebody's file to the messages of a prompt, or the reason why it is none.

Example:
    to_messages("Hi")                                            # (Message(role="user", content="Hi"),)
    to_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])   # the reply is left off
    to_messages("  ")                                            # "empty"
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

from fairlead.core.errors import DataError
from fairlead.core.io import parse_json
from fairlead.core.records import Message, Messages, Role
from fairlead.prompts.words import normalise

EMPTY = "empty"
NOT_TEXT = "not text or messages"
NO_USER_TURN = "no user turn"
_ROLES = typing.get_args(Role)


def to_messages(value: Any) -> Messages | str:
    """Messages up to and without the closing assistant turns, or the reason for rejection."""
    if value is None:
        return EMPTY
    turns = _turns(value)
    if turns is None:
        return NOT_TEXT
    while turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    if not any(turn.role == "user" for turn in turns):
        return NO_USER_TURN
    return turns if normalise(turns[-1].content) else EMPTY


def _turns(value: Any) -> Messages | None:
    if isinstance(value, str):
        parsed = _parsed(value)
        return (Message(role="user", content=value),) if parsed is None else _turns(parsed)
    if not isinstance(value, list):
        return None
    turns: list[Message] = []
    for turn in value:
        if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            return None
        turns.append(Message(role=turn["role"], content=turn["content"]))
    return tuple(turns)


def _parsed(text: str) -> list[Any] | None:
    """Messages written as JSON inside a CSV cell; None for ordinary text."""
    if not re.match(r'\s*\[\s*\{\s*"(role|content)"\s*:', text):
        return None
    try:
        value = parse_json(text, "cell")
    except DataError:
        return None
    return value if isinstance(value, list) else None


def cut_words(messages: Messages, *, num_words: int) -> Messages:
    """Keep the first words of the last turn, with the spaces between them as written."""
    last = messages[-1]
    match = re.match(rf"\s*\S+(?:\s+\S+){{0,{num_words - 1}}}", last.content)
    assert match is not None, f"an empty turn came through: {last.content!r}"
    return (*messages[:-1], dataclasses.replace(last, content=match.group().lstrip()))
