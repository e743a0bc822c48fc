"""The formats of annotation tools as entries of the registry: Label Studio, Argilla, and our own items."""

from typing import Any

from fairlead.core.annotations import RatedItem
from fairlead.core.errors import DataError
from fairlead.core.io import Row
from fairlead.core.records import from_dict
from fairlead.formats import argilla, label_studio
from fairlead.formats.annotation_checks import checked_item
from fairlead.formats.base import Format, Item, Unusable, Values, mostly
from fairlead.formats.item_preferences import preferences_by, prompts_of
from fairlead.formats.nesting import is_too_deep


def _read_own(row: Row) -> list[Item]:
    if is_too_deep(row.values):
        raise Unusable("nested too deep")
    try:
        item = from_dict(RatedItem, row.values, where="row")
    except (DataError, TypeError, ValueError) as error:
        raise Unusable("not a RatedItem") from error
    return [checked_item(item)]


def _deep_checked(read: Any) -> Any:
    """Refuse what could not be written among the rejects again, before anything walks it."""

    def found(row: Row) -> list[Item]:
        if is_too_deep(row.values):
            raise Unusable("nested too deep")
        return read(row)

    return found


def _is_own(values: Values) -> bool:
    return "schema" in values and {"prompt", "replies", "ratings"} <= set(values)


_read_task, _read_min, _read_record = map(
    _deep_checked, (label_studio.read_task, label_studio.read_min, argilla.read_record)
)

FAIRLEAD_ITEMS = Format(
    name="fairlead_items", kind="annotations", is_own=True, detect=mostly(_is_own), read=_read_own,
    also={"preferences": preferences_by(_read_own), "prompts": prompts_of(_read_own)},
    doc="Fairlead's own RatedItem records: a prompt, its replies and every rating.",
)  # fmt: skip
LABEL_STUDIO = Format(
    name="label_studio", kind="annotations", detect=mostly(label_studio.is_task), read=_read_task,
    also={"preferences": preferences_by(_read_task), "prompts": prompts_of(_read_task)},
    doc="Label Studio tasks with annotations (JSON export, API): Pairwise, Ranker, Rating, Choices, TextArea. Predictions are judges.",
)  # fmt: skip
LABEL_STUDIO_MIN = Format(
    name="label_studio_min", kind="annotations", detect=mostly(label_studio.is_min), read=_read_min, gather=label_studio.gather_min,
    also={"preferences": preferences_by(_read_min), "prompts": prompts_of(_read_min)},
    doc="Label Studio's JSON_MIN export: one annotation a row; rows of one task are put together. Cancelled annotations are not in it.",
)  # fmt: skip
ARGILLA = Format(
    name="argilla", kind="annotations", detect=mostly(argilla.is_record), read=_read_record,
    also={"preferences": preferences_by(_read_record), "prompts": prompts_of(_read_record)},
    doc="Argilla 2 records of the REST API: `fields`, `responses`, `suggestions`. Equal ranks are ties; discarded responses are skips.",
)  # fmt: skip
