"""What stands behind a preference, as columns beside those of another program's format.

Programs ignore columns that they do not know, so the votes, the posterior and the origin of a pair need not be lost on the way: on
reading back they are restored, field by field. Files for fine-tuning services, which refuse unknown keys, get them in a file beside.
"""

import dataclasses
from typing import Any

from fairlead.core.annotations import inclusion_in
from fairlead.core.errors import DataError
from fairlead.core.io import dump_json, parse_json
from fairlead.core.records import Preference, from_dict, to_dict
from fairlead.formats.base import Unusable, Values

COLUMNS = ("n_votes", "p_chosen", "agreement", "margin", "weight", "provenance")
_KEPT = ("is_tie", "prompt_id", "chosen_id", "rejected_id", "judgments", "slice", "source", "split", "meta")
_WRITER = "fairlead"


def provenance_columns(preference: Preference) -> dict[str, Any]:
    """The columns of one pair, with those of how it came in where it was chosen; `provenance` is JSON as text, so that it survives tables."""
    kept = to_dict(preference)
    origin = {"writer": _WRITER, "id": preference.id} | {name: kept[name] for name in _KEPT}
    return {"n_votes": preference.num_votes, "p_chosen": preference.p_chosen, "agreement": preference.agreement, "margin": preference.margin,
            "weight": preference.weight, **inclusion_in(preference.meta), "provenance": dump_json(origin)}  # fmt: skip


def is_ours(values: Values) -> bool:
    """Does a row carry our columns?"""
    raw = values.get("provenance")
    return isinstance(raw, str) and f'"writer": "{_WRITER}"' in raw and {"n_votes", "p_chosen"} <= set(values)


def restored(preference: Preference, values: Values) -> Preference:
    """The pair as it was before it was written; the pair itself where the row does not come from us.

    Raises:
        Unusable: the columns were changed to something that they cannot be.
    """
    if not is_ours(values):
        return preference
    try:
        origin = parse_json(values["provenance"], "provenance")
        known = {name: origin[name] for name in _KEPT if name in origin}
        figures = {"num_votes": values.get("n_votes"), "p_chosen": values.get("p_chosen"), "agreement": values.get("agreement"),
                   "margin": values.get("margin"), "weight": values.get("weight")}  # fmt: skip
        sides = {"prompt": to_dict(preference)["prompt"], "chosen": preference.chosen, "rejected": preference.rejected}
        present = {name: value for name, value in figures.items() if value is not None or name == "agreement"}
        found = from_dict(Preference, {**sides, **present, **known}, where="row")
    except (DataError, TypeError, ValueError) as error:
        raise Unusable("provenance does not fit a preference") from error
    if not 0.5 <= found.p_chosen <= 1 or found.weight < 0:
        raise Unusable("p_chosen is not in [0.5, 1]" if found.weight >= 0 else "weight is negative")
    return dataclasses.replace(found, id="")
