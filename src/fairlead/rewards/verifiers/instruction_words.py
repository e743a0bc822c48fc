"""Instructions on words, letters, length and language, and the options that instructions take."""

import functools
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LANGUAGE = "language:response_language"
RELATIONS: Mapping[str, Callable[[int, int], bool]] = {"less than": operator.lt, "at least": operator.ge}
_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]*_]*(?=\s|$)|[\u3002\uff01\uff1f]")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|No|Fig|approx|Inc|Ltd)|\b[A-Z]|^\s*\d+)\.$", re.MULTILINE
)
_MIN_LETTERS = 20
"""Shorter texts have no language that could be told: "OK." is followed as English."""


@dataclass(frozen=True, slots=True)
class Option:
    """What an option of an instruction may be."""

    words: str
    accepts: Callable[[object], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One kind: does a reply that is not empty follow it?"""

    check: Callable[..., bool]
    """(text, **options) -> bool."""
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])
    """All are required."""


NUMBER = Option("a whole number >= 0", lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0)
POSITIVE = Option("a whole number >= 1", lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1)
TEXT = Option("text", lambda v: isinstance(v, str) and bool(v.strip()))
TEXTS = Option(
    "a list of texts",
    lambda v: isinstance(v, (list, tuple)) and len(v) > 0 and all(isinstance(t, str) and t.strip() for t in v),
)
LETTER = Option("one character", lambda v: isinstance(v, str) and len(v) == 1)
RELATION = Option("less than, or at least", lambda v: v in RELATIONS)


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores."""
    return _WORD.findall(text)


def count_sentences(text: str) -> int:
    """Sentence ends (. ! ? ... and their East Asian forms) that no abbreviation, initial or number of a list is; text after the last is one more."""
    ends = [
        m
        for m in _SENTENCE_END.finditer(text)
        if not (m[0] == "." and _ABBREVIATION.search(text[max(0, m.start() - 10) : m.end()]))
    ]
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(_WORD.search(rest))


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


@functools.cache
def known_languages() -> frozenset[str]:
    """Codes that can be asked for: those of py3langid, and the two of Chinese that IFEval has."""
    return frozenset(_identifier().labels) | {"zh-cn", "zh-tw"}


def tell_language(text: str) -> str:
    """ISO 639-1 code of the most likely language."""
    return str(_identifier().classify(text)[0])


def is_english(text: str) -> bool:
    """Told on lower case, for capitals look foreign to the model."""
    return sum(c.isalpha() for c in text) < _MIN_LETTERS or tell_language(text.lower()) == "en"


def _is_language(text: str, *, language: str) -> bool:
    return tell_language(text) == language.partition("-")[0]


def _holds(text: str, word: str) -> bool:
    return word.casefold() in text.casefold()


def _all_keywords(text: str, *, keywords: Sequence[str]) -> bool:
    return all(_holds(text, word) for word in keywords)


def _keyword_count(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return RELATIONS[relation](text.casefold().count(keyword.strip().casefold()), frequency)


def _no_forbidden(text: str, *, forbidden_words: Sequence[str]) -> bool:
    return not any(
        re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE) for word in forbidden_words
    )


def _letter_count(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return RELATIONS[let_relation](text.casefold().count(letter.casefold()), let_frequency)


def _sentence_count(text: str, *, num_sentences: int, relation: str) -> bool:
    return RELATIONS[relation](count_sentences(text), num_sentences)


def _word_count(text: str, *, num_words: int, relation: str) -> bool:
    return RELATIONS[relation](len(words(text)), num_words)


def _paragraph_count(text: str, *, num_paragraphs: int) -> bool:
    """Paragraphs stand between ***; empty ones at the ends do not count, an empty one inside breaks the form."""
    parts = [part.strip() for part in text.split("***")]
    inner = parts[(not parts[0]) : len(parts) - (not parts[-1])]
    return all(inner) and len(inner) == num_paragraphs


def _first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs stand between empty lines."""
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(parts) != num_paragraphs or nth_paragraph > len(parts):
        return False
    found = re.match(r"[\"'\u201c\u2018(*]*([^\s.,?!'\"\u201d\u2019)*]+)", parts[nth_paragraph - 1])
    return found is not None and found[1].casefold() == first_word.strip().casefold()


def _capital_words(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    return RELATIONS[capital_relation](sum(word.isupper() for word in words(text)), capital_frequency)


WORDS: Mapping[str, Instruction] = {
    "keywords:existence": Instruction(check=_all_keywords, options={"keywords": TEXTS}),
    "keywords:frequency": Instruction(
        check=_keyword_count, options={"keyword": TEXT, "frequency": NUMBER, "relation": RELATION}
    ),
    "keywords:forbidden_words": Instruction(check=_no_forbidden, options={"forbidden_words": TEXTS}),
    "keywords:letter_frequency": Instruction(
        check=_letter_count, options={"letter": LETTER, "let_frequency": NUMBER, "let_relation": RELATION}
    ),
    LANGUAGE: Instruction(check=_is_language, options={"language": TEXT}),
    "length_constraints:number_sentences": Instruction(
        check=_sentence_count, options={"num_sentences": NUMBER, "relation": RELATION}
    ),
    "length_constraints:number_paragraphs": Instruction(check=_paragraph_count, options={"num_paragraphs": POSITIVE}),
    "length_constraints:number_words": Instruction(
        check=_word_count, options={"num_words": NUMBER, "relation": RELATION}
    ),
    "length_constraints:nth_paragraph_first_word": Instruction(
        check=_first_word, options={"num_paragraphs": POSITIVE, "nth_paragraph": POSITIVE, "first_word": TEXT}
    ),
    "change_case:capital_word_frequency": Instruction(
        check=_capital_words, options={"capital_frequency": NUMBER, "capital_relation": RELATION}
    ),
    "change_case:english_capital": Instruction(check=lambda text: text.isupper() and is_english(text)),
    "change_case:english_lowercase": Instruction(check=lambda text: text.islower() and is_english(text)),
}
