"""A calculator that reads arithmetic and nothing else: a parser of its own, exact fractions, bounds on every number.

    sum      = product (("+" | "-") product)*
    product  = sign (("*" | "/" | "//" | "%") sign)*
    sign     = ("-" | "+") sign | power
    power    = atom ("**" sign)?                          binds from the right and before a sign on its left, as in Python
    atom     = NUMBER | "(" sum ")"

Example:
    calculate("2 * (3 + 4.5)")       # "15"
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from fairlead.core.protocols import Observation, Turn
from fairlead.core.tool_section import CalculatorSection
from fairlead.rewards.environments.calls import ToolError, answer_calls

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|(\*\*|//|[-+*/%()]))")
# What models write for the signs.
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "^": "**"})
_MAX_CHARS = 500
_MAX_DEPTH = 50
_MAX_BITS = 4096
"""Of numerator and denominator: about 1,200 digits, so that no call takes long or fills memory."""
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Calculator:
    """Answers the turns that call it. Stateless; picklable."""

    section: CalculatorSection

    def answer(self, turn: Turn) -> Observation | None:
        """The results of all calls of the turn; None when there is none."""
        return answer_calls(turn.text, self.section.tag, calculate)


def calculate(text: str) -> str:
    """The value of an expression: a whole number exactly, another to 12 significant digits.

    Raises:
        ToolError: no arithmetic, a division by zero, or a number that is too large.
    """
    if len(text) > _MAX_CHARS:
        raise ToolError(f"longer than {_MAX_CHARS} characters")
    return _written(_Parser(_tokens(text.translate(_SIGNS))).whole())


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    place, text = 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ToolError(f"cannot read {text[place:].strip()[:20]!r}")
        found.append(match[1] or match[2])
        place = match.end()
    return found


def _written(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    try:
        return f"{float(value):.{_DIGITS}g}"
    except OverflowError:  # a fraction beyond 1e308; its whole part is exact
        return str(int(value))


class _Parser:
    """Recursive descent over the tokens of one expression. Single-use."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.place, self.depth = tokens, 0, 0

    def whole(self) -> Fraction:
        value = self._sum()
        if self.place < len(self.tokens):
            raise ToolError(f"unexpected {self.tokens[self.place]!r}")
        return value

    def _next(self, *wanted: str) -> str:
        """Take the next token if it is one of these; else empty."""
        if self.place < len(self.tokens) and self.tokens[self.place] in wanted:
            self.place += 1
            return self.tokens[self.place - 1]
        return ""

    def _sum(self) -> Fraction:
        value = self._product()
        while sign := self._next("+", "-"):
            other = self._product()
            value = _bounded(value + other if sign == "+" else value - other)
        return value

    def _product(self) -> Fraction:
        value = self._sign()
        while sign := self._next("*", "/", "//", "%"):
            other = self._sign()
            if sign == "*":
                value = _bounded(value * other)
            elif other == 0:
                raise ToolError("division by zero")
            else:
                value = _bounded(
                    value / other if sign == "/" else Fraction(value // other) if sign == "//" else value % other
                )
        return value

    def _sign(self) -> Fraction:
        if sign := self._next("-", "+"):
            self._deeper()
            value = self._sign()
            self.depth -= 1
            return -value if sign == "-" else value
        return self._power()

    def _power(self) -> Fraction:
        base = self._atom()
        if not self._next("**"):
            return base
        self._deeper()
        exponent = self._sign()
        self.depth -= 1
        return _power(base, exponent)

    def _atom(self) -> Fraction:
        if self._next("("):
            self._deeper()
            value = self._sum()
            self.depth -= 1
            if not self._next(")"):
                raise ToolError("a parenthesis is not closed")
            return value
        if self.place == len(self.tokens):
            raise ToolError("the expression ends too early" if self.tokens else "nothing to compute")
        token = self.tokens[self.place]
        if not (token[0].isdigit() or token[0] == "."):
            raise ToolError(f"unexpected {token!r}")
        self.place += 1
        return _bounded(Fraction(token))

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise ToolError(f"nested deeper than {_MAX_DEPTH}")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ToolError("exponents must be whole numbers")
    if base == 0 and exponent < 0:
        raise ToolError("division by zero")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base != 0 and (size - 1) * abs(exponent.numerator) > _MAX_BITS:  # before it is computed
        raise ToolError("the result is too large")
    if abs(base) == 1 or base == 0:  # whatever the size of the exponent
        return Fraction(1) if exponent == 0 or base == 1 or (base == -1 and exponent.numerator % 2 == 0) else base
    return _bounded(base**exponent.numerator)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise ToolError("the result is too large")
    return value
