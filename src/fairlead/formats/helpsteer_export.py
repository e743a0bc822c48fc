"""Rated items as rows of HelpSteer2: a reply a row, rated by its five attributes from 0 to 4."""

from collections.abc import Mapping
from typing import Any

from fairlead.core.annotations import RatedItem, Reply, inclusion_in
from fairlead.formats.base import Unusable
from fairlead.formats.fields import number
from fairlead.formats.helpsteer import ATTRIBUTES, join_prompt

HIGHEST = 4


def attribute_rows(item: RatedItem) -> list[dict[str, Any]]:
    """The replies of an item, each with the rounded means of its ratings and, beside, the ratings themselves and how the item came in.

    Raises:
        Unusable: an attribute was not rated, or not from 0 to 4; the prompt has turns that the format does not know.
    """
    prompt = join_prompt(item.prompt)
    return [_row(item, reply, prompt) for reply in item.replies]


def _row(item: RatedItem, reply: Reply, prompt: str) -> dict[str, Any]:
    ratings = {name: _ratings(item, reply, name) for name in ATTRIBUTES}
    means = {name: int(sum(found) / len(found) + 0.5) for name, found in ratings.items()}
    return {"prompt": prompt, "response": reply.text, **means, "n_votes": len(ratings["helpfulness"]), "item": item.item or item.id,
            "ratings": ratings, **inclusion_in(item.meta)}  # fmt: skip


def _ratings(item: RatedItem, reply: Reply, name: str) -> list[float]:
    """What the raters said, in their order."""
    found: list[float] = []
    for rating in item.ratings:
        given = rating.answers.get(name)
        value = number(given.get(reply.id)) if isinstance(given, Mapping) else None
        if value is None:
            continue
        if not 0 <= value <= HIGHEST:
            raise Unusable(f"{name} is not from 0 to {HIGHEST}")
        found.append(value)
    if not found:
        raise Unusable(f"no rating of {name}")
    return found
