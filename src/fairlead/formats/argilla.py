"""Argilla 2: records as its REST API gives them. Through its SDK, ranks and ties of rankings are lost; so this reads and writes REST.

A record has `fields` (texts and chats), `responses` of people with a status, and `suggestions` of models. Discarded responses are skips,
drafts are left out. What has no question of its own travels in `metadata.fairlead`.

Example:
    read_record(Row("x", 1, {"fields": {"prompt": "Hi", "response_1": "Hello", "response_2": "Go"}, "responses": [...]}))
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.io import Row
from fairlead.formats.annotation_checks import checked_item, prompt_from, ranking_of, verdict_of_ranking
from fairlead.formats.base import Item, LeftOut, Unusable, Values
from fairlead.formats.fields import list_or_empty, mapping, number, object_or_empty, text
from fairlead.formats.rating_fields import rating_extras, rating_from

PREFERENCE, STRENGTH, RATIONALE = "preference", "strength", "rationale"
_PROMPTS = ("prompt", "messages", "chat", "instruction", "question")
_REPLY = re.compile(r"(?:response|completion|answer|generation|output)[_-]?([0-9a-i]{1,2})$")
DRAFT = "rating: a draft"


def write_record(item: RatedItem) -> dict[str, Any]:
    """One record in REST shape."""
    fields: dict[str, Any] = {"prompt": [{"role": m.role, "content": m.content} for m in item.prompt]}
    fields |= {f"response_{i}": reply.text for i, reply in enumerate(item.replies, start=1)}
    people = [rating for rating in item.ratings if rating.rater_kind != "judge"]
    judges = [rating for rating in item.ratings if rating.rater_kind == "judge"]
    return {
        "status": "completed" if people else "pending", "external_id": item.item, "fields": fields,
        "responses": [{"user_id": r.rater, "status": "discarded" if r.verdict == "skip" else "submitted", "values": _values(r, item),
                       "inserted_at": r.created_at} for r in people],
        "suggestions": [
            {"question": name, "value": value["value"], "agent": r.rater, "score": r.confidence, "type": "model"}
            for r in judges for name, value in _values(r, item).items()
        ],
        "metadata": {"fairlead": {
            "replies": [{"id": reply.id, "model": reply.model} for reply in item.replies], "slice": item.slice, "source": item.source,
            "split": item.split, "meta": dict(item.meta),
            "ratings": [rating_extras(r, without=("rationale", "strength")) for r in item.ratings],
        }},
    }  # fmt: skip


def _values(rating: Rating, item: RatedItem) -> dict[str, Any]:
    names = {reply.id: f"response_{i}" for i, reply in enumerate(item.replies, start=1)}
    found: dict[str, Any] = {}
    ranks = _ranks(rating, item)
    if ranks:
        found[PREFERENCE] = {"value": [{"value": names[name], "rank": rank} for name, rank in ranks.items()]}
    if rating.strength:
        found[STRENGTH] = {"value": rating.strength}
    if rating.rationale:
        found[RATIONALE] = {"value": rating.rationale}
    for name, value in rating.answers.items():
        if isinstance(value, (str, int, float, list, tuple)):
            found[name] = {"value": list(value) if isinstance(value, tuple) else value}
    return found


def _ranks(rating: Rating, item: RatedItem) -> dict[str, int]:
    if rating.ranking:
        return {name: rank for rank, tied in enumerate(rating.ranking, start=1) for name in tied}
    first, second = item.replies[0].id, item.replies[1].id
    if len(item.replies) > 2 or rating.verdict not in ("a", "b", "tie"):
        return {}
    return {"a": {first: 1, second: 2}, "b": {second: 1, first: 2}, "tie": {first: 1, second: 1}}[rating.verdict]


def read_record(row: Row) -> list[Item]:
    """An item with all submitted and discarded responses, and the suggestions as ratings of judges."""
    values = row.values
    fields = mapping(values.get("fields"), "fields")
    metadata = object_or_empty(values.get("metadata"))
    ours = object_or_empty(metadata.get("fairlead"))
    prompt = next((prompt_from(fields[name], name) for name in _PROMPTS if fields.get(name) is not None), None)
    if prompt is None:
        raise Unusable("no prompt in fields")
    by_field = _replies(fields, ours)
    extras = _extras(ours)
    ratings: list[Rating] = []
    left_out: list[Item] = []
    for response in _responses(values):
        if response.get("status") == "draft":
            left_out.append(LeftOut(reason=DRAFT, is_fault=False))
            continue
        try:
            ratings.append(_rating(response, by_field, extras))
        except Unusable as fault:
            left_out.append(LeftOut(reason=f"rating: {fault}"))
    for agent, suggested in _suggestions(values).items():
        try:
            ratings.append(_rating(suggested | {"user_id": agent}, by_field, extras, is_judge=True))
        except Unusable as fault:
            left_out.append(LeftOut(reason=f"rating: {fault}"))
    name = values.get("external_id") or values.get("id") or ""
    found = RatedItem(
        prompt=prompt, replies=tuple(by_field.values()), ratings=tuple(ratings), item=str(name), slice=str(ours.get("slice") or "all"),
        source=str(ours.get("source") or "unknown"), split="heldout" if ours.get("split") == "heldout" else "train",
        meta=ours["meta"] if isinstance(ours.get("meta"), dict) else {k: v for k, v in metadata.items() if k != "fairlead"},
    )  # fmt: skip
    return [checked_item(found), *left_out]


def _replies(fields: Values, ours: Mapping[str, Any]) -> dict[str, Reply]:
    names = sorted((name for name in fields if _REPLY.match(name)), key=lambda name: (len(name), name))
    known = list_or_empty(ours.get("replies"))
    found: dict[str, Reply] = {}
    for i, name in enumerate(names):
        entry = object_or_empty(known[i]) if i < len(known) else {}
        found[name] = Reply(
            id=str(entry.get("id") or name), text=text(fields, name), model=str(entry.get("model") or "")
        )
    return found


def _extras(ours: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """By rater and kind."""
    rows = list_or_empty(ours.get("ratings"))
    return {
        (str(row.get("rater", "")), "judge" if row.get("rater_kind") == "judge" else "human"): row
        for row in rows
        if isinstance(row, dict)
    }


def _responses(values: Values) -> list[dict[str, Any]]:
    """REST gives a list; the SDK's `to_list` an object by question, whose rankings have lost their ranks."""
    found = values.get("responses") or []
    if isinstance(found, dict):
        raise Unusable(
            "responses by question are the SDK's, which loses ranks and ties: export the records through the REST API"
        )
    if not isinstance(found, list):
        raise Unusable("responses is not a list")
    return [dict(mapping(value, "responses")) for value in found]


