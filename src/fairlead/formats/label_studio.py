"""Label Studio: tasks with annotations, as its API and its JSON and JSON_MIN exports have them.

Our tasks show prompt and replies by the controls of `LABEL_CONFIG`. What its controls cannot say (who rated, on which side, at what cost)
travels in a hidden text field named `fairlead`, which Label Studio keeps in both exports, so that nothing is lost on the way there and back.
Traps: a pairwise result has `to_name` equal to `from_name`, its left and right follow `toName="answer1,answer2"`, and a tie is no result at
all; an annotation that was cancelled is a skip; `completed_by` is a number or an object; JSON_MIN leaves cancelled ones out.

Example:
    task = write_task(item)
    read_task(Row("x", 1, task))
"""

import dataclasses
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fairlead.core.annotations import RatedItem, Rating, Reply
from fairlead.core.errors import DataError
from fairlead.core.io import Row, dump_json, parse_json
from fairlead.formats.annotation_checks import (
    checked_item,
    prompt_from,
    ranking_of,
    seconds_to_ms,
    verdict_of_ranking,
)
from fairlead.formats.base import Gathered, Item, LeftOut, Unusable, Values
from fairlead.formats.fields import keep, list_or_empty, mapping, number, object_or_empty, optional_text, text
from fairlead.formats.rating_fields import rating_extras, rating_from

PAIRWISE, TIE, STRENGTH, RATIONALE, RANKING, HIDDEN = (
    "preference",
    "tie",
    "strength",
    "rationale",
    "ranking",
    "fairlead",
)
SINGLE = "choices of one label"
"""Names of questions whose one label JSON_MIN writes as if it were text."""
ONLY_NUMBER = "rating: the export names it by its number only"
"""A plain JSON export does so with predictions; the API's tasks have them whole."""
_OURS = frozenset({PAIRWISE, TIE, STRENGTH, RATIONALE, RANKING, HIDDEN})
_PAIRS = (("answer1", "answer2"), ("response1", "response2"), ("response_1", "response_2"), ("response_a", "response_b"),
          ("completion_a", "completion_b"), ("output_1", "output_2"), ("text1", "text2"))  # fmt: skip
_PROMPTS = ("messages", "chat", "prompt", "question", "instruction", "text")
_LISTS = ("answers", "items", "responses", "completions")


def label_config(items: Iterable[RatedItem]) -> str:
    """The labeling interface that shows exactly what our tasks hold; to be set as the project's `label_config`."""
    is_pair, kinds = True, dict[str, _Kind]()
    for item in items:
        is_pair = is_pair and len(item.replies) == 2
        for rating in item.ratings:
            for name, value in rating.answers.items():
                kinds.setdefault(name, _Kind()).see(value)
    names = sorted(kinds)
    numbers = [name for name in names if kinds[name].is_whole]
    labels = {name: sorted(kinds[name].labels) for name in names if kinds[name].is_list}
    words = [name for name in names if kinds[name].is_text]
    shown = (
        '<Header value="Answer 1"/><Text name="answer1" value="$answer1"/><Header value="Answer 2"/><Text name="answer2" value="$answer2"/>\n'
        f'  <Pairwise name="{PAIRWISE}" toName="answer1,answer2"/>'
        if is_pair
        else f'<List name="answers" value="$answers" title="Answers"/><Ranker name="{RANKING}" toName="answers"/>'
    )
    rows = [
        '<View>\n  <Text name="prompt" value="$prompt"/>',
        f"  {shown}",
        f'  <Choices name="{TIE}" toName="prompt" choice="single"><Choice value="tie"/><Choice value="both_bad"/></Choices>',
        f'  <Choices name="{STRENGTH}" toName="prompt" choice="single">{_choices([str(s) for s in range(-3, 4)])}</Choices>',
        f'  <TextArea name="{RATIONALE}" toName="prompt"/>',
        *(f'  <Rating name="{_xml(name)}" toName="prompt" maxRating="10"/>' for name in numbers),
        *(
            f'  <Choices name="{_xml(name)}" toName="prompt" choice="multiple">{_choices(known)}</Choices>'
            for name, known in labels.items()
        ),
        *(f'  <TextArea name="{_xml(name)}" toName="prompt"/>' for name in words),
        f'  <View style="display:none"><TextArea name="{HIDDEN}" toName="prompt"/></View>\n</View>',
    ]
    return "\n".join(rows)


