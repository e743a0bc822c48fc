"""Which words changed between two replies.

Words and punctuation are compared, spaces are not; a lone short word between two changes counts as changed, because islands of
"the" make a rewritten sentence unreadable. Replies with little in common are shown unmarked and the note says so.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

# Scripts written without spaces are compared character by character.
_WORD = re.compile(
    r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+|[^\w\s])\s*"
)
MAX_WORDS = 1500  # comparing takes time by the square: 0.3 s here
ISLAND = 3  # characters of a word that carries too little to be kept between two changes
MIN_SHARED = 0.2  # below, nearly every word would be marked
Opcode = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of text that is the same in both replies, or not."""

    text: str
    is_changed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Both replies cut into segments; joined they give the replies back."""

    before: tuple[Segment, ...]
    after: tuple[Segment, ...]
    note: str
    """Why nothing is marked; empty when differences are marked."""


def compare_words(before: str, after: str) -> Difference:
    """Mark the words of `before` that are gone and the words of `after` that are new."""
    plain = (Segment(text=before, is_changed=False),), (Segment(text=after, is_changed=False),)
    if before == after:
        return Difference(before=plain[0], after=plain[1], note="The two replies are the same.")
    old, new = split_words(before), split_words(after)
    if max(len(old), len(new)) > MAX_WORDS:
        return Difference(
            before=plain[0], after=plain[1], note=f"Longer than {MAX_WORDS} words: differences are not marked."
        )
    matcher = difflib.SequenceMatcher(None, [w.strip() for w in old], [w.strip() for w in new], autojunk=False)
    if (shared := matcher.ratio()) < MIN_SHARED:
        note = f"Rewritten: {shared * 100:.0f} % of the words are shared, so differences are not marked."
        return Difference(before=plain[0], after=plain[1], note=note)
    codes = _without_islands(matcher.get_opcodes(), old)
    return Difference(
        before=_segments([("".join(old[i:j]), tag != "equal") for tag, i, j, _, _ in codes]),
        after=_segments([("".join(new[i:j]), tag != "equal") for tag, _, _, i, j in codes]),
        note="",
    )


def split_words(text: str) -> list[str]:
    """Cut a text into words with the spaces around them; joined they give the text back."""
    words, end = [], 0
    for match in _WORD.finditer(text):
        words.append(text[end : match.end()])
        end = match.end()
    return words if end == len(text) else [*words, text[end:]]


def _without_islands(codes: Sequence[Opcode], old: Sequence[str]) -> list[Opcode]:
    """Turn an equal run of one short word between two changes into a change."""
    return [
        ("replace", i1, i2, j1, j2)
        if tag == "equal" and i2 - i1 == 1 and len(old[i1].strip()) <= ISLAND and 0 < n < len(codes) - 1
        else (tag, i1, i2, j1, j2)
        for n, (tag, i1, i2, j1, j2) in enumerate(codes)
    ]


def _without_tail(text: str, is_changed: bool) -> tuple[tuple[str, bool], ...]:
    """Leave the spaces after a changed word unmarked."""
    bare = text.rstrip()
    return ((bare, True), (text[len(bare) :], False)) if is_changed and bare and bare != text else ((text, is_changed),)


def _segments(parts: Sequence[tuple[str, bool]]) -> tuple[Segment, ...]:
    """Join neighbours of the same kind and drop empty ones."""
    joined: list[tuple[str, bool]] = []
    for text, is_changed in parts:
        if text and joined and joined[-1][1] == is_changed:
            joined[-1] = (joined[-1][0] + text, is_changed)
        elif text:
            joined.append((text, is_changed))
    joined = [part for text, is_changed in joined for part in _without_tail(text, is_changed)]
    return tuple(Segment(text=text, is_changed=is_changed) for text, is_changed in joined)
