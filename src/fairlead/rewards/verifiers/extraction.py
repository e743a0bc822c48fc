"""Finding the final answer in a completion, by named policies that are tried in order.

A policy looks at the text alone and returns its last fitting place, for later words correct earlier ones. None means that it finds
nothing, and the next policy is asked.

Example:
    find_answer("So 3 + 4 = 7.\\n#### 7", ("boxed", "hash"))        # "7"
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

Policy = Literal["boxed", "hash", "tag", "phrase", "choice", "last_number", "last_line", "whole"]
"""boxed: the last \\boxed{...}. hash: what follows the last ####. tag: the last <answer>...</answer>. phrase: what follows the last "answer is",
"answer:" or "answer =". choice: the last letter of a choice, as in (C) or "C)". last_number, last_line, whole: what they say."""

_NUMBER = re.compile(r"(?<![\w.])[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)?\.?\d+(?:/\d+)?(?![\d/])")
_HASH = re.compile(r"####[ \t]*([^\n]*)")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_PHRASE = re.compile(r"\banswer(?:\s+is\b|\s*[:=])(?:\*\*)?[ \t]*:?[ \t]*([^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<!\bMrs)(?<!\bMr)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\bRs)[.!?](?=\s+[A-Z])")
_CHOICE = re.compile(r"(?<![A-Za-z0-9'])\(?([A-Z])(?![A-Za-z0-9'])\)?")
_BOXED = ("\\boxed", "\\fbox")


def last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{...} or \\fbox{...} that is closed; braces inside are matched, `\\boxed 7` is one token."""
    starts = sorted(
        (match.end() for name in _BOXED for match in re.finditer(re.escape(name) + r"\s*", text)), reverse=True
    )
    for start in starts:
        if text[start : start + 1] != "{":
            token = re.match(r"\w+", text[start:])
            if token:
                return token[0]
            continue
        depth = 0
        for i in range(start, len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if depth == 0:
                return text[start + 1 : i].strip()
    return None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    """The last match's first group (or all of it), trimmed; None when there is none or it is empty."""
    found = None
    for match in pattern.finditer(text):
        found = match
    if found is None:
        return None
    return tidy(found[1] if pattern.groups else found[0]) or None


def _after_phrase(text: str) -> str | None:
    found = _last(_PHRASE, text)
    if found is None:
        return None
    end = _SENTENCE_END.search(found)
    return tidy(found[: end.start()] if end else found) or None


def _last_line(text: str) -> str | None:
    lines = [line for line in text.splitlines() if line.strip()]
    return tidy(lines[-1]) if lines else None


POLICIES: Mapping[str, Callable[[str], str | None]] = {
    "boxed": last_boxed,
    "hash": lambda text: _last(_HASH, text),
    "tag": lambda text: _last(_TAG, text),
    "phrase": _after_phrase,
    "choice": lambda text: _last(_CHOICE, text),
    "last_number": lambda text: _last(_NUMBER, text),
    "last_line": _last_line,
    "whole": lambda text: text.strip() or None,
}


def tidy(text: str) -> str:
    """Without the marks that only set an answer off: spaces, bold, dollar signs around a formula, the full stop of its sentence."""
    text = text.strip()
    while True:
        before = text
        for mark in ("**", "__", "`", "$$", "$"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)].strip()
        if text.endswith(".") and not re.search(r"\b[A-Za-z]\.[A-Za-z]\.$", text):
            text = text[:-1].rstrip()
        if text == before:
            return text


def after_mark(text: str, mark: str | None) -> str | None:
    """What follows the last occurrence of a mark; all for no mark, None when it is missing."""
    if mark is None:
        return text
    _, found, rest = text.rpartition(mark)
    return rest if found else None


def find_answer(text: str, policies: Sequence[str], *, after: str | None = None) -> str | None:
    """The answer that the first fitting policy finds, or None.

    Args:
        policies: names of POLICIES, tried in order.
        after: only what follows the last occurrence of this mark is looked at (`</think>`); None when the mark is missing.
    """
    rest = after_mark(text, after)
    if rest is None:
        return None
    return next((found for name in policies if (found := POLICIES[name](rest)) is not None), None)
