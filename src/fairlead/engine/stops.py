"""What ends a sample: stop tokens for all rows at once, and stop texts, whose rows are decoded only where a token could complete one.

Example:
    stops = StopTexts(("\\n\\nHuman:",), decode)
    stops.is_reached(completion_ids)                   # after each token
"""

import numpy as np
import numpy.typing as npt

from fairlead.core.protocols import Decode

_UNKNOWN, _CANNOT, _MAY = 0, 1, 2
_HALF = "\ufffd"
"""What a decoder writes for bytes that are no whole character."""


class StopTexts:
    """Finds the token with which a completion first holds one of some texts. Belongs to one `generate`.

    Most tokens cannot complete a text: theirs does not hold its last character. That is learned token by token.

    Args:
        texts: not empty, each of at least one character.
    """

    def __init__(self, texts: tuple[str, ...], decode: Decode) -> None:
        self._texts = texts
        self._decode = decode
        self._ends = frozenset(text[-1] for text in texts)
        self._kinds = np.zeros(0, dtype=np.int8)

    def may_end(self, token_ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """[S] for the last token of each row: could it complete a text?"""
        if len(token_ids) and int(token_ids.max()) >= len(self._kinds):
            self._kinds = np.pad(self._kinds, (0, int(token_ids.max()) + 1 - len(self._kinds)))
        for token in np.unique(token_ids[self._kinds[token_ids] == _UNKNOWN]):
            self._kinds[token] = _MAY if self._can_complete(token) else _CANNOT
        return self._kinds[token_ids] == _MAY

    def _can_complete(self, token: np.int64) -> bool:
        """Decoders may drop white space at either end and cannot show half a character, so those may always complete a text."""
        if any(end.isspace() for end in self._ends):
            return True
        text = self._decode(np.array([token], dtype=np.int64))
        return not text or _HALF in text or not self._ends.isdisjoint(text)

    def is_reached(self, token_ids: npt.NDArray[np.int64]) -> bool:
        """Whether the completion [T], whose last token `may_end` it, holds one of the texts."""
        text = self._decode(token_ids)
        return any(stop in text for stop in self._texts)
