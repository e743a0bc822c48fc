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
from dataclasses import dataclass

from fairlead.core.records import Messages, Preference
from fairlead.text.chat import ChatText
from fairlead.text.encoding import Storage, encode_rows
from fairlead.text.examples import Encoded
from fairlead.text.groups import Ids, encode_groups
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedPrompt:
    """A prompt with its rated completions."""

    prompt: Messages
    completions: tuple[str, ...]
    ratings: tuple[tuple[float, ...], ...]
    """Of each completion; NaN where there is none."""
    row: int
    """Number of the first preference it is made of."""


def group_ratings(rows: Iterable[Preference], names: Sequence[str]) -> tuple[list[RatedPrompt], int]:
    """Rated completions by prompt, in the order of their first pairs, and how many completions have no rating."""
    prompts: dict[Messages, dict[str, list[list[float]]]] = {}
    first: dict[Messages, int] = {}
    for number, row in enumerate(rows):
        first.setdefault(row.prompt, number)
        rated = prompts.setdefault(row.prompt, {})
        for text, values in zip((row.chosen, row.rejected), read_ratings(row, names), strict=True):
            rated.setdefault(text, []).append(values)
    found, num_unrated = list[RatedPrompt](), 0
    for prompt, completions in prompts.items():
        means = {
            text: tuple(_mean(values) for values in zip(*given, strict=True)) for text, given in completions.items()
        }
        rated = {text: row for text, row in means.items() if not all(map(math.isnan, row))}
        num_unrated += len(means) - len(rated)
        if rated:
            found.append(
                RatedPrompt(prompt=prompt, completions=tuple(rated), ratings=tuple(rated.values()), row=first[prompt])
            )
    return found, num_unrated


def encode_rated(
    chat: ChatText, rows: Iterable[RatedPrompt], *, max_length: int, may_be_empty: bool = False
) -> Encoded:
    """Rated prompts to trees with their ratings as `targets`; as `encode_groups`."""
    return encode_groups(chat, rows, max_length=max_length, may_be_empty=may_be_empty, fewest=1, make_tree=_rated_tree)


def _rated_tree(row: RatedPrompt, prompt: Ids, branches: tuple[Branch, ...], places: Sequence[int]) -> Tree:
    ratings = tuple(row.ratings[i] for i in places)
    return Tree(prompt_ids=prompt, branches=branches, ranks=(0,) * len(branches), targets=ratings)


def encode_ratings(
    chat: ChatText, rows: Iterable[Preference], names: Sequence[str], *, max_length: int, storage: Storage | None = None
) -> tuple[Encoded, int]:
    """A tree a prompt: its rated completions with their ratings as `targets`.

    Returns:
        Trees as of `encode_rated` (`kept_rows` names the first pair of each), and how many completions have no rating.
    Raises:
        DataError: nothing is left at all.
    """
    found, num_unrated = group_ratings(rows, names)
    result = encode_rows(found, encode_rated, chat=chat, max_length=max_length, what="preferences", storage=storage)
    result.kept_rows = [found[number].row for number in result.kept_rows]
    return result, num_unrated


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _number(row: Preference, *names: str) -> float:
    return next((float(row.meta[name]) for name in names if _is_number(row.meta.get(name))), math.nan)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
