"""Records to trees: demonstrations, preferences and samples become what the trainer reads, with every cut and drop counted."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.records import Demonstration, Preference
from fairlead.text.chat import ChatText
from fairlead.text.packing import Branch, Tree

_NO_PROMPT = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class Encoded:
    """Trees with what it took to make them."""

    trees: list[Tree] = field(default_factory=list[Tree])
    kept_rows: list[int] = field(default_factory=list[int])
    """Row number of each tree in the input."""
    num_truncated: int = 0
    num_dropped: int = 0
    """Rows that cannot be used: nothing left to learn, or a side that does not fit."""

    @property
    def num_tokens(self) -> int:
        """Tokens of all trees."""
        return sum(t.num_tokens for t in self.trees)


def encode_demonstrations(chat: ChatText, rows: Iterable[Demonstration], *, max_length: int) -> Encoded:
    """Conversations to trees; cut from the end at `max_length`, dropped when no trained token is left.

    Raises:
        DataError: nothing is left at all.
    """
    result = Encoded()
    for number, row in enumerate(rows):
        encoded = chat.encode_conversation(row.messages)
        ids, mask = encoded.token_ids[:max_length], encoded.completion_mask[:max_length].copy()
        result.num_truncated += len(encoded.token_ids) > max_length
        mask[0] = False  # nothing predicts the first token of a row
        if not mask.any():
            result.num_dropped += 1
            continue
        result.trees.append(Tree(prompt_ids=_NO_PROMPT, branches=(Branch(token_ids=ids, kept=mask),)))
        result.kept_rows.append(number)
    require_some(result, "demonstrations", max_length)
    return result


def encode_preferences(chat: ChatText, rows: Iterable[Preference], *, max_length: int) -> Encoded:
    """Pairs to trees of two branches (chosen rank 0, rejected rank 1); a pair with a side that does not fit is dropped."""
    result = Encoded()
    for number, row in enumerate(rows):
        prompt = chat.encode_prompt(row.prompt)
        sides = [chat.encode_completion(text) for text in (row.chosen, row.rejected)]
        if len(prompt) + max(len(s) for s in sides) > max_length or not len(prompt):
            result.num_dropped += 1
            continue
        numbers = {"p_chosen": row.p_chosen, "margin": row.margin, "weight": row.weight, "is_tie": float(row.is_tie)}
        result.trees.append(
            Tree(prompt_ids=prompt, branches=tuple(Branch(token_ids=s) for s in sides), ranks=(0, 1), numbers=numbers)
        )
        result.kept_rows.append(number)
    require_some(result, "preferences", max_length)
    return result


def require_some(result: Encoded, what: str, max_length: int) -> None:
    """Raise when no row was left."""
    if not result.trees:
        raise DataError(explain(what, result.num_dropped, "rows do not fit", expected=f"rows of at most {max_length} tokens with something to learn",
                                remedy="Raise text.max_length or shorten the data"))  # fmt: skip
