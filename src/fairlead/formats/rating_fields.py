"""Ratings as plain data, with what is at its default left out: how they travel inside of other tools' files."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from fairlead.core.annotations import Rating
from fairlead.core.errors import DataError
from fairlead.core.records import from_dict
from fairlead.formats.base import Unusable

_DEFAULT = Rating(rater="")


def rating_extras(rating: Rating, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Fields that differ from their defaults."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(Rating):
        value = getattr(rating, item.name)
        if item.name not in without and value != getattr(_DEFAULT, item.name):
            found[item.name] = _plain(value)
    return found


def rating_from(values: Mapping[str, Any]) -> Rating:
    """A rating from plain data.

    Raises:
        Unusable: an unknown field or a value of another type.
    """
    try:
        return from_dict(cast(Any, Rating), values, where="rating")
    except (DataError, TypeError, ValueError) as error:
        raise Unusable("a field of the rating has another type or name than it may") from error


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return {str(key): _plain(part) for key, part in value.items()} if isinstance(value, Mapping) else value