def _suggestions(values: Values) -> dict[str, dict[str, Any]]:
    """By agent, in the shape of a response."""
    found: dict[str, dict[str, Any]] = {}
    for row in list_or_empty(values.get("suggestions")):
        if not isinstance(row, dict):
            continue
        agent = str(row.get("agent") or "model")
        entry = found.setdefault(agent, {"status": "submitted", "values": {}, "score": row.get("score")})
        name = row.get("question") or row.get("question_name") or row.get("question_id")
        entry["values"][str(name)] = {"value": row.get("value")}
    return found


def _rating(
    response: Mapping[str, Any], by_field: Mapping[str, Reply], extras: Mapping[tuple[str, str], dict[str, Any]],
    *, is_judge: bool = False,
) -> Rating:  # fmt: skip
    kind, rater = ("judge" if is_judge else "human"), str(response.get("user_id") or "")
    hidden = dict(extras.get((rater, kind), {}))
    fields: dict[str, Any] = {"answers": {}}
    for name, value in mapping(response.get("values") or {}, "values").items():
        _read_value(fields, str(name), mapping(value, "values").get("value"), by_field)
    ranking = fields.pop("ranking", None)
    replies = tuple(by_field.values())
    if ranking is not None:
        verdict = verdict_of_ranking(ranking, replies)
        if len(replies) > 2 or hidden.get("ranking"):
            fields["ranking"] = [list(tied) for tied in ranking]
        if verdict is not None:
            fields["verdict"] = verdict
    if response.get("status") == "discarded":
        fields["verdict"] = "skip"
    defaults: dict[str, Any] = {
        "rater": rater, "rater_kind": kind, "created_at": str(response.get("inserted_at") or ""), "source_id": str(response.get("id") or ""),
    }  # fmt: skip
    score = number(response.get("score"))
    if is_judge and score is not None:
        defaults["confidence"] = score
    answers = {**object_or_empty(hidden.get("answers")), **fields.pop("answers")}
    return rating_from({**defaults, **hidden, **fields, "answers": answers})


def _read_value(fields: dict[str, Any], name: str, value: Any, by_field: Mapping[str, Reply]) -> None:
    if _is_ranking(value):
        ranks: dict[str, float | None] = {}
        for entry in value:
            reply = by_field.get(str(entry.get("value")))
            if reply is None:
                raise Unusable("a ranking names no field of the record")
            ranks[reply.id] = number(entry.get("rank"))
        fields["ranking"] = ranking_of(ranks)
    elif name == STRENGTH and number(value) is not None:
        fields["strength"] = int(number(value) or 0)
    elif name == RATIONALE and isinstance(value, str):
        fields["rationale"] = value
    elif value is not None:
        fields["answers"][name] = value


def _is_ranking(value: Any) -> bool:
    return (
        isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
        and all(isinstance(entry, dict) and "value" in entry for entry in value)
    )  # fmt: skip


def is_record(values: Values) -> bool:
    """Does a row look like a record?"""
    return isinstance(values.get("fields"), dict) and "responses" in values
