"""HelpSteer2 (attributes and preferences) and HelpSteer3 (preferences).

Strengths run from -3 (the first response is much better) to 3. They stay in `meta`: a strength is not a probability, and how
far it should move the loss is for the recipe to say. Votes of single raters become `num_votes` and `agreement`.
"""

import re
from collections.abc import Hashable, Sequence
from typing import Any

from fairlead.core.annotations import inclusion_in
from fairlead.core.io import Row
from fairlead.core.records import Message, Messages, Preference
from fairlead.formats.base import Format, Item, LeftOut, Neighbours, Unusable, Values, mostly
from fairlead.formats.comparisons import compared, split_of
from fairlead.formats.conversations import prompts_by, user
from fairlead.formats.fields import items, keep, messages, text, whole
from fairlead.formats.ranking import NO_SECOND

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
CODE = "code"
"""The domain of HelpSteer3 whose `language` is a programming language."""
PROGRAMMING_LANGUAGES = frozenset({
    "assembly", "bash", "c", "c#", "c++", "clojure", "css", "dart", "elixir", "erlang", "f#", "fortran", "go", "haskell", "html", "java",
    "javascript", "julia", "kotlin", "lua", "matlab", "objective-c", "ocaml", "perl", "php", "powershell", "prolog", "python", "r", "ruby",
    "rust", "scala", "scheme", "shell", "solidity", "sql", "swift", "typescript", "verilog", "vhdl", "zig",
})  # fmt: skip
"""Skills that are written as the language of a code row."""
_SPEAKER = re.compile(r"\n<extra_id_1>(User|Assistant)\n")


def parse_prompt(value: str) -> Messages:
    """Split a HelpSteer2 prompt, whose later turns are marked by `<extra_id_1>User` and `<extra_id_1>Assistant` lines."""
    first, *rest = _SPEAKER.split(value)
    later = zip(rest[::2], rest[1::2], strict=True)
    return (
        *user(first),
        *(Message(role="user" if name == "User" else "assistant", content=turn) for name, turn in later),
    )


def prompt_of(values: Values) -> Messages:
    """The prompt of a HelpSteer2 row."""
    return parse_prompt(text(values, "prompt"))


def _context(values: Values) -> Messages:
    return messages(items(values, "context"), "context")


def _key(row: Row) -> Hashable:
    prompt = row.values.get("prompt")
    return prompt if isinstance(prompt, str) else row.number


def _read_alone(row: Row) -> list[Item]:
    return [LeftOut(reason=NO_SECOND, is_fault=False)]


def _read_attribute_rows(rows: Sequence[Row]) -> list[Item]:
    """Pair each two of the rows that follow each other with one prompt by their helpfulness; equal helpfulness is a tie."""
    found: list[Item] = []
    rated: list[tuple[Row, Messages, str, int]] = []
    for row in rows:
        try:
            rated.append((row, prompt_of(row.values), text(row.values, "response"), _helpfulness(row.values)))
        except Unusable as fault:
            found.append(LeftOut(reason=str(fault), row=row))
    while len(rated) >= 2:
        (row_a, prompt, a, score_a), (row_b, _, b, score_b), *rated = rated
        attributes = {f"a_{k}": v for k, v in keep(row_a.values, *ATTRIBUTES).items()} | {
            f"b_{k}": v for k, v in keep(row_b.values, *ATTRIBUTES).items()
        }
        attributes |= inclusion_in(row_a.values)
        winner = "tie" if score_a == score_b else "a" if score_a > score_b else "b"
        try:
            found.append(
                compared(Preference(prompt=prompt, chosen=a, rejected=b, meta=attributes | {"winner": winner}), winner)
            )
        except Unusable as fault:
            found += [LeftOut(reason=str(fault), row=row) for row in (row_a, row_b)]
    return found + [LeftOut(reason=NO_SECOND, is_fault=False, row=row) for row, *_ in rated]


def _helpfulness(values: Values) -> int:
    score = whole(values.get("helpfulness"))
    if score is None:
        raise Unusable("helpfulness is not a whole number")
    return score


def strength_winner(value: Any, name: str) -> tuple[str, int]:
    """Translate a strength from -3 to 3: negative means that the first response is better."""
    strength = whole(value)
    if strength is None or not -3 <= strength <= 3:
        raise Unusable(f"{name} is not from -3 to 3")
    return ("tie" if strength == 0 else "a" if strength < 0 else "b"), strength


def vote_figures(votes: list[int]) -> tuple[int, float | None]:
    """Number of votes and the share of the most frequent direction (first, tie, second); None without votes."""
    if not votes:
        return 0, None
    directions = [(vote > 0) - (vote < 0) for vote in votes]
    return len(votes), max(directions.count(d) for d in (-1, 0, 1)) / len(votes)


def _votes(values: Values, name: str, score: str) -> list[int]:
    entries = values.get(name)
    if not isinstance(entries, (list, tuple)):
        return []
    found = (whole(entry.get(score)) for entry in entries if isinstance(entry, dict))
    return [vote for vote in found if vote is not None]


def _read_strength(row: Row) -> list[Item]:
    values = row.values
    winner, strength = strength_winner(values.get("preference_strength"), "preference_strength")
    votes = _votes(values, "all_preferences_unprocessed", "strength")
    num_votes, agreement = vote_figures(votes)
    pair = Preference(
        prompt=prompt_of(values), chosen=text(values, "response_1"), rejected=text(values, "response_2"),
        num_votes=num_votes, agreement=agreement, split=split_of(values), meta={"strength": strength, "votes": votes},
    )  # fmt: skip
    return [compared(pair, winner)]


