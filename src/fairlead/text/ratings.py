"""Ratings of completions by attribute (helpfulness, verbosity, ...), as formats keep them beside the pairs.

A pair carries them in `meta`: `chosen_<name>` and `rejected_<name>`, or `a_<name>` and `b_<name>` with `winner`. What is not there is
NaN; a completion that several pairs rate differently has the mean.

Example:
    read_ratings(preference, ("helpfulness", "verbosity"))     # ([4.0, 2.0], [3.0, nan])
    encoded = encode_ratings(chat, preferences, ("helpfulness",), max_length=512)
"""

import math
import re
from collections.abc import Iterable, Sequence

from fairlead.core.records import Messages, Preference
from fairlead.text.chat import ChatText
from fairlead.text.examples import Encoded, require_some
from fairlead.text.packing import Branch, Tree

_SIDES = re.compile(r"(?:chosen|rejected|a|b)_(.+)")


def read_ratings(row: Preference, names: Sequence[str]) -> tuple[list[float], list[float]]:
    """Ratings of the chosen and of the rejected completion; NaN where there is none."""
    first, second = ("b", "a") if row.meta.get("winner") == "b" else ("a", "b")
    chosen = [_number(row, f"chosen_{name}", f"{first}_{name}") for name in names]
    rejected = [_number(row, f"rejected_{name}", f"{second}_{name}") for name in names]
    return chosen, rejected


def known_attributes(rows: Iterable[Preference]) -> list[str]:
    """Names of all attributes that some pair rates."""
    found = {
        match[1]
        for row in rows
        for key, value in row.meta.items()
        if _is_number(value) and (match := _SIDES.fullmatch(key))
    }
    return sorted(found)


def encode_ratings(
    chat: ChatText, rows: Sequence[Preference], names: Sequence[str], *, max_length: int
) -> tuple[Encoded, int]:
    """A tree a prompt: its rated completions with their ratings as `targets`. One that does not fit is left out.

    Returns:
        Trees (`num_truncated` counts prompts that lost completions), and how many completions have no rating.
    Raises:
        DataError: nothing is left at all.
    """
    prompts: dict[Messages, dict[str, list[list[float]]]] = {}
    first: dict[Messages, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.prompt, number)
        rated = prompts.setdefault(row.prompt, {})
        for text, values in zip((row.chosen, row.rejected), read_ratings(row, names), strict=True):
            rated.setdefault(text, []).append(values)
    result, num_unrated = Encoded(), 0
    for messages, completions in prompts.items():
        prompt = chat.encode_prompt(messages)
        means = {
            text: tuple(_mean(values) for values in zip(*found, strict=True)) for text, found in completions.items()
        }
        rated = [(chat.encode_completion(text), row) for text, row in means.items() if not all(map(math.isnan, row))]
        num_unrated += len(means) - len(rated)
        kept = [(Branch(token_ids=side), row) for side, row in rated if 0 < len(prompt) <= max_length - len(side)]
        if not kept:
            result.num_dropped += bool(rated)
            continue
        result.num_truncated += len(kept) < len(rated)
        branches, ratings = zip(*kept, strict=True)
        result.trees.append(Tree(prompt_ids=prompt, branches=branches, ranks=(0,) * len(kept), targets=ratings))
        result.kept_rows.append(first[messages])
    require_some(result, "preferences", max_length)
    return result, num_unrated


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _number(row: Preference, *names: str) -> float:
    return next((float(row.meta[name]) for name in names if _is_number(row.meta.get(name))), math.nan)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
