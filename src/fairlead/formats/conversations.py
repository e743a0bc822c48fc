"""From whole conversations to a prompt and two completions, and the checks that every record must pass.

The prompt is the longest common prefix of whole turns, never of characters: replies that begin alike must not lose their
beginning to the prompt.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from fairlead.core.io import Row
from fairlead.core.records import Demonstration, Message, Messages, Preference, Prompt
from fairlead.formats.base import Item, LeftOut, Read, Unusable, Values
from fairlead.formats.fields import keep, optional_text

IDENTICAL = "chosen and rejected are identical"
EMPTY_PROMPT = "empty prompt"
ENDS_WITH_ASSISTANT = "prompt ends with an assistant turn"
NO_COMMON_PROMPT = "no common prompt"
SEVERAL_TURNS = "completion has more than one turn"
DIFFERENT_CONTEXT = "conversations differ before the last turn"
NO_REPLY = "last turn is not the assistant's"
NO_ASSISTANT = "no assistant turn"


def user(content: str) -> Messages:
    """Plain text as a prompt."""
    return (Message(role="user", content=content),)


def assistant(content: str) -> Message:
    """Plain text as a reply."""
    return Message(role="assistant", content=content)


def with_system(values: Values, turns: Messages) -> Messages:
    """Put the text of a `system` column before turns that have no system turn of their own."""
    system = optional_text(values, "system") or ""
    has_own = bool(turns) and turns[0].role == "system"
    return turns if has_own or not system.strip() else (Message(role="system", content=system), *turns)


def split_conversations(chosen: Messages, rejected: Messages) -> tuple[Messages, str, str]:
    """Split two conversations into the turns that they share and the one reply in which they differ.

    Raises:
        Unusable: the last turn is not the assistant's, or more than the last turn differs. Such a pair compares dialogues,
            not completions of one prompt: training on it as if it did would credit one side with the other's context.
    """
    if not chosen or not rejected or chosen[-1].role != "assistant" or rejected[-1].role != "assistant":
        raise Unusable(NO_REPLY)
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    if shared == 0:
        raise Unusable(NO_COMMON_PROMPT)
    if not len(chosen) == len(rejected) == shared + 1:
        rest = (*chosen[shared:], *rejected[shared:])
        raise Unusable(SEVERAL_TURNS if all(m.role == "assistant" for m in rest) else DIFFERENT_CONTEXT)
    return chosen[:shared], chosen[-1].content, rejected[-1].content


def checked(preference: Preference) -> Preference:
    """Return a preference that can be trained on.

    Raises:
        Unusable: the prompt or a completion is blank, the prompt ends with a reply, or both completions are the same text.
    """
    check_prompt(preference.prompt)
    if not preference.chosen.strip():
        raise Unusable("empty chosen")
    if not preference.rejected.strip():
        raise Unusable("empty rejected")
    if preference.chosen.strip() == preference.rejected.strip():
        raise Unusable(IDENTICAL)
    return preference


def check_prompt(prompt: Messages) -> None:
    """Refuse a prompt that asks for nothing."""
    if not prompt or not prompt[-1].content.strip():
        raise Unusable(EMPTY_PROMPT)
    if prompt[-1].role == "assistant":
        raise Unusable(ENDS_WITH_ASSISTANT)


def prompts_by(prompt_of: Callable[[Values], Messages]) -> Read:
    """A reader of the prompts alone, for formats where they have a field of their own: unusable completions do not matter."""

    def read(row: Row) -> list[Item]:
        prompt = prompt_of(row.values)
        check_prompt(prompt)
        return [Prompt(messages=prompt, meta=keep(row.values, "id", "prompt_id"))]

    return read


BAD_EXAMPLE = LeftOut(reason="label is false", is_fault=False)
"""Of a conversation that a file for KTO marks as an example of what not to do."""


def is_bad_example(values: Values) -> bool:
    """Does a truth value beside a conversation say that it is not to be imitated?"""
    return any(str(values.get(name)).lower() == "false" for name in ("label", "kto_tag"))


def tied(preference: Preference) -> Preference:
    """The same pair as a tie; which side is called chosen then means nothing."""
    return dataclasses.replace(preference, is_tie=True, p_chosen=0.5, id="")


def demonstration(turns: Messages, *, meta: dict[str, Any] | None = None) -> Demonstration:
    """Check a conversation to be imitated; turns after the last reply teach nothing and are cut, counted in `meta`.

    Raises:
        Unusable: there is no assistant turn, or one is blank.
    """
    replies = [i for i, turn in enumerate(turns) if turn.role == "assistant"]
    if not replies:
        raise Unusable(NO_ASSISTANT)
    if any(not turns[i].content.strip() for i in replies):
        raise Unusable("empty completion")
    num_cut = len(turns) - replies[-1] - 1
    notes = dict(meta or {})
    if num_cut:
        notes["turns_cut"] = num_cut
    return Demonstration(messages=turns[: replies[-1] + 1], meta=notes)
