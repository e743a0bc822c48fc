"""Is a completion's final answer the reference, as mathematics?

An answer and a reference are equal when
1. their texts are, but for case, spaces and final stops (`3:30 p.m.`, `Yes`);
2. or both are one number, and the numbers are equal (`$1,234.50`, `9 (apples)`, `-1/3`);
3. or both are formulas that Math-Verify (Hugging Face, on SymPy) finds equal.

Text goes to Math-Verify through its LaTeX grammar alone: its reader of plain expressions evaluates Python. SymPy may take forever or all
of memory on a hostile formula, so this runs in worker processes only (rewards/pool.py).
"""

import logging
import re
from typing import Any

from fairlead.rewards.verifiers.answers import AnswerVerifier
from fairlead.rewards.verifiers.config import MathSection
from fairlead.rewards.verifiers.extraction import tidy
from fairlead.rewards.verifiers.numbers import equal_numbers, read_number

_MAX_FORMULA_CHARS = 2000
"""The grammar's lookahead is worse than linear; no answer at hand is longer than 200."""
_FUNCTIONS = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "log", "exp", "sqrt",
                        "max", "min", "mod", "gcd", "lcm", "det"})  # fmt: skip
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
_TEXT_COMMAND = re.compile(r"\\(?:text|mathrm|mbox|textbf|begin|end)\s*\{[^{}]*\}")
_UNICODE = {"\u2212": "-", "\u2013": "-", "\u00d7": r"\times ", "\u00f7": r"\div ", "\u22c5": r"\cdot ", "\u03c0": r"\pi ",
            "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u00b2": "^2", "\u00b3": "^3", "**": "^"}  # fmt: skip
_ROOT = re.compile(r"(?:\u221a|(?<!\\)\bsqrt)\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\w+))")


def same_text(a: str, b: str) -> bool:
    """Equal but for case, spaces, and stops within abbreviations and at the end."""
    plain_a, plain_b = (re.sub(r"(?<=[^\d\s])\.|\.$", "", " ".join(tidy(t).casefold().split())) for t in (a, b))
    return plain_a == plain_b


def as_latex(text: str) -> str | None:
    """A formula in LaTeX; None for what has words in it or nothing to compute."""
    text = tidy(text.replace("\n", " ")).strip("$ ")
    for sign, latex in _UNICODE.items():
        text = text.replace(sign, latex)
    text = _ROOT.sub(lambda m: rf"\sqrt{{{m[1] or m[2] or m[3]}}}", text)
    bare = _TEXT_COMMAND.sub("", text)
    if not bare.strip() or len(text) > _MAX_FORMULA_CHARS:
        return None
    if any(word.lower() not in _FUNCTIONS for word in _WORD.findall(bare)):
        return None
    return text.replace("$", "")


def same_formula(reference: str, answer: str) -> bool:
    """Does Math-Verify find two LaTeX formulas equal? The order matters to it: solutions and intervals are read off the reference."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that the time limit is ours
    targets = [LatexExtractionConfig(boxed_match_priority=-1)]

    def read(latex: str) -> list[Any]:
        return parse(
            f"${latex}$", targets, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=0
        )

    gold, found = read(reference), read(answer)
    return bool(gold and found) and verify(gold, found, timeout_seconds=0)


class MathAnswer(AnswerVerifier[MathSection]):
    """1 for an answer that is mathematically a reference, 0 for another or none. Has no time limit of its own."""

    __slots__ = ()
    version = "1"

    def compare(self, answer: str, references: tuple[str, ...]) -> float:
        """0 or 1."""
        return float(any(self.equal(reference, answer) for reference in references))

    def equal(self, reference: str, answer: str) -> bool:
        """Are they the same: as text, as a number, or as a formula?"""
        if same_text(reference, answer):
            return True
        number, other = read_number(reference), read_number(answer)
        if number is not None and other is not None:
            return equal_numbers(number, other, tolerance=self.section.tolerance)
        formula, found = as_latex(reference), as_latex(answer)
        return formula is not None and found is not None and same_formula(formula, found)
