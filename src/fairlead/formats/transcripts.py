"""Transcripts with `Human:` and `Assistant:` turns: Anthropic HH and Nectar.

HH marks turns by a blank line and a name. Real files hold two turns of one speaker in a row, empty last replies, and
conversations that differ before the last turn (5 pairs of 2,312 in harmless-base/test), so nothing is assumed about order.
Whitespace around a turn is not part of it.
"""

import re
from typing import Any

from fairlead.core.io import Row
from fairlead.core.records import Message, Messages, Preference
from fairlead.formats.base import Format, Item, LeftOut, Pairing, Unusable, Values, mostly
from fairlead.formats.conversations import IDENTICAL, assistant, checked, prompts_by, split_conversations
from fairlead.formats.fields import has_text, items, keep, mapping, number, text
from fairlead.formats.ranking import Candidate, ranked_preferences

_TURN = re.compile(r"(?:\A\s*|\r?\n\r?\n)(Human|Assistant):")
_NAMES = {"user": "Human", "assistant": "Assistant"}


def is_transcript(value: Any) -> bool:
    """Does a text begin with a named turn?"""
    return isinstance(value, str) and re.match(r"\s*(Human|Assistant):", value) is not None


def parse_transcript(value: str) -> Messages:
    """Split a transcript into its turns, in the order in which they stand.

    Raises:
        Unusable: text before the first name.
    """
    marks = list(_TURN.finditer(value))
    if not marks or marks[0].start() != 0:
        raise Unusable("transcript does not begin with a turn")
    ends = [mark.start() for mark in marks[1:]] + [len(value)]
    return tuple(
        Message(role="user" if mark[1] == "Human" else "assistant", content=value[mark.end() : end].strip())
        for mark, end in zip(marks, ends, strict=True)
    )


def render_transcript(turns: Messages) -> str:
    """Write turns as a transcript.

    Raises:
        Unusable: a system or tool turn.
    """
    if any(turn.role not in _NAMES for turn in turns):
        raise Unusable("a transcript has no system or tool turns")
    return "".join(f"\n\n{_NAMES[turn.role]}: {turn.content}" for turn in turns)


def _read_hh(row: Row) -> list[Item]:
    chosen, rejected = text(row.values, "chosen"), text(row.values, "rejected")
    if chosen == rejected:
        raise Unusable(IDENTICAL)
    prompt, better, worse = split_conversations(parse_transcript(chosen), parse_transcript(rejected))
    return [checked(Preference(prompt=prompt, chosen=better, rejected=worse, meta=keep(row.values, "id")))]


def _write_hh(preference: Preference) -> dict[str, Any]:
    if preference.is_tie:
        raise Unusable("a transcript has no ties")
    chosen, rejected = (
        render_transcript((*preference.prompt, assistant(reply))) for reply in (preference.chosen, preference.rejected)
    )
    again = split_conversations(parse_transcript(chosen), parse_transcript(rejected))
    if again != (preference.prompt, preference.chosen, preference.rejected):
        raise Unusable("a transcript cannot hold outer whitespace or a line that looks like a turn")
    return {"chosen": chosen, "rejected": rejected}


def _is_hh(values: Values) -> bool:
    return is_transcript(values.get("chosen")) and is_transcript(values.get("rejected")) and "prompt" not in values


HH = Format(
    name="hh", kind="preferences", detect=mostly(_is_hh), read=_read_hh, write=_write_hh,
    doc="Anthropic HH: `chosen` and `rejected` are whole transcripts. The prompt is the common prefix of whole turns; both must "
        "then differ in exactly one assistant turn.",
)  # fmt: skip


def _opening(values: Values) -> Messages:
    """The first question of a red-team transcript; the turns after it depend on the model that was attacked."""
    return parse_transcript(text(values, "transcript"))[:1]


HH_RED_TEAM = Format(
    name="hh_red_team", kind="prompts", detect=mostly(lambda v: is_transcript(v.get("transcript")) and "chosen" not in v), read=prompts_by(_opening),
    doc="Anthropic's red-team attempts: `transcript`, of which the first question is the prompt.",
)  # fmt: skip


def _open_transcript(values: Values) -> Messages:
    prompt = parse_transcript(text(values, "prompt"))
    return prompt[:-1] if prompt[-1] == assistant("") else prompt


def _read_nectar(row: Row, *, pairs: Pairing = "all") -> list[Item]:
    prompt = _open_transcript(row.values)
    candidates: list[Candidate] = []
    left_out: list[Item] = []
    for value in items(row.values, "answers"):
        try:
            candidates.append(_answer(mapping(value, "answers")))
        except Unusable as fault:
            left_out.append(LeftOut(reason=f"completion: {fault}"))
    return ranked_preferences(prompt, candidates, pairs=pairs) + left_out


def _answer(answer: Values) -> Candidate:
    rank = number(answer.get("rank"))
    if rank is None:
        raise Unusable("no rank")
    return Candidate(text=text(answer, "answer"), score=-rank, meta=keep(answer, "model", "rank"))


def _is_nectar(values: Values) -> bool:
    answers = values.get("answers")
    return (
        has_text(values, "prompt") and isinstance(answers, list) and bool(answers)
        and isinstance(answers[0], dict) and {"answer", "rank"} <= set(answers[0])
    )  # fmt: skip


NECTAR = Format(
    name="nectar", kind="preferences", detect=mostly(_is_nectar), read=_read_nectar,
    also={"prompts": prompts_by(_open_transcript)},
    pairings=("all", "adjacent", "best_vs_each", "best_vs_worst"),
    doc="Nectar: `prompt` is a transcript that ends with an open assistant turn, `answers` are {answer, model, rank}, 1 the best.",
)  # fmt: skip