@dataclasses.dataclass(slots=True)
class _Kind:
    """What all answers to a question have in common."""

    is_whole: bool = True
    is_list: bool = True
    is_text: bool = True
    labels: set[str] = dataclasses.field(default_factory=set[str])

    def see(self, value: Any) -> None:
        """One more answer."""
        self.is_whole = self.is_whole and _is_whole(value)
        self.is_text = self.is_text and isinstance(value, str)
        self.is_list = self.is_list and isinstance(value, (list, tuple))
        self.labels |= {str(label) for label in value} if self.is_list else set()


def _is_whole(value: Any) -> bool:
    """Its rating control has whole stars from 1; other numbers travel hidden."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10


def _choices(labels: Sequence[str]) -> str:
    return "".join(f'<Choice value="{_xml(label)}"/>' for label in labels)


def _xml(value: str) -> str:
    return html.escape(value, quote=True)


def write_task(item: RatedItem) -> dict[str, Any]:
    """One task for import: data, annotations of people, predictions of judges."""
    data: dict[str, Any] = {
        "item": item.item, "prompt": _as_text(item), "messages": [{"role": m.role, "content": m.content} for m in item.prompt],
        "answers": [{"id": reply.id, "title": f"Answer {i}", "body": reply.text} for i, reply in enumerate(item.replies, start=1)],
        "provenance": {"models": [reply.model for reply in item.replies], "slice": item.slice, "source": item.source, "split": item.split,
                       "meta": dict(item.meta)},
    }  # fmt: skip
    if len(item.replies) == 2:
        data |= {"answer1": item.replies[0].text, "answer2": item.replies[1].text}
    people = [rating for rating in item.ratings if rating.rater_kind != "judge"]
    judges = [rating for rating in item.ratings if rating.rater_kind == "judge"]
    return {
        "data": data,
        "annotations": [_annotation(rating, item) for rating in people],
        "predictions": [
            {"model_version": rating.rater, "score": rating.confidence, "result": _results(rating, item)} for rating in judges
        ],
    }  # fmt: skip


def _as_text(item: RatedItem) -> str:
    """What its plain text control shows."""
    return "\n\n".join(
        turn.content if len(item.prompt) == 1 else f"{turn.role}: {turn.content}" for turn in item.prompt
    )


def _annotation(rating: Rating, item: RatedItem) -> dict[str, Any]:
    found: dict[str, Any] = {
        "result": _results(rating, item), "was_cancelled": rating.verdict == "skip", "ground_truth": rating.is_anchor,
    }  # fmt: skip
    if rating.duration_ms is not None:
        found["lead_time"] = rating.duration_ms / 1000
    return found


def _results(rating: Rating, item: RatedItem) -> list[dict[str, Any]]:
    rows: list[tuple[str, str, str, dict[str, Any]]] = []
    if rating.verdict in ("a", "b") and len(item.replies) == 2:
        rows.append((PAIRWISE, PAIRWISE, "pairwise", {"selected": "left" if rating.verdict == "a" else "right"}))
    if rating.verdict in ("tie", "both_bad"):
        rows.append((TIE, "prompt", "choices", {"choices": [rating.verdict]}))
    if rating.strength:
        rows.append((STRENGTH, "prompt", "choices", {"choices": [str(rating.strength)]}))
    if rating.ranking and len(item.replies) > 2 and all(len(tied) == 1 for tied in rating.ranking):
        rows.append((RANKING, "answers", "ranker", {"ranker": {"rank": [tied[0] for tied in rating.ranking]}}))
    if rating.rationale:
        rows.append((RATIONALE, "prompt", "textarea", {"text": [rating.rationale]}))
    for name, value in rating.answers.items():
        if _is_whole(value):
            rows.append((name, "prompt", "rating", {"rating": value}))
        elif isinstance(value, (list, tuple)):
            rows.append((name, "prompt", "choices", {"choices": [str(label) for label in value]}))
        elif isinstance(value, str):
            rows.append((name, "prompt", "textarea", {"text": [value]}))
    rows.append((HIDDEN, "prompt", "textarea", {"text": [dump_json(_hidden(rating, item))]}))
    return [
        {"id": f"r{i}", "from_name": name, "to_name": to, "type": kind, "value": value}
        for i, (name, to, kind, value) in enumerate(rows)
    ]


def _hidden(rating: Rating, item: RatedItem) -> dict[str, Any]:
    """What no control says."""
    extras = rating_extras(rating, without=("verdict", "strength", "rationale", "answers", "ranking"))
    hard = {
        name: value for name, value in rating.answers.items()
        if not (_is_whole(value) or isinstance(value, (str, list, tuple)))
    }  # fmt: skip
    if hard:
        extras["answers"] = hard
    single = [name for name, value in rating.answers.items() if isinstance(value, (list, tuple)) and len(value) == 1]
    if single:
        extras[SINGLE] = single
    has_plain_ranking = len(item.replies) > 2 and all(len(tied) == 1 for tied in rating.ranking)
    if rating.ranking and not has_plain_ranking:
        extras["ranking"] = [list(tied) for tied in rating.ranking]
    return extras


def read_task(row: Row) -> list[Item]:
    """An item with the ratings of its annotations, and of its predictions as those of judges."""
    data = mapping(row.values.get("data", row.values), "data")
    base = _item(data, row.values)
    ratings: list[Rating] = []
    left_out: list[Item] = []
    for kind, name in (("human", "annotations"), ("judge", "predictions")):
        rows = row.values.get(name) or []
        if not isinstance(rows, list):
            raise Unusable(f"{name} is not a list")
        for number_, value in enumerate(rows):
            if isinstance(value, int):
                left_out.append(LeftOut(reason=ONLY_NUMBER, is_fault=False))
                continue
            try:
                ratings.append(_read_rating(mapping(value, name), base.replies, kind=kind, place=number_))
            except Unusable as fault:
                left_out.append(LeftOut(reason=f"rating: {fault}"))
    return [checked_item(_with(base, ratings)), *left_out]


def _with(base: RatedItem, ratings: Sequence[Rating]) -> RatedItem:
    return RatedItem(prompt=base.prompt, replies=base.replies, ratings=tuple(ratings), item=base.item, slice=base.slice,
                     source=base.source, split=base.split, meta=base.meta)  # fmt: skip


def _item(data: Values, task: Values) -> RatedItem:
    prompt = next((prompt_from(data[name], name) for name in _PROMPTS if data.get(name) is not None), None)
    if prompt is None:
        raise Unusable("no prompt in data")
    provenance = object_or_empty(data.get("provenance"))
    models = list_or_empty(provenance.get("models"))
    replies = _replies(data, [str(model) for model in models])
    name = data.get("item") if isinstance(data.get("item"), str) else str(task.get("id", ""))
    split = provenance.get("split")
    return RatedItem(prompt=prompt, replies=replies, item=str(name), slice=str(provenance.get("slice") or "all"),
                     source=str(provenance.get("source") or "unknown"), split="heldout" if split == "heldout" else "train",
                     meta=object_or_empty(provenance.get("meta")))  # fmt: skip


def _replies(data: Values, models: Sequence[str]) -> tuple[Reply, ...]:
    listed = next((data[name] for name in _LISTS if isinstance(data.get(name), list) and data[name]), None)
    if listed is not None and all(isinstance(value, dict) and "id" in value for value in listed):
        texts = [
            (str(v["id"]), next((v[k] for k in ("body", "text", "html", "title") if isinstance(v.get(k), str)), ""))
            for v in listed
        ]
    else:
        names = next((pair for pair in _PAIRS if set(pair) <= set(data)), None)
        if names is None:
            raise Unusable("no replies in data")
        texts = [(letter, text(data, name)) for letter, name in zip("ab", names, strict=True)]
    padded = [*models, *[""] * len(texts)]
    return tuple(Reply(id=name, text=value, model=model) for (name, value), model in zip(texts, padded, strict=False))


def _read_rating(value: Values, replies: tuple[Reply, ...], *, kind: str, place: int) -> Rating:
    results = value.get("result") or []
    if not isinstance(results, list):
        raise Unusable("result is not a list")
    fields: dict[str, Any] = {"answers": {}}
    hidden: Mapping[str, Any] = {}
    for result in results:
        found = mapping(result, "result")
        name, content = optional_text(found, "from_name") or "", mapping(found.get("value"), "value")
        if name == HIDDEN:
            hidden = _parse_hidden(content)
        else:
            _read_result(fields, name, found.get("type"), content, replies)
    if value.get("was_cancelled") is True:
        fields["verdict"] = "skip"
    defaults: dict[str, Any] = {
        "rater": _rater(value, kind=kind, place=place), "rater_kind": kind, "duration_ms": seconds_to_ms(value.get("lead_time")),
        "created_at": str(value.get("created_at") or ""), "source_id": str(value.get("id") or value.get("unique_id") or ""),
        "is_anchor": value.get("ground_truth") is True, "confidence": _share(value.get("score")) if kind == "judge" else None,
    }  # fmt: skip
    return _assembled(defaults, fields, hidden, replies)


def _assembled(
    defaults: dict[str, Any], fields: dict[str, Any], hidden: Mapping[str, Any], replies: tuple[Reply, ...]
) -> Rating:
    """Hidden fields say more than the tool's own; what a control says now counts more than either."""
    answers = {**object_or_empty(hidden.get("answers")), **fields.pop("answers")}
    for name in list_or_empty(hidden.get(SINGLE)):
        if isinstance(answers.get(name), str):
            answers[name] = [answers[name]]
    merged = {**defaults, **hidden, **fields, "answers": answers}
    merged.pop(SINGLE, None)
    if merged.get("verdict") is None and isinstance(merged.get("ranking"), list):
        ranking = tuple(tuple(map(str, list_or_empty(tied))) for tied in merged["ranking"])
        merged["verdict"] = verdict_of_ranking(ranking, replies)
    return rating_from(merged)


