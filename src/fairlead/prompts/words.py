"""Text as the stage compares it: normal form, words, and word n-grams as 64-bit hashes in flat arrays.

Shared by de-duplication, contamination, splits and coverage. Every hash comes from BLAKE2b of the text, so it is the same in
every process and on every machine (Python's own `hash` is not).

Legend: W words of all texts together, M n-grams, n texts. Texts are rows of a flat array cut by `offsets` [n + 1].

Example:
    hashed = hash_words([normalise("What is 3 + 4?"), normalise("what is  3 + 4")])
    hashes, text_index = ngrams(hashed, 3)
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]

# Scripts written without spaces (Thai, Lao, Burmese, Khmer, kana, Han): every character counts as a word, for otherwise a
# sentence would be one word and two prompts that differ in one character would share nothing.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
)
# Only marks that end or quote a sentence are ignored: `3 + 4` and `3 - 4` are different prompts.
_IGNORED = re.escape(".,;:!?'\"`\u00a1\u00bf\u2018\u2019\u201c\u201d\u2026\u3001\u3002\u300c\u300d")
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s{_IGNORED}]")
# Unicode's Default_Ignorable_Code_Point: soft hyphens, zero-width spaces and joiners, direction marks, variation selectors.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_UNSPACED_CHARACTER = re.compile(rf"[{_UNSPACED}]")
_POLYNOMIAL = np.uint64(0x9E3779B97F4A7C15)  # odd, so multiplication by it loses nothing modulo 2**64


def normalise(text: str) -> str:
    """Return the form under which two prompts are the same: NFKC, case-folded, invisible characters out, spaces single."""
    if text.isascii():
        return " ".join(text.lower().split())
    while True:  # case folding can undo NFKC and the reverse (U+1D2C, U+0345): repeat until nothing changes
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        result = " ".join(_INVISIBLE.sub("", folded).split())
        if result == text:
            return result
        text = result


def words(text: str) -> list[str]:
    """Words and meaningful symbols of a normalised text; the text itself when it has none (`???`)."""
    return _WORD.findall(text) or [text]


def num_words(text: str) -> int:
    """Number of words as people count them; a character of an unspaced script counts as one."""
    return len((text if text.isascii() else _UNSPACED_CHARACTER.sub(" x ", text)).split())


def stable_hash(text: str, *, salt: str = "") -> int:
    """64-bit hash of a text; different salts give independent numbers."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, person=salt.encode()[:16]).digest(), "little")


def stable_hashes(texts: Sequence[str], *, salt: str) -> Hashes:
    """[n] `stable_hash` of each text."""
    return np.fromiter((stable_hash(text, salt=salt) for text in texts), np.uint64, count=len(texts))


def mix_bits(values: Hashes) -> Hashes:
    """Spread every input bit over all output bits.

    Source: Steele, Lea and Flood 2014, SplitMix64 finaliser.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HashedTexts:
    """Texts as rows of word hashes. Every text has at least one word."""

    values: Hashes
    """[W] hash of each word."""
    offsets: Index
    """[n + 1] where each text begins."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Index:
        """[n] words of each text."""
        return np.diff(self.offsets)


def hash_words(texts: Sequence[str]) -> HashedTexts:
    """Cut normalised texts into words and hash each different word once."""
    vocabulary: dict[str, int] = {}
    ids: list[int] = []
    offsets = np.zeros(len(texts) + 1, np.int64)
    for i, text in enumerate(texts):
        ids.extend(vocabulary.setdefault(word, len(vocabulary)) for word in words(text))
        offsets[i + 1] = len(ids)
    table = stable_hashes(list(vocabulary), salt="word")
    return HashedTexts(values=table[np.asarray(ids, np.int64)], offsets=offsets)


def ngrams(texts: HashedTexts, size: int) -> tuple[Hashes, Index]:
    """All word n-grams within texts: hashes [M] and the text that each belongs to [M]; shorter texts give none."""
    num_starts = len(texts.values) - size + 1
    if num_starts <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    text_index = np.repeat(np.arange(len(texts), dtype=np.int64), texts.lengths)
    inside = text_index[:num_starts] == text_index[size - 1 :]
    starts = np.flatnonzero(inside)
    hashes = np.zeros(len(starts), np.uint64)
    for k in range(size):
        hashes = hashes * _POLYNOMIAL + texts.values[starts + k]
    return mix_bits(hashes), text_index[starts]
