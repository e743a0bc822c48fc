"""Replies in steps to trees whose kept tokens are the ends of steps, and where steps end in a reply that the policy wrote.

A model that reads "the state in which a kept token is chosen" reads, at the token after a step, all of that step and nothing after it. So
the kept token of a step is the one that follows its last token: the first of the separator, or the terminator.

Example:
    encoded = encode_steps(chat, rows, separator="\\n\\n", max_length=512)
    places = step_places(chat.decode, token_ids, separator="\\n\\n")
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fairlead.core.records import StepLabels
from fairlead.text.chat import ChatText
from fairlead.text.examples import Encoded, require_some
from fairlead.text.packing import Branch, Ints, Tree

Decode = Callable[[Sequence[int]], str]


def encode_steps(
    chat: ChatText, rows: Iterable[StepLabels], *, separator: str, max_length: int, may_be_empty: bool = False
) -> Encoded:
    """A tree for each row; steps beyond `max_length` are cut, rows without a labelled step that fits are dropped.

    The branch's array `labels` holds [K] the probability that each kept step is right. Two steps that end in one token are one, with the
    later label.
    """
    rows = list(rows)
    result, trees, kept_rows = Encoded(), list[Tree](), list[int]()
    prompts = chat.encode_prompts([row.prompt for row in rows])
    replies = chat.encode_completions([separator.join(row.steps) for row in rows])
    for number, (row, prompt, ids) in enumerate(zip(rows, prompts, replies, strict=True)):
        places = places_of(chat.decode, ids[:-1].tolist(), _ends(chat.decode(ids), row.steps))
        fits = max_length - len(prompt)
        labels = {
            place: label for place, label in zip(places[row.num_given :], row.labels, strict=True) if 0 < place < fits
        }
        result.num_truncated += len(ids) > fits and bool(labels)
        if not labels:
            result.num_dropped += 1
            continue
        length = max(labels) + 1
        kept = np.zeros(length, dtype=np.bool_)
        kept[list(labels)] = True
        arrays = {"labels": np.array([labels[place] for place in sorted(labels)], dtype=np.float32)}
        trees.append(Tree(prompt_ids=prompt, branches=(Branch(token_ids=ids[:length], kept=kept, arrays=arrays),)))
        kept_rows.append(number)
        result.count_kept(row.prompt)
    result.trees, result.kept_rows = trees, kept_rows
    return result if may_be_empty else require_some(result, "step labels", max_length)


def _ends(text: str, steps: Sequence[str]) -> list[int]:
    """[S] characters up to the end of each step; -1 for one that the tokenizer does not give back as it was."""
    found: list[int] = []
    place = 0
    for step in steps:
        start = text.find(step.strip(), place)
        found.append(-1 if start < 0 else start + len(step.strip()))
        place = place if start < 0 else found[-1]
    return found


def step_places(decode: Decode, token_ids: Sequence[int], *, separator: str) -> list[int]:
    """[S] tokens up to the end of each step of a reply, in (0, T]; steps are what stands between separators and is not blank."""
    text = decode(token_ids)
    ends: list[int] = []
    place = 0
    for piece in text.split(separator):
        if piece.strip():
            ends.append(place + len(piece.rstrip()))
        place += len(piece) + len(separator)
    return list(dict.fromkeys(places_of(decode, token_ids, ends)))


def places_of(decode: Decode, token_ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """[S] how many tokens it takes until their text has so many characters; -1 stays -1. By bisection: a few decodes a step."""
    found: list[int] = []
    for end in ends:
        low, high = 1, len(token_ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if len(decode(token_ids[:middle])) >= end else (middle + 1, high)
        found.append(-1 if end < 0 else low)
    return found


def tree_of_steps(prompt_ids: Ints, token_ids: Ints, places: Sequence[int], *, terminator_id: int) -> Tree:
    """The tree on which a model reads the steps that end after so many tokens; a reply that was cut gets a terminator to be read at."""
    ids = token_ids if max(places) < len(token_ids) else np.append(token_ids, terminator_id)
    kept = np.zeros(len(ids), dtype=np.bool_)
    kept[list(places)] = True
    return Tree(prompt_ids=prompt_ids, branches=(Branch(token_ids=ids, kept=kept),))
