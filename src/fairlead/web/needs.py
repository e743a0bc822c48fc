"""What an item asks of its rater: a language, skills; and what a rater has. One word each, `language:de`, `skill:code`; several stand in one
text, in order, with blanks between, so that a text compares as a whole.

    file row {"language": "DE", "skills": ["code"]}               ->  "language:de skill:code"
    file row {"language": "German", "programming_language": "C++"}  ->  "language:de skill:c++"

Reading a programming language is a skill. Languages by their English names are those by their codes.

Example:
    needs_of({"language": "de", "skills": "code, maths"})    # ('language:de', 'skill:code', 'skill:maths')
    in_words("language:de skill:code")                       # 'de, code'
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.web.errors import invalid

LANGUAGE, SKILL = "language", "skill"
MAX_NEEDS = 5
"""Of one item: five of 38 characters fit the column."""
MAX_ABILITIES = 60
_WORD = re.compile(r"[^\W_][\w.+#-]{0,28}")
_CODES = {
    "arabic": "ar", "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr", "german": "de", "hindi": "hi", "indonesian": "id",
    "italian": "it", "japanese": "ja", "korean": "ko", "polish": "pl", "portuguese": "pt", "russian": "ru", "spanish": "es", "turkish": "tr",
    "ukrainian": "uk", "vietnamese": "vi",
}  # fmt: skip
"""Languages that data sets write out (HelpSteer3), so that a rater of `en` gets them."""


def needs_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """What the fields of an imported row (`core.annotations.ASKED`) ask for, in order.

    Raises:
        ValueError: they are no words, or too many.
    """
    found = {f"{LANGUAGE}:{word}" for word in _languages(meta.get("language"))}
    if len(found) > 1:
        raise ValueError("more than one language")
    found |= {
        f"{SKILL}:{word}" for word in (*_words(meta.get("skills")), *_read_as_skill(meta.get("programming_language")))
    }
    if len(found) > MAX_NEEDS:
        raise ValueError(f"more than {MAX_NEEDS} needs")
    return tuple(sorted(found))


def _words(value: Any) -> list[str]:
    """A list of words, or one text with commas between."""
    given = value.split(",") if isinstance(value, str) else [] if value is None else value
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) for each in given):
        raise ValueError("neither a word nor a list of words")
    words = [each.strip().lower() for each in given if each.strip()]
    if not all(_WORD.fullmatch(word) for word in words):
        raise ValueError("not a word of at most 29 letters, digits and . + # -")
    return words


def _languages(value: Any) -> list[str]:
    return [_CODES.get(word, word) for word in _words(value)]


def _read_as_skill(value: Any) -> list[str]:
    """The name of a programming language as one word, whatever stands in it: `Visual Basic` is visual-basic."""
    word = re.sub(r"[^\w.+#]+", "-", value.strip().lower()).strip("-._")[:29] if isinstance(value, str) else ""
    return [word] if _WORD.fullmatch(word) else []


def need_of(text: str) -> str:
    """One need as somebody types it: `code` is a skill, `language:de` says what it is.

    Raises:
        Refused: it is no word.
    """
    kind, colon, word = text.strip().partition(":")
    kind, word = (kind.lower(), word) if colon else (SKILL, kind)
    if kind not in (LANGUAGE, SKILL):
        raise invalid(f"{text[:60]} is neither a language nor a skill. Write language:de or skill:code.")
    is_language = kind == LANGUAGE
    found = abilities_from(languages=[word] if is_language else [], skills=[] if is_language else [word])
    if not found:
        raise invalid("The name of the skill is empty. Write one such as skill:code.")
    return found[0]


def abilities_from(*, languages: Iterable[str] | str, skills: Iterable[str] | str) -> tuple[str, ...]:
    """What a person has, from what a lead typed.

    Raises:
        Refused: a name is no word, or there are too many.
    """
    try:
        found = {f"{kind}:{word}" for kind, read, given in ((LANGUAGE, _languages, languages), (SKILL, _words, skills))
                 for word in read(given if isinstance(given, str) else list(given))}  # fmt: skip
    except ValueError as fault:
        raise invalid(f"A language or skill is {fault}. Write names such as en, pt-br, code, with commas between.") from fault  # fmt: skip
    if len(found) > MAX_ABILITIES:
        raise invalid(
            f"{len(found)} languages and skills are more than {MAX_ABILITIES}. Name those that items ask for."
        )
    return tuple(sorted(found))


def split(abilities: Iterable[str]) -> tuple[list[str], list[str]]:
    """Languages and skills, without what each is."""
    parts = [need.partition(":")[::2] for need in sorted(abilities)]
    return [word for kind, word in parts if kind == LANGUAGE], [word for kind, word in parts if kind == SKILL]


def in_words(needs: str) -> str:
    """As pages show it; `anything` where nothing is asked."""
    return ", ".join(need.partition(":")[2] for need in needs.split()) or "anything"
