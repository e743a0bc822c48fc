"""TRL's language modelling, prompt-completion and prompt-only types."""

from fairlead.core.io import Row
from fairlead.formats.base import Format, Item, mostly
from fairlead.formats.conversations import (
    BAD_EXAMPLE,
    assistant,
    check_prompt,
    demonstration,
    is_bad_example,
    prompts_by,
    with_system,
)
from fairlead.formats.fields import is_messages, keep, messages, text
from fairlead.formats.trl import completion_of, prompt_of


def _read_prompt_completion(row: Row) -> list[Item]:
    prompt = prompt_of(row.values)
    check_prompt(prompt)
    reply = completion_of(row.values, "completion", prompt=prompt)
    return [demonstration((*prompt, assistant(reply)), meta=keep(row.values, "id"))]


def _read_text(row: Row) -> list[Item]:
    return [demonstration((assistant(text(row.values, "text")),), meta=keep(row.values, "id", "label"))]


def _read_messages(row: Row) -> list[Item]:
    if is_bad_example(row.values):
        return [BAD_EXAMPLE]
    turns = with_system(row.values, messages(row.values.get("messages"), "messages"))
    return [demonstration(turns, meta=keep(row.values, "id"))]


TRL_PROMPT_COMPLETION = Format(
    name="trl_prompt_completion", kind="demonstrations",
    detect=mostly(lambda v: {"prompt", "completion"} <= set(v) and not {"label", "schema"} & set(v)),
    read=_read_prompt_completion, also={"prompts": prompts_by(prompt_of)},
    doc="TRL prompt-completion: `prompt` and `completion`, each text or messages.",
)  # fmt: skip
TRL_TEXT = Format(
    name="trl_text", kind="demonstrations",
    detect=mostly(lambda v: isinstance(v.get("text"), str) and not {"prompt", "instruction", "messages", "item", "message_id"} & set(v)),
    read=_read_text, doc="TRL language modelling: `text`, read as one assistant message without a prompt.",
)  # fmt: skip
TRL_MESSAGES = Format(
    name="trl_messages", kind="demonstrations",
    detect=mostly(lambda v: is_messages(v.get("messages")) and not {"schema", "chosen", "prompt"} & set(v)), read=_read_messages,
    doc="TRL conversational: `messages` of {role, content}. Turns after the last reply are cut.",
)  # fmt: skip
TRL_PROMPT = Format(
    name="trl_prompt", kind="prompts",
    detect=mostly(lambda v: (isinstance(v.get("prompt"), str) or is_messages(v.get("prompt"))) and set(v) <= _PROMPT_ONLY),
    read=prompts_by(prompt_of), doc="TRL prompt-only: `prompt` as text or messages, with nothing else but an id, a source or a category.",
)  # fmt: skip
_PROMPT_ONLY = {"prompt", "system", "id", "prompt_id", "source", "category", "slice", "split"}
