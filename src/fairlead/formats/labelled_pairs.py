"""Pairs whose better side a column names: PKU-SafeRLHF, SHP, AlpacaEval.

Each names it in its own way: an id of 0 or 1, a label that is 1 for the FIRST side, a number from 1 (first) to 2 (second).
"""

import dataclasses

from fairlead.core.io import Row
from fairlead.core.records import Messages, Preference
from fairlead.formats.base import Format, Item, Read, Unusable, Values, mostly
from fairlead.formats.comparisons import HELD_OUT, compared
from fairlead.formats.conversations import prompts_by, user
from fairlead.formats.fields import keep, number, text, whole


def _question(name: str, values: Values) -> Messages:
    return user(text(values, name))


def _pku_prompt(values: Values) -> Messages:
    return _question("prompt", values)


def _read_pku(column: str) -> Read:
    """Pairs by `better_response_id` (more helpful) or `safer_response_id` (less harmful); the two often differ."""

    def read(row: Row) -> list[Item]:
        values = row.values
        winner = whole(values.get(column))
        if winner not in (0, 1):
            raise Unusable(f"{column} is not 0 or 1")
        meta = keep(values, "better_response_id", "safer_response_id", "is_response_0_safe", "is_response_1_safe")
        pair = Preference(
            prompt=_pku_prompt(values),
            chosen=text(values, "response_0"),
            rejected=text(values, "response_1"),
            meta=meta,
        )
        return [compared(pair, "ab"[winner])]

    return read


def _history(values: Values) -> Messages:
    return _question("history", values)


def _read_shp(row: Row) -> list[Item]:
    """`labels` is 1 when A is preferred; A and B are comments on Reddit, and the one with more votes is preferred."""
    values = row.values
    label = whole(values.get("labels"))
    if label not in (0, 1):
        raise Unusable("labels is not 0 or 1")
    a, b = number(values.get("score_A")), number(values.get("score_B"))
    if a is not None and b is not None and (a < b if label else b < a):
        raise Unusable("labels contradicts the scores")
    domain, _, part = str(keep(values, "domain").get("domain", "")).rpartition("_")
    pair = Preference(
        prompt=_history(values), chosen=text(values, "human_ref_A"), rejected=text(values, "human_ref_B"), slice=domain or part or "all",
        split="heldout" if part.startswith(HELD_OUT) else "train", meta=keep(values, "post_id", "score_A", "score_B", "score_ratio", "labels"),
    )  # fmt: skip
    return [compared(pair, "ba"[label])]


def _instruction(values: Values) -> Messages:
    return _question("instruction", values)


def _read_alpaca_eval(row: Row) -> list[Item]:
    """`preference` runs from 1 (first) to 2 (second); judges with probabilities give values between, 1.5 and 0 are ties."""
    values = row.values
    preference = number(values.get("preference"))
    if preference is None or not (preference == 0 or 1 <= preference <= 2):
        raise Unusable("preference is not from 1 to 2")
    p_second = preference - 1 if preference else 0.5
    meta = keep(values, "generator_1", "generator_2", "annotator", "dataset", "preference")
    pair = Preference(
        prompt=_instruction(values),
        chosen=text(values, "output_1"),
        rejected=text(values, "output_2"),
        num_votes=1,
        meta=meta,
    )
    found = compared(pair, "tie" if p_second == 0.5 else "b" if p_second > 0.5 else "a")
    return [dataclasses.replace(found, p_chosen=max(p_second, 1 - p_second), id="")]


def _is_pku(values: Values) -> bool:
    return {"prompt", "response_0", "response_1", "better_response_id"} <= set(values)


PKU_SAFERLHF = Format(
    name="pku_saferlhf", kind="preferences", detect=mostly(_is_pku), read=_read_pku("better_response_id"), also={"prompts": prompts_by(_pku_prompt)},
    doc="PKU-SafeRLHF by helpfulness: `response_0`, `response_1`, `better_response_id`; the safer side stays in `meta`.",
)  # fmt: skip
PKU_SAFERLHF_SAFER = Format(
    name="pku_saferlhf_safer", kind="preferences", detect=lambda rows: False, read=_read_pku("safer_response_id"),
    also={"prompts": prompts_by(_pku_prompt)}, is_named_only=True,
    doc="PKU-SafeRLHF by harmlessness, `safer_response_id`. The same files as pku_saferlhf, so it must be named.",
)  # fmt: skip
SHP = Format(
    name="shp", kind="preferences", detect=mostly(lambda v: {"history", "human_ref_A", "human_ref_B", "labels"} <= set(v)), read=_read_shp,
    also={"prompts": prompts_by(_history)},
    doc="Stanford Human Preferences: `history`, `human_ref_A`, `human_ref_B`, `labels` 1 for A, 0 for B; the domain is the slice.",
)  # fmt: skip
ALPACA_EVAL = Format(
    name="alpaca_eval", kind="preferences", detect=mostly(lambda v: {"instruction", "output_1", "output_2", "preference"} <= set(v)),
    read=_read_alpaca_eval, also={"prompts": prompts_by(_instruction)},
    doc="AlpacaEval annotations: `output_1`, `output_2`, `preference` from 1 (first) to 2 (second), read as a probability.",
)  # fmt: skip