def _read_helpsteer3(row: Row) -> list[Item]:
    values = row.values
    winner, strength = strength_winner(values.get("overall_preference"), "overall_preference")
    votes = _votes(values, "individual_preference", "score")
    num_votes, agreement = vote_figures(votes)
    pair = Preference(
        prompt=_context(values), chosen=text(values, "response1"), rejected=text(values, "response2"), num_votes=num_votes, agreement=agreement,
        slice=_slice(values), split=split_of(values), meta={"strength": strength, "votes": votes, **_subject(values)},
    )  # fmt: skip
    return [compared(pair, winner)]


def _subject(values: Values) -> dict[str, Any]:
    """Domain and language; of code rows the field `language` is that of the program, not one that people speak."""
    found = keep(values, "domain", "language")
    if found.get("domain") == CODE and "language" in found:
        found["programming_language"] = found.pop("language")
    return found


def _slice(values: Values) -> str:
    return str(keep(values, "domain").get("domain") or "all")


def _write_helpsteer3(preference: Preference) -> dict[str, Any]:
    """The chosen completion is `response1`. Strengths of the raters are turned to that frame; without any, the probability gives one:
    up to 2/3 slightly, up to 5/6 better, above it much better."""
    strength, votes = _strengths(preference)
    domain, language = _domain_and_language(preference)
    return {
        "domain": domain, "language": language,
        "context": [{"role": m.role, "content": m.content} for m in preference.prompt],
        "response1": preference.chosen, "response2": preference.rejected, "overall_preference": strength,
        "individual_preference": [{"score": vote, "reasoning": "", "feedback1": "", "feedback2": ""} for vote in votes],
    }  # fmt: skip


def _domain_and_language(preference: Preference) -> tuple[str, str]:
    """The inverse of `_subject`: a row with a programming language, be it named as a skill, is one of code."""
    meta = preference.meta
    program = str(meta.get("programming_language") or "")
    known = [word for word in _words(meta.get("skills")) if word.lower() in PROGRAMMING_LANGUAGES]
    if not program and len(known) == 1:
        program = known[0]
    if program:
        return CODE, program
    return str(meta.get("domain") or preference.slice), ", ".join(_words(meta.get("language")))


def _words(value: Any) -> list[str]:
    """A text with commas between words, or a list of them."""
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ()
    return [word.strip() for word in given if isinstance(word, str) and word.strip()]


def _strengths(preference: Preference) -> tuple[int, list[int]]:
    """Of the pair and of its raters, negative where the chosen completion, which stands first, is better; see `_write_helpsteer3`."""
    votes = [
        int(vote) for vote in preference.meta.get("votes", ()) if isinstance(vote, (int, float)) and -3 <= vote <= 3
    ]
    given = whole(preference.meta.get("strength"))
    by_probability = 1 + (preference.p_chosen > 2 / 3) + (preference.p_chosen > 5 / 6)
    strength = 0 if preference.is_tie else abs(given) if given else by_probability
    return -strength, [-vote for vote in votes] if (given or 0) > 0 else votes


def join_prompt(prompt: Messages) -> str:
    """The inverse of `parse_prompt`.

    Raises:
        Unusable: it does not begin with the user, a turn is of another speaker, or a text holds the mark itself.
    """
    first, *rest = prompt
    names = {"user": "User", "assistant": "Assistant"}
    if first.role != "user" or any(turn.role not in names for turn in rest):
        raise Unusable("prompt has turns that helpsteer2 does not know")
    if any("<extra_id_1>" in turn.content for turn in prompt):
        raise Unusable("a text holds the mark of a turn")
    return first.content + "".join(f"\n<extra_id_1>{names[turn.role]}\n{turn.content}" for turn in rest)


def _write_helpsteer2(preference: Preference) -> dict[str, Any]:
    """The chosen completion is `response_1`; the data set has no ties."""
    strength, votes = _strengths(preference)
    if strength == 0:
        raise Unusable("helpsteer2 has no ties")
    return {
        "split": "train" if preference.split == "train" else "validation", "prompt": join_prompt(preference.prompt),
        "response_1": preference.chosen, "response_2": preference.rejected, "preference_strength": strength, "preference_statement": "",
        "preference_elaboration": "", "three_most_similar_preferences": [],
        "all_preferences_unprocessed": [{"strength": vote, "justification": "", "elaboration": ""} for vote in votes],
    }  # fmt: skip


HELPSTEER2 = Format(
    name="helpsteer2", kind="preferences", detect=mostly(lambda v: {"prompt", "response", "helpfulness"} <= set(v)),
    read=_read_alone, also={"prompts": prompts_by(prompt_of)},
    neighbours=Neighbours(kind="preferences", key=_key, read=_read_attribute_rows),
    doc="HelpSteer2: rows of `prompt`, `response` and five attributes; two rows that follow each other with one prompt are a pair by helpfulness.",
)  # fmt: skip
HELPSTEER2_PREFERENCE = Format(
    name="helpsteer2_preference", kind="preferences",
    detect=mostly(lambda v: {"prompt", "response_1", "response_2", "preference_strength"} <= set(v)),
    read=_read_strength, write=_write_helpsteer2, also={"prompts": prompts_by(prompt_of)},
    doc="HelpSteer2 preference: `response_1`, `response_2`, `preference_strength` from -3 (first) to 3 (second), 0 a tie.",
)  # fmt: skip
HELPSTEER3 = Format(
    name="helpsteer3", kind="preferences",
    detect=mostly(lambda v: {"context", "response1", "response2", "overall_preference"} <= set(v)),
    read=_read_helpsteer3, write=_write_helpsteer3, also={"prompts": prompts_by(_context)},
    doc="HelpSteer3: `context`, `response1`, `response2`, `overall_preference` from -3 (first) to 3 (second), 0 a tie; single votes are kept.",
)  # fmt: skip