def _parse_hidden(content: Values) -> Mapping[str, Any]:
    values = content.get("text")
    raw = values[0] if isinstance(values, list) and values else values
    if not isinstance(raw, str):
        return {}
    try:
        found = parse_json(raw, HIDDEN)
    except DataError as error:
        raise Unusable("the hidden field is not JSON") from error
    if not isinstance(found, dict):
        raise Unusable("the hidden field is not an object")
    return found


def _read_result(fields: dict[str, Any], name: str, kind: Any, content: Values, replies: tuple[Reply, ...]) -> None:
    if kind == "pairwise":
        side = content.get("selected")
        if side not in ("left", "right"):
            raise Unusable("pairwise selects neither left nor right")
        fields["verdict"] = "a" if side == "left" else "b"
    elif kind == "ranker":
        fields["ranking"] = _ranker(content.get("ranker"), replies)
    elif kind == "rating":
        stars = number(content.get("rating"))
        if stars is None:
            raise Unusable("rating is not a number")
        fields["answers"][name] = int(stars) if stars.is_integer() else stars
    elif kind == "choices":
        _read_choices(fields, name, content.get("choices"))
    elif kind == "textarea":
        values = content.get("text")
        said = "\n".join(str(part) for part in values) if isinstance(values, list) else str(values or "")
        if name == RATIONALE:
            fields["rationale"] = said
        else:
            fields["answers"][name] = said


