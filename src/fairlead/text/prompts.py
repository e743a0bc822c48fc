"""Prompts to token ids, all of them checked to leave room for a reply."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, explain
from fairlead.core.records import Prompt
from fairlead.text.chat import ChatText

TokenIds = npt.NDArray[np.int64]


def encode_prompts(
    chat: ChatText, prompts: Sequence[Prompt], *, max_length: int, max_new_tokens: int, max_added_tokens: int = 0
) -> list[TokenIds]:
    """Ids of each prompt up to where the reply begins.

    Args:
        max_length: longest prompt plus completion, tokens.
        max_new_tokens: longest completion, tokens.
        max_added_tokens: what others than the model may add to it, tokens.
    Raises:
        DataError: prompts are longer than what these leave of `max_length`; it names the longest and counts them.
    """
    room = max_length - max_new_tokens - max_added_tokens
    others = f" and observations of {max_added_tokens}" if max_added_tokens else ""
    encoded = [chat.encode_prompt(prompt.messages) for prompt in prompts]
    too_long = [i for i, ids in enumerate(encoded) if len(ids) > room]
    if too_long:
        longest = max(too_long, key=lambda i: len(encoded[i]))
        prompt = prompts[longest]
        wrong = f"does not fit the context ({len(too_long):,} of {len(prompts):,} prompts are too long; this is the longest)"
        lower = (
            "max_new_tokens, tools.max_turns or tools.max_observation_tokens" if max_added_tokens else "max_new_tokens"
        )
        needed = len(encoded[longest]) + max_length - room
        raise DataError(explain(f"prompt {prompt.id} ({prompt.source}): num_tokens", len(encoded[longest]), wrong,
                                expected=f"<= {room} (text.max_length {max_length} less max_new_tokens {max_new_tokens}{others})",
                                remedy=f"Set prompts.max_words, lower {lower}, or raise text.max_length to {needed} if the model can"))  # fmt: skip
    return encoded
