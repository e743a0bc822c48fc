"""Instructions on the form of a reply: lists, sections, titles, JSON, how it starts and ends, punctuation."""

import json
import re
from collections.abc import Mapping

from fairlead.rewards.verifiers.instruction_words import NUMBER, POSITIVE, TEXT, Instruction

CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_STAR_BULLET = re.compile(r"^\s*\*[^*\n].*$", re.MULTILINE)
_DASH_BULLET = re.compile(r"^\s*-.*$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*[^*\n]*\S[^*\n]*\*\*|(?<!\*)\*[^*\n]*[^*\s][^*\n]*\*(?!\*)")
_TITLE = re.compile(r"<<[^\n<>]*[^\s<>][^\n<>]*>>")
_PLACEHOLDER = re.compile(r"\[[^\[\]]+\]")
_FENCE = re.compile(r"```(?:json)?", re.IGNORECASE)


def _placeholders(text: str, *, num_placeholders: int) -> bool:
    return len(_PLACEHOLDER.findall(text)) >= num_placeholders


def _postscript(text: str, *, postscript_marker: str) -> bool:
    """P.S. and P.P.S with any spaces between their letters; another marker as it is."""
    letters = postscript_marker.strip().upper().replace(".", "").replace(" ", "")
    if letters in ("PS", "PPS"):
        return re.search(r"(?<!\w)" + r"\.\s?".join(letters) + r"\b", text, re.IGNORECASE) is not None
    return postscript_marker.strip().casefold() in text.casefold()


def _bullets(text: str, *, num_bullets: int) -> bool:
    return len(_STAR_BULLET.findall(text)) + len(_DASH_BULLET.findall(text)) == num_bullets


def _constrained(text: str) -> bool:
    return any(choice in text for choice in CONSTRAINED)


def _highlights(text: str, *, num_highlights: int) -> bool:
    return len(_HIGHLIGHT.findall(text)) >= num_highlights


def _sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """Sections are opened by the word and a number."""
    return len(re.findall(rf"(?<!\w){re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def _json(text: str) -> bool:
    text = text.strip()
    if fence := _FENCE.match(text):
        text = text[fence.end() :]
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return _TITLE.search(text) is not None


def _two_responses(text: str) -> bool:
    """Two replies that differ, between six asterisks; empty parts only at the ends."""
    parts = [part.strip() for part in text.split("******")]
    inner = parts[(not parts[0]) : len(parts) - (not parts[-1])]
    return len(inner) == 2 and all(inner) and inner[0] != inner[1]


def _repeats(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().casefold().startswith(prompt_to_repeat.strip().casefold())


def _ends_with(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').casefold().endswith(end_phrase.strip().casefold())


def _is_quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


FORMS: Mapping[str, Instruction] = {
    "detectable_content:number_placeholders": Instruction(check=_placeholders, options={"num_placeholders": NUMBER}),
    "detectable_content:postscript": Instruction(check=_postscript, options={"postscript_marker": TEXT}),
    "detectable_format:number_bullet_lists": Instruction(check=_bullets, options={"num_bullets": NUMBER}),
    "detectable_format:constrained_response": Instruction(check=_constrained),
    "detectable_format:number_highlighted_sections": Instruction(check=_highlights, options={"num_highlights": NUMBER}),
    "detectable_format:multiple_sections": Instruction(
        check=_sections, options={"section_spliter": TEXT, "num_sections": POSITIVE}
    ),
    "detectable_format:json_format": Instruction(check=_json),
    "detectable_format:title": Instruction(check=_title),
    "combination:two_responses": Instruction(check=_two_responses),
    "combination:repeat_prompt": Instruction(check=_repeats, options={"prompt_to_repeat": TEXT}),
    "startend:end_checker": Instruction(check=_ends_with, options={"end_phrase": TEXT}),
    "startend:quotation": Instruction(check=_is_quoted),
    "punctuation:no_comma": Instruction(check=lambda text: "," not in text),
}
