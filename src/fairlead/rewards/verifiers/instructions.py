"""Instructions on form that can be checked: the 25 kinds of IFEval, written anew, strict and loose.

A prompt carries `instruction_id_list` and `kwargs`, a mapping for each id, as IFEval's files do. Each kind is a function of the reply
and its options; the tables are in instruction_words.py and instruction_forms.py.

    strict   the reply as it is
    loose    any of eight forms: without its first line, without its last, without both, each also without asterisks

Source: Zhou et al. 2023, arXiv:2311.07911.
Differs: sentences are counted by a rule instead of NLTK's model, languages told by py3langid instead of langdetect, keywords are text and no
patterns, and words in capitals are words in the sense of number_words. See docs/stages/verifiers.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.core.errors import nearest
from fairlead.core.records import Completion, Prompt
from fairlead.rewards.verifiers.config import InstructionsSection
from fairlead.rewards.verifiers.extraction import after_mark
from fairlead.rewards.verifiers.instruction_forms import FORMS
from fairlead.rewards.verifiers.instruction_words import LANGUAGE, WORDS, Instruction, known_languages
from fairlead.rewards.verifiers.references import fault

INSTRUCTIONS: Mapping[str, Instruction] = {**WORDS, **FORMS}


def loose_forms(text: str) -> list[str]:
    """The eight forms of a reply of which one must do: openings, closings and asterisks of emphasis are forgiven."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(form.replace("*", "") for form in cut)]


def follows(name: str, options: Mapping[str, Any], text: str, *, is_loose: bool) -> bool:
    """Does a reply follow one instruction? An empty reply follows none."""
    check = INSTRUCTIONS[name].check
    forms = loose_forms(text) if is_loose else [text]
    return any(bool(form.strip()) and check(form, **options) for form in forms)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionRules:
    """Follows all instructions of its prompt: 1, else 0; or the share that it follows. Stateless; picklable."""

    section: InstructionsSection
    version = "1"

    def validate(self, prompt: Prompt) -> bool:
        """Does it apply? Raises DataError for an instruction that is not known, or options that do not fit it."""
        return bool(self._read(prompt))

    def check(self, prompt: Prompt, completion: Completion) -> float:
        """A score in [0, 1]; NaN for a prompt without instructions."""
        wanted = self._read(prompt)
        if not wanted:
            return float("nan")
        text = after_mark(completion.text, self.section.after)
        if text is None:
            return 0.0
        is_loose = self.section.reading == "loose"
        followed = [follows(name, options, text, is_loose=is_loose) for name, options in wanted]
        return float(all(followed)) if self.section.score == "all" else sum(followed) / len(followed)

    def _read(self, prompt: Prompt) -> list[tuple[str, dict[str, Any]]]:
        s = self.section
        names, options = prompt.meta.get(s.ids_field), prompt.meta.get(s.kwargs_field)
        if names is None:
            return []
        if not isinstance(names, (list, tuple)) or not names:
            raise fault(prompt, s.ids_field, "is no list of instructions", expected="one or more ids")
        given: Sequence[Any] = [None] * len(names) if options is None else options
        if not isinstance(given, (list, tuple)) or len(given) != len(names):
            raise fault(prompt, s.kwargs_field, "does not fit the ids", expected=f"{len(names)} objects")
        return [(name, self._options(prompt, i, name, given[i])) for i, name in enumerate(names)]

    def _options(self, prompt: Prompt, i: int, name: object, given: object) -> dict[str, Any]:
        """Options of one instruction, checked; null is absent, as in IFEval's files."""
        place = f"{self.section.kwargs_field}[{i}]"
        if not isinstance(name, str) or name not in INSTRUCTIONS:
            wrong = f"has {name!r}, which is not known{nearest(str(name), INSTRUCTIONS)}"
            raise fault(prompt, self.section.ids_field, wrong, expected="an id of IFEval")
        if not isinstance(given, Mapping) and given is not None:
            raise fault(prompt, place, f"is no object of options for {name}", expected="an object")
        found = {key: value for key, value in (given or {}).items() if value is not None}
        wanted = INSTRUCTIONS[name].options
        for key in found.keys() - wanted.keys():
            raise fault(
                prompt,
                f"{place}.{key}",
                f"is no option of {name}{nearest(key, wanted)}",
                expected=", ".join(wanted) or "none",
            )
        for key, fits in wanted.items():
            if key not in found or not fits.accepts(found[key]):
                wrong = f"does not fit {name}" if key in found else f"is missing for {name}"
                raise fault(prompt, f"{place}.{key}", wrong, expected=fits.words)
        if name == LANGUAGE and found["language"] not in known_languages():
            raise fault(
                prompt,
                f"{place}.language",
                "is no language that is told",
                expected="one of " + ", ".join(sorted(known_languages())),
            )
        return found
