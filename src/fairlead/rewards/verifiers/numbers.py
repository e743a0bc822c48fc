"""Numbers as people write them: thousands, currencies, percent, fractions, a unit behind.

Example:
    read_number("$1,234.50")     # 2469/2
    read_number("9 (apples)")    # 9, of apples
    read_number("5 or 6")        # None: two numbers are no answer
"""

import re
from dataclasses import dataclass
from fractions import Fraction

_CURRENCY = "$\u20ac\u00a3\u00a5\u20b9"
_PLAIN = re.compile(
    rf"""
    (?P<prefix>(?:[A-Za-z]\w*\s*=)?\s*(?:Rs\.?|USD|US\$|EUR)?\s*)
    (?P<sign>[-+\u2212\u2013]?)\s*[{_CURRENCY}]?\s*
    (?:(?P<mixed>\d+)\s+(?=\d+/\d))?
    (?P<number>(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d*)?(?:[eE][-+]?\d{{1,3}})?|\.\d+)
    (?:\s*/\s*(?P<divisor>\d+(?:\.\d+)?))?
    \s*(?P<percent>%|percent\b)?
    (?P<unit>\s*(?:[^\W\d_]|\u00b0)[^\W\d_ .'/\u00b0-]*(?:[ .'/-]+[^\W\d_]+)*[ .]*|\s*\([^\d()]*\))?
    """,
    re.VERBOSE,
)
_MAX_UNIT_WORDS = 6
_ABBREVIATIONS = {
    "sq": "square",
    "min": "minute",
    "hr": "hour",
    "sec": "second",
    "hrs": "hour",
    "mins": "minute",
    "secs": "second",
}
_LATEX = (
    (re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\\[!,;: ]|~"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"^(-?)\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}$"), r"\1\2/\3"),
    (re.compile(r"^-\((\d+/\d+)\)$"), r"-\1"),
)
_NO_UNIT = re.compile(
    r"\b(?:or|and|to|not|between|either|over|plus|minus|hundred|thousand|million|billion|half|dozen)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value; `is_percent` when a percent sign stands behind it."""

    value: Fraction
    is_percent: bool
    unit: frozenset[str]
    """Words of the unit, in the singular."""


def read_number(text: str) -> Number | None:
    """The one number that a text is, with an optional currency before and a unit behind; None for anything else.

    Words that change a value (half, million, or, ...) are not taken for a unit.
    """
    text = text.strip()
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text).strip()
    match = _PLAIN.fullmatch(text.strip("$ "))
    if match is None:
        return None
    unit = match["unit"] or ""
    if _NO_UNIT.search(unit) or len(unit.split()) > _MAX_UNIT_WORDS:
        return None
    if len(unit.strip()) == 1 and unit.strip().isalpha():
        return None  # 2x is a formula, 2 x may be one
    value = _exact(match["number"])
    if match["divisor"] is not None:
        divisor = _exact(match["divisor"])
        if divisor == 0:
            return None
        value /= divisor
    if match["mixed"] is not None:
        value += int(match["mixed"])
    return Number(
        -value if match["sign"] and match["sign"] != "+" else value, match["percent"] is not None, _unit(unit)
    )


def _unit(text: str) -> frozenset[str]:
    words: list[str] = re.findall(r"[^\W\d_]+", re.sub(r"(?<=\b\w)\.(?=\w\b)", "", text.casefold()))
    return frozenset(_ABBREVIATIONS.get(word, word.removesuffix("s") if len(word) > 2 else word) for word in words)


def _exact(text: str) -> Fraction:
    return Fraction(text.replace(",", "").removesuffix("."))


def equal_numbers(a: Number, b: Number, *, tolerance: float) -> bool:
    """Are two numbers the same? Whole numbers exactly, others within a relative error.

    A percent sign on one side only is read both ways: 50% is 50 and 0.5. Units, where both sides have one, must not contradict each other:
    all words of one stand in the other (5 am is not 5 pm, 9 apples are 9 red apples).
    """
    if a.unit and b.unit and not (a.unit <= b.unit or b.unit <= a.unit):
        return False
    if a.is_percent != b.is_percent:
        percent, plain = (a, b) if a.is_percent else (b, a)
        return _close(percent.value, plain.value, tolerance) or _close(percent.value / 100, plain.value, tolerance)
    return _close(a.value, b.value, tolerance)


def _close(a: Fraction, b: Fraction, tolerance: float) -> bool:
    if a.denominator == 1 and b.denominator == 1:
        return a == b
    return abs(a - b) <= Fraction(tolerance) * max(abs(a), abs(b))