def _read_choices(fields: dict[str, Any], name: str, values: Any) -> None:
    labels = [str(label) for label in values] if isinstance(values, list) else []
    if name == TIE and labels and labels[0] in ("tie", "both_bad"):
        fields["verdict"] = labels[0]
    elif name == STRENGTH and labels:
        strength = number(labels[0])
        if strength is None:
            raise Unusable("strength is not from -3 to 3")
        fields["strength"] = int(strength)
    else:
        fields["answers"][name] = labels


def _ranker(value: Any, replies: tuple[Reply, ...]) -> list[list[str]]:
    """`rank` is an order; otherwise buckets in their order, each a tie; `_` holds what was not placed."""
    if isinstance(value, list):
        value = {"rank": value}
    if not isinstance(value, dict):
        raise Unusable("ranker is not an object")
    if isinstance(value.get("rank"), list):
        return [[str(name)] for name in value["rank"]]
    buckets = [
        [str(name) for name in ids] for key, ids in value.items() if key != "_" and isinstance(ids, list) and ids
    ]
    return [list(tied) for tied in ranking_of({name: float(i) for i, ids in enumerate(buckets) for name in ids})]


def _rater(value: Values, *, kind: str, place: int) -> str:
    if kind == "judge":
        return str(value.get("model_version") or f"model {place + 1}")
    who = value.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return str(who) if who not in (None, "") else f"annotator {place + 1}"


