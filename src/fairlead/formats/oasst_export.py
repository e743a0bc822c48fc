"""Rated items as OpenAssistant trees: the conversation as a chain of messages, the replies as ranked siblings.

A tree has one rank for each reply and no single votes; the ranks are those of the raters' mean ranks, equal where these are.
"""

from typing import Any

from fairlead.core.annotations import RatedItem, inclusion_in
from fairlead.formats.base import Unusable

_ROLES = {"user": "prompter", "assistant": "assistant"}


def reply_ranks(item: RatedItem) -> dict[str, int | None]:
    """Rank of each reply, 0 the best; None for one that nobody placed."""
    places: dict[str, list[float]] = {reply.id: [] for reply in item.replies}
    for rating in item.ratings:
        for place, tied in enumerate(rating.ranking):
            for name in tied:
                places[name].append(float(place))
        if not rating.ranking and len(item.replies) == 2 and rating.verdict in ("a", "b", "tie", "both_bad"):
            first = {"a": 0.0, "b": 1.0}.get(rating.verdict, 0.5)
            for reply, place in zip(item.replies, (first, 1 - first), strict=True):
                places[reply.id].append(place)
    means = {name: sum(found) / len(found) for name, found in places.items() if found}
    levels = sorted(set(means.values()))
    return {name: levels.index(means[name]) if name in means else None for name in places}


def write_tree(item: RatedItem) -> dict[str, Any]:
    """One tree; beside it how the item came in, where that is known.

    Raises:
        Unusable: turns that do not alternate from a prompter on, which a tree cannot hold (a system turn).
    """
    roles = [turn.role for turn in item.prompt]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise Unusable("a tree begins with a prompter and alternates; it has no system turn")
    name, ranks, lang = item.item or item.id, reply_ranks(item), item.meta.get("language")
    replies = [
        _node(
            f"{name}-{reply.id}",
            "assistant",
            reply.text,
            rank=ranks[reply.id],
            model=reply.model,
            lang=lang,
            replies=[],
        )
        for reply in item.replies
    ]
    for place in range(len(item.prompt) - 1, -1, -1):
        turn = item.prompt[place]
        replies = [
            _node(f"{name}-{place}", _ROLES[turn.role], turn.content, rank=None, model="", lang=lang, replies=replies)
        ]
    return {"message_tree_id": name, "tree_state": "ready_for_export", "prompt": replies[0], **inclusion_in(item.meta)}


def _node(
    name: str, role: str, text: str, *, rank: int | None, model: str, lang: Any, replies: list[dict[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {"message_id": name, "role": role, "text": text, "review_result": True, "deleted": False, "rank": rank,
                             "synthetic": bool(model), "model_name": model or None, "replies": replies}  # fmt: skip
    return found | ({"lang": lang} if isinstance(lang, str) else {})
