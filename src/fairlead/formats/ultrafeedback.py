"""UltraFeedback: the raw ratings, and the two binarised versions that people train on.

Trap: in the raw file `overall_score` 10 often stands for a 1 that was parsed wrongly (2,628 completions, UltraFeedback issue 8).
So completions are ordered by the mean of the aspect ratings, and a 10 that those ratings do not support is flagged.
"""

import hashlib
from typing import Any

from fairlead.core.io import Row
from fairlead.core.records import Messages, Preference
from fairlead.formats.base import Format, Item, LeftOut, Pairing, Unusable, Values, mostly
from fairlead.formats.conversations import assistant, checked, prompts_by, tied, user
from fairlead.formats.fields import has_text, items, keep, mapping, number, text
from fairlead.formats.ranking import Candidate, ranked_preferences
from fairlead.formats.trl import optional_number, score_fields, sides_of, sides_stand_alone, to_message

_SUPPORTS_TEN = 4.0
"""Mean aspect rating (1 to 5) above which the maintainers' own repair believes an overall score of 10."""


def _instruction(values: Values) -> Messages:
    return user(text(values, "instruction"))


def _read_raw(row: Row, *, pairs: Pairing = "best_vs_each") -> list[Item]:
    prompt = _instruction(row.values)
    completions = items(row.values, "completions")
    has_ratings = any(isinstance(value, dict) and _mean_rating(value) is not None for value in completions)
    candidates: list[Candidate] = []
    left_out: list[Item] = []
    for value in completions:
        try:
            candidates.append(_candidate(mapping(value, "completions"), has_ratings=has_ratings))
        except Unusable as fault:
            left_out.append(LeftOut(reason=f"completion: {fault}"))
    return ranked_preferences(prompt, candidates, pairs=pairs) + left_out


def _mean_rating(completion: Values) -> float | None:
    """Mean of the aspect ratings, 1 to 5; `fine-grained_score` is the same number, for copies without the annotations."""
    ratings = aspect_ratings(completion)
    return sum(ratings.values()) / len(ratings) if ratings else number(completion.get("fine-grained_score"))


def _candidate(completion: Values, *, has_ratings: bool) -> Candidate:
    """Scored by its mean rating; by the overall score, which runs to 10, only where no completion of the prompt has ratings."""
    average, overall = _mean_rating(completion), number(completion.get("overall_score"))
    score = average if has_ratings else overall
    if score is None:
        raise Unusable("no rating")
    meta = aspect_ratings(completion) | keep(completion, "model") | {"score": score}
    if overall == 10 and (average is None or average <= _SUPPORTS_TEN):
        meta["suspect_overall_score"] = True
    return Candidate(text=text(completion, "response"), score=score, meta=meta)


def aspect_ratings(completion: Values) -> dict[str, float]:
    """Ratings by aspect. They are text ("4"), and "N/A" where the judge gave none; such an aspect does not count."""
    annotations = completion.get("annotations")
    if not isinstance(annotations, dict):
        return {}
    found: dict[str, float] = {}
    for aspect, value in annotations.items():
        first = value[0] if isinstance(value, list) and value else value
        rating = number(first.get("Rating")) if isinstance(first, dict) else None
        if rating is not None:
            found[str(aspect)] = rating
    return found


def _read_h4(row: Row) -> list[Item]:
    values = row.values
    prompt, chosen, rejected = sides_of(values)
    better, worse = score_fields(values) or ("score_chosen", "score_rejected")
    meta = keep(values, "prompt_id", better, worse)
    margin = optional_number(values, "margin", 0.0)
    return [
        scored(
            Preference(prompt=prompt, chosen=chosen, rejected=rejected, margin=margin, meta=meta), values, better, worse
        )
    ]


def scored(preference: Preference, values: Values, chosen: str, rejected: str) -> Preference:
    """Check a pair against its two scores: equal scores make it a tie, scores the other way round make it unusable."""
    better, worse = number(values.get(chosen)), number(values.get(rejected))
    if better is not None and worse is not None and better < worse:
        raise Unusable("chosen has the lower score")
    return tied(checked(preference)) if better is not None and better == worse else checked(preference)


def _write_h4(preference: Preference) -> dict[str, Any]:
    conversation = [to_message(m) for m in preference.prompt]
    chosen = [*conversation, to_message(assistant(preference.chosen))]
    question = preference.prompt[-1].content
    better, worse = _scores(preference)
    return {
        "prompt": question,
        "prompt_id": hashlib.sha256(question.encode()).hexdigest(),
        "chosen": chosen,
        "rejected": [*conversation, to_message(assistant(preference.rejected))],
        "messages": chosen,
        "score_chosen": better,
        "score_rejected": worse,
    }


def _scores(preference: Preference) -> tuple[float, float]:
    """The scores that the pair came with, or else the probabilities that each side is the better one."""
    names = score_fields(preference.meta) or ("score_chosen", "score_rejected")
    better, worse = (number(preference.meta.get(name)) for name in names)
    if better is not None and worse is not None and (better == worse if preference.is_tie else better > worse):
        return better, worse
    if preference.p_chosen == 0.5 and not preference.is_tie:
        raise Unusable("equal scores would make it a tie")
    return (0.5, 0.5) if preference.is_tie else (preference.p_chosen, 1 - preference.p_chosen)


def _read_argilla(row: Row) -> list[Item]:
    values = row.values
    pair = Preference(
        prompt=_instruction(values), chosen=text(values, "chosen_response"), rejected=text(values, "rejected_response"),
        meta=keep(values, "chosen_avg_rating", "rejected_avg_rating", "chosen_model") | _origin(values),
    )  # fmt: skip
    return [scored(pair, values, "chosen_avg_rating", "rejected_avg_rating")]


def _origin(values: Values) -> dict[str, Any]:
    return {"origin": values["source"]} if keep(values, "source") else {}


def _is_raw(values: Values) -> bool:
    completions = values.get("completions")
    return (
        has_text(values, "instruction")
        and isinstance(completions, list)
        and bool(completions)
        and isinstance(completions[0], dict)
    )


def _is_h4(values: Values) -> bool:
    is_scored = {"chosen", "rejected"} <= set(values) and score_fields(values) is not None
    return is_scored and "schema" not in values and not sides_stand_alone(values)


ULTRAFEEDBACK = Format(
    name="ultrafeedback", kind="preferences", detect=mostly(_is_raw), read=_read_raw,
    also={"prompts": prompts_by(_instruction)}, pairings=("best_vs_each", "best_vs_worst", "adjacent", "all"),
    doc="UltraFeedback raw: `instruction` and `completions` with `annotations.<aspect>.Rating`. Ordered by the mean rating; N/A does not count.",
)  # fmt: skip
ULTRAFEEDBACK_BINARIZED = Format(
    name="ultrafeedback_binarized", kind="preferences", detect=mostly(_is_h4), read=_read_h4, write=_write_h4,
    doc="H4 binarized: `chosen` and `rejected` conversations with `score_chosen` and `score_rejected`; equal scores are ties.",
)  # fmt: skip
ARGILLA_BINARIZED = Format(
    name="argilla_binarized", kind="preferences", detect=mostly(lambda v: {"chosen_response", "rejected_response"} <= set(v)),
    read=_read_argilla, also={"prompts": prompts_by(_instruction)},
    doc="argilla/ultrafeedback-binarized-preferences: `instruction`, `chosen_response`, `rejected_response` and average ratings.",
)  # fmt: skip