def _share(value: Any) -> float | None:
    score = number(value)
    return score if score is not None and 0 <= score <= 1 else None


def gather_min(rows: Sequence[Row]) -> Iterator[Gathered]:
    """Put the rows of a JSON_MIN export together: one row is one annotation of a task."""
    tasks: dict[Any, list[Row]] = {}
    for row in rows:
        key = row.values.get("id")
        tasks.setdefault(key if isinstance(key, (int, str)) else row.where, []).append(row)
    for members in tasks.values():
        first = members[0]
        yield Gathered(members=members, row=Row(first.where, first.number, {"rows": [row.values for row in members]}))


def read_min(row: Row) -> list[Item]:
    """An item from its JSON_MIN rows."""
    rows = row.values["rows"]
    base = _item(rows[0], rows[0])
    ratings: list[Rating] = []
    left_out: list[Item] = []
    for place, values in enumerate(rows):
        try:
            ratings.append(_read_min_rating(values, base.replies, place))
        except Unusable as fault:
            left_out.append(LeftOut(reason=f"rating: {fault}"))
    return [checked_item(_with(base, ratings)), *left_out]


_MIN_COLUMNS = frozenset({"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "provenance", "item",
                          *_PROMPTS, *_LISTS, *(name for pair in _PAIRS for name in pair)})  # fmt: skip


def _read_min_rating(values: Values, replies: tuple[Reply, ...], place: int) -> Rating:
    fields: dict[str, Any] = {"answers": {}}
    hidden: Mapping[str, Any] = {}
    for name, value in values.items():
        if name in _MIN_COLUMNS:
            continue
        if name == HIDDEN:
            hidden = _parse_hidden({"text": value if isinstance(value, list) else [value]})
            continue
        kind, content = _min_value(name, value)
        if kind is not None:
            _read_result(fields, name, kind, content, replies)
    defaults = {"rater": str(values.get("annotator") or f"annotator {place + 1}"), "duration_ms": seconds_to_ms(values.get("lead_time")),
                "created_at": str(values.get("created_at") or ""), "source_id": str(values.get("annotation_id") or "")}  # fmt: skip
    return _assembled(defaults, fields, hidden, replies)


def _min_value(name: str, value: Any) -> tuple[str | None, dict[str, Any]]:
    """Guess the control from the value that JSON_MIN leaves of it: a dict for most, bare text for a single choice or text."""
    one = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(one, dict):
        for key, kind in (
            ("selected", "pairwise"),
            ("ranker", "ranker"),
            ("rating", "rating"),
            ("choices", "choices"),
            ("text", "textarea"),
        ):
            if key in one:
                return kind, one
        return None, {}
    if name in _OURS - {RATIONALE}:
        return "choices", {"choices": one if isinstance(one, list) else [one]}
    if isinstance(one, (int, float)) and not isinstance(one, bool):
        return "rating", {"rating": one}
    if isinstance(one, str):
        return "textarea", {"text": [one]}
    return None, {}


def min_row(task: Values, annotation: Values) -> dict[str, Any]:
    """What JSON_MIN makes of one annotation: the data and every control's value; used to write it as Label Studio does."""
    found: dict[str, Any] = dict(mapping(task.get("data"), "data"))
    found |= keep(task, "id")
    for result in annotation.get("result") or ():
        value = dict(result["value"])
        if result["type"] == "choices" and len(value["choices"]) == 1:
            found[result["from_name"]] = value["choices"][0]
        elif result["type"] == "textarea" and len(value["text"]) == 1:
            found[result["from_name"]] = value["text"][0]
        else:
            found[result["from_name"]] = [value]
    return {**found, "annotator": annotation.get("completed_by", 1), "annotation_id": annotation.get("id", 0),
            "created_at": annotation.get("created_at", ""), "updated_at": annotation.get("updated_at", ""),
            "lead_time": annotation.get("lead_time")}  # fmt: skip


def is_task(values: Values) -> bool:
    """Does a row look like a task?"""
    return isinstance(values.get("data"), dict) and ("annotations" in values or "predictions" in values)


def is_min(values: Values) -> bool:
    """Does a row look like one of JSON_MIN?"""
    return {"annotation_id", "annotator", "lead_time"} <= set(values)
