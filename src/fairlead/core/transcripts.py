"""Completions of several turns: `text` and `token_ids` hold turns and observations, `meta` says what of them the policy wrote itself.

Scorers judge the whole transcript; rules on a reply's form and length hold the policy to its own words alone.

Example:
    meta = written_meta(["<calculator>2+2</calculator>", "It is 4."], num_tokens=12)
    completion = Completion(..., text="<calculator>2+2</calculator>\\n4\\nIt is 4.", meta=meta)
    written_text(completion)         # without the line that the calculator wrote
"""

from collections.abc import Sequence
from typing import Any

from fairlead.core.records import Completion

_TURNS = "turns"
_NUM_TOKENS = "num_written_tokens"


def written_meta(turns: Sequence[str], *, num_tokens: int) -> dict[str, Any]:
    """Meta of a completion: the policy's turns, and how many tokens they have."""
    return {_TURNS: list(turns), _NUM_TOKENS: num_tokens}


def written_text(completion: Completion) -> str:
    """What the policy wrote: its turns, one a line; the text itself where there is one turn."""
    turns = completion.meta.get(_TURNS)
    return completion.text if turns is None else "\n".join(turns)


def num_written_tokens(completion: Completion) -> int:
    """Tokens that the policy wrote."""
    return int(completion.meta.get(_NUM_TOKENS, len(completion.token_ids)))
