"""Single comparisons of two completions: OpenAI summaries, LMArena and MT-bench conversations."""

import json
from typing import Any

from fairlead.core.io import Row
from fairlead.core.records import Messages, Preference, Split
from fairlead.formats.base import Format, Item, Unusable, Values, mostly
from fairlead.formats.conversations import assistant, checked, prompts_by, split_conversations, tied, user
from fairlead.formats.fields import is_messages, items, keep, mapping, messages, number, optional_text, text, whole

HELD_OUT = ("valid", "test", "heldout", "dev")
"""Beginnings of the names that other data sets give to the part that is not trained on."""
_TIES = ("tie", "tie (bothbad)", "tie (inconsistent)", "both_bad")


def split_of(values: Values) -> Split:
    """Translate a `split` field; without one everything is for training."""
    name = values.get("split")
    return "heldout" if isinstance(name, str) and name.lower().startswith(HELD_OUT) else "train"


def compared(pair: Preference, winner: str) -> Preference:
    """Put the winner of (chosen = a, rejected = b) first; `winner` is a, b, or tie."""
    if winner == "tie":
        return tied(checked(pair))
    if winner == "a":
        return checked(pair)
    return checked(
        Preference(
            prompt=pair.prompt, chosen=pair.rejected, rejected=pair.chosen, num_votes=pair.num_votes,
            agreement=pair.agreement, split=pair.split, slice=pair.slice, meta=pair.meta,
        )
    )  # fmt: skip


def _read_openai(row: Row) -> list[Item]:
    values = row.values
    summaries = [mapping(value, "summaries") for value in items(values, "summaries")]
    if len(summaries) != 2:
        raise Unusable("summaries does not hold two")
    choice = whole(values.get("choice"))
    if choice not in (0, 1):
        raise Unusable("choice is not 0 or 1")
    extra = values.get("extra")
    meta = keep(values, "worker", "batch") | (keep(extra, "confidence") if isinstance(extra, dict) else {})
    pair = Preference(
        prompt=openai_prompt(values), chosen=text(summaries[0], "text"),
        rejected=text(summaries[1], "text"), num_votes=1, split=split_of(values), meta=meta,
    )  # fmt: skip
    return [compared(pair, "ab"[choice])]


def openai_prompt(values: Values) -> Messages:
    """The query of Stiennon et al. 2020 (arXiv:2009.01325), appendix B: post or article with a cue at the end."""
    info = mapping(values.get("info"), "info")
    title = optional_text(info, "title") or ""
    if (optional_text(info, "post") or "").strip():
        subreddit = optional_text(info, "subreddit") or ""
        query = f"SUBREDDIT: r/{subreddit}\n\nTITLE: {title}\n\nPOST: {text(info, 'post')}\n\nTL;DR:"
    else:
        query = f"Title: {title}\n\nArticle: {text(info, 'article')}\n\nTL;DR:"
    return user(query)


def _read_arena(row: Row) -> list[Item]:
    """One judged conversation; `turn` says after how many exchanges it was judged.

    Conversations whose context differs (a second turn after two different first replies) are refused: they compare
    dialogues, not completions of one prompt.
    """
    values = row.values
    winner = _winner(values.get("winner"))
    turns = whole(values.get("turn"))
    conversations = [messages(items(values, name), name) for name in ("conversation_a", "conversation_b")]
    if turns is not None and turns > 0:
        conversations = [_first_exchanges(turns, conversation) for conversation in conversations]
    if conversations[0] == conversations[1]:
        raise Unusable("chosen and rejected are identical")
    prompt, a, b = split_conversations(*conversations)
    meta = keep(values, "question_id", "model_a", "model_b", "winner", "judge", "turn", "language")
    return [compared(Preference(prompt=prompt, chosen=a, rejected=b, num_votes=1, meta=meta), winner)]


def _winner(value: Any) -> str:
    known = {"model_a": "a", "model_b": "b"} | dict.fromkeys(_TIES, "tie")
    if not isinstance(value, str) or value not in known:
        raise Unusable("winner is not model_a, model_b or a tie")
    return known[value]


def _first_exchanges(count: int, conversation: Messages) -> Messages:
    ends = [i for i, turn in enumerate(conversation) if turn.role == "assistant"][:count]
    return conversation[: ends[-1] + 1] if ends else conversation


def _read_arena_flags(row: Row) -> list[Item]:
    """The 55k rows of the Kaggle contest: texts are JSON lists of turns, the winner is one of three flags."""
    values = row.values
    flags = [number(values.get(name)) for name in ("winner_model_a", "winner_model_b", "winner_tie")]
    if sorted(flag if flag is not None else -1 for flag in flags) != [0, 0, 1]:
        raise Unusable("not exactly one of the winner flags is 1")
    prompts, a, b = (_turns(values, name) for name in ("prompt", "response_a", "response_b"))
    if len(prompts) == 0 or not len(prompts) == len(a) == len(b):
        raise Unusable("prompt and responses differ in their number of turns")
    prompt, first, second = split_conversations(_interleave(prompts, a), _interleave(prompts, b))
    meta = keep(values, "id", "model_a", "model_b")
    pair = Preference(prompt=prompt, chosen=first, rejected=second, num_votes=1, meta=meta)
    return [compared(pair, ("a", "b", "tie")[flags.index(1)])]


def _turns(values: Values, name: str) -> list[str]:
    try:
        turns = json.loads(text(values, name))
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{name} is not a JSON list") from error
    if not isinstance(turns, list):
        raise Unusable(f"{name} is not a JSON list")
    return [text({name: turn}, name) for turn in turns]


def _interleave(prompts: list[str], replies: list[str]) -> Messages:
    return tuple(turn for p, r in zip(prompts, replies, strict=True) for turn in (*user(p), assistant(r)))


def _is_arena(values: Values) -> bool:
    return (
        "winner" in values and is_messages(values.get("conversation_a")) and is_messages(values.get("conversation_b"))
    )


OPENAI_COMPARISONS = Format(
    name="openai_comparisons", kind="preferences", detect=mostly(lambda v: {"info", "summaries", "choice"} <= set(v)), read=_read_openai,
    also={"prompts": prompts_by(openai_prompt)},
    doc="OpenAI summarize-from-feedback: `info` (post or article), two `summaries`, `choice` 0 or 1; the confidence goes to `meta`.",
)  # fmt: skip
ARENA = Format(
    name="arena", kind="preferences", detect=mostly(_is_arena), read=_read_arena,
    doc="LMArena and MT-bench judgments: `conversation_a`, `conversation_b`, `winner` with ties, judged after `turn` exchanges.",
)  # fmt: skip
ARENA_FLAGS = Format(
    name="arena_flags", kind="preferences",
    detect=mostly(lambda v: {"response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"} <= set(v)), read=_read_arena_flags,
    doc="LMArena 55k: `prompt`, `response_a`, `response_b` as JSON lists of turns, and three winner flags.",
)  # fmt: skip
