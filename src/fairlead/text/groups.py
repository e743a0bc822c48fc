"""Prompts with several completions each to trees: what rankings and ratings have in common.

Example:
    encode_groups(chat, rankings, max_length=512, fewest=2, make_tree=ranked_tree)
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fairlead.core.records import Messages
from fairlead.text.chat import ChatText
from fairlead.text.examples import Encoded, require_some
from fairlead.text.packing import Branch, Tree

Ids = npt.NDArray[np.int64]


class CompletionGroup(Protocol):
    """A prompt with its completions."""

    @property
    def prompt(self) -> Messages:
        """What was asked."""
        ...

    @property
    def completions(self) -> tuple[str, ...]:
        """What was answered."""
        ...


Group = TypeVar("Group", bound=CompletionGroup)


def encode_groups(
    chat: ChatText, rows: Iterable[Group], *, max_length: int, may_be_empty: bool, fewest: int,
    make_tree: Callable[[Group, Ids, tuple[Branch, ...], Sequence[int]], Tree], is_weightless: Callable[[Group], bool] = lambda _row: False,
) -> Encoded:  # fmt: skip
    """A tree a group; a completion that does not fit beside its prompt is left out, and the rest of its group stays.

    Args:
        fewest: completions that a group needs; one with fewer is dropped.
        make_tree: (group, prompt ids, branches, their places among the group's completions).
        is_weightless: groups that no loss would read; they are left out.
    Returns:
        Trees; `num_truncated` counts groups that lost completions.
    Raises:
        DataError: nothing is left at all, unless `may_be_empty`.
    """
    rows = list(rows)
    prompts = chat.encode_prompts([row.prompt for row in rows])
    replies = iter(chat.encode_completions([text for row in rows for text in row.completions]))
    trees, kept_rows, result = list[Tree](), list[int](), Encoded()
    result.look(chat, ((row.prompt, row.completions[0]) for row in rows))
    for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        sides = list(itertools.islice(replies, len(row.completions)))
        if is_weightless(row):
            result.num_weightless += 1
            continue
        places = [i for i, side in enumerate(sides) if 0 < len(prompt) <= max_length - len(side)]
        if len(places) < fewest:
            result.num_dropped += 1
            continue
        result.num_truncated += len(places) < len(sides)
        trees.append(make_tree(row, prompt, tuple(Branch(token_ids=sides[i]) for i in places), places))
        kept_rows.append(number)
        result.count_kept(row.prompt)
    result.trees, result.kept_rows = trees, kept_rows
    return result if may_be_empty else require_some(result, "preferences", max_length)
