"""OpenAssistant conversation trees: one row is one tree of prompter and assistant nodes.

Sibling replies carry `rank` (0 the best, null when nobody ranked them) and every node `lang`; what replies are written in is the language of
their pairs. A deleted or failed node and everything under it
stays out: its replies answer something that is gone.
"""

from collections.abc import Iterator
from typing import Any

from fairlead.core.annotations import inclusion_in
from fairlead.core.io import Row
from fairlead.core.records import Message, Messages, Prompt
from fairlead.formats.base import Format, Item, LeftOut, Pairing, Unusable, Values, mostly
from fairlead.formats.conversations import assistant, demonstration
from fairlead.formats.fields import keep, mapping, number, role, truth, valid_text
from fairlead.formats.ranking import Candidate, ranked_preferences

NO_RANK = "completion: no rank"
NO_REPLIES = "prompt: no reply"

DELETED, FAILED_REVIEW = "deleted", "failed review"

Node = tuple[Messages, Values, list[Values]]
"""The conversation up to a prompter's turn, the node of that turn, and the nodes of the replies to it."""


def _read_pairs(row: Row, *, pairs: Pairing = "all") -> list[Item]:
    found: list[Item] = []
    for path, node, replies in _prompter_nodes(row, found):
        candidates: list[Candidate] = []
        for reply in replies:
            rank = number(reply.get("rank"))
            if rank is None:
                found.append(LeftOut(reason=NO_RANK, is_fault=False))
            else:
                meta = keep(reply, "message_id", "rank", "model_name", "lang", "synthetic")
                candidates.append(Candidate(text=reply["text"], score=-rank, meta=meta))
        found += ranked_preferences(
            path, candidates, pairs=pairs, meta=inclusion_in(row.values) | _language(node, replies)
        )
    return found


def _language(node: Values, replies: list[Values]) -> dict[str, Any]:
    """That of the replies where it is one, else that of the prompt; nothing where no node says it."""
    said = {lang for reply in replies if isinstance(lang := reply.get("lang"), str) and lang}
    lang = said.pop() if len(said) == 1 else node.get("lang")
    return {"language": lang} if isinstance(lang, str) and lang else {}


def _read_best_paths(row: Row) -> list[Item]:
    """One demonstration for each leaf that is reached by always taking the best reply."""
    found: list[Item] = []
    goes_on: dict[Messages, bool] = {}  # conversation that ends with a best reply: is that reply answered?
    for path, _, replies in _prompter_nodes(row, found):
        if path[:-1] and path[:-1] not in goes_on:
            continue
        reply = _best_reply(replies)
        if reply is None:
            found += [LeftOut(reason=NO_RANK, is_fault=False)] * bool(replies)
            continue
        if path[:-1]:
            goes_on[path[:-1]] = True
        goes_on[*path, assistant(reply["text"])] = False
    meta = keep(row.values, "message_tree_id")
    return found + [demonstration(turns, meta=meta) for turns, is_inner in goes_on.items() if not is_inner]


def _read_prompts(row: Row) -> list[Item]:
    """Every turn of a prompter with the conversation before it."""
    found: list[Item] = []
    prompts: list[Item] = [Prompt(messages=path) for path, _, _ in _prompter_nodes(row, found)]
    return prompts + [item for item in found if isinstance(item, LeftOut) and item.reason != NO_REPLIES]


def _best_reply(replies: list[Values]) -> Values | None:
    """The reply with the lowest rank; a lone reply needs none, several without ranks have no best."""
    ranked = [(rank, i) for i, reply in enumerate(replies) if (rank := number(reply.get("rank"))) is not None]
    if ranked:
        return replies[min(ranked)[1]]
    return replies[0] if len(replies) == 1 else None


def _prompter_nodes(row: Row, left_out: list[Item]) -> Iterator[Node]:
    """Walk the tree from the root (without recursion: a hostile tree may be deep); count what is left out."""
    root = mapping(row.values.get("prompt"), "prompt")
    if root.get("role") != "prompter":
        raise Unusable("root is not a prompter")
    stack: list[tuple[Messages, Values]] = [((_turn(root),), root)]
    while stack:
        path, node = stack.pop()
        children = _children(path, node, left_out)
        if path[-1].role == "user":
            if not children and len(path) == 1:
                left_out.append(LeftOut(reason=NO_REPLIES, is_fault=False))
            yield path, node, [child for _, child in children]
        stack += reversed(children)


def _children(path: Messages, node: Values, left_out: list[Item]) -> list[tuple[Messages, Values]]:
    """The usable replies to a node, each with the conversation that ends with it."""
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        raise Unusable("replies is not a list")
    found: list[tuple[Messages, Values]] = []
    for value in replies:
        child = mapping(value, "replies")
        try:
            turn = _turn(child)
            if turn.role == path[-1].role:
                raise Unusable("out of turn")
            found.append(((*path, turn), child))
        except Unusable as fault:
            kind = "prompt" if child.get("role") == "prompter" else "completion"
            left_out.append(LeftOut(reason=f"{kind}: {fault}", is_fault=str(fault) not in (DELETED, FAILED_REVIEW)))
    return found


def _turn(node: Values) -> Message:
    if truth(node.get("deleted")) is True:
        raise Unusable(DELETED)
    if truth(node.get("review_result")) is False:
        raise Unusable(FAILED_REVIEW)
    content = valid_text(node.get("text"), "text")
    if not content.strip():
        raise Unusable("empty")
    return Message(role=role(node.get("role"), "node"), content=content)


def _is_tree(values: Values) -> bool:
    return "message_tree_id" in values and isinstance(values.get("prompt"), dict)


OASST = Format(
    name="oasst", kind="preferences", detect=mostly(_is_tree), read=_read_pairs, also={"demonstrations": _read_best_paths, "prompts": _read_prompts},
    pairings=("all", "adjacent", "best_vs_each", "best_vs_worst"),
    doc="OpenAssistant trees: ranked sibling replies become pairs; the best reply at every turn becomes a demonstration.",
)  # fmt: skip
