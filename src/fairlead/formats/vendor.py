"""Tables of annotation vendors, read by a mapping that says which column is what. Every vendor has its own columns; nothing is guessed.

A mapping is YAML or JSON:

    item: task_id                       # rows of one item are put together
    prompt: question                    # text, or messages in a JSON file
    replies: [answer_a, answer_b]       # two to nine columns, the first is `a`
    models: [model_a, model_b]          # optional
    slice: topic                        # optional
    ratings:                            # one entry for each rater in a row
      - {rater: worker_1, verdict: pick_1, confidence: sure_1, cost: pay_1}
      - {rater: worker_2, verdict: pick_2, confidence: sure_2, cost: pay_2}
    list: annotations                   # or: a column with a list of objects, to which `ratings` then refers with one entry
    verdicts: {A: a, B: b, same: tie}   # what the cells say; numbers are written as text
    confidence_max: 5                   # cells run to 5; 1 when left out

Columns of a rating: rater, verdict, strength, confidence, cost (dollars), duration_s, rationale, created_at, skip_reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairlead.core.annotations import MAX_REPLIES, RatedItem, Rating, Reply
from fairlead.core.config import parse_yaml
from fairlead.core.errors import ConfigError, explain, nearest
from fairlead.core.io import Row, require_file
from fairlead.formats.annotation_checks import checked_item, prompt_from, seconds_to_ms
from fairlead.formats.base import Format, Gathered, Item, LeftOut, Unusable, Values
from fairlead.formats.fields import mapping, number, text
from fairlead.formats.votes import as_label

RATING_COLUMNS = (
    "rater",
    "verdict",
    "strength",
    "confidence",
    "cost",
    "duration_s",
    "rationale",
    "created_at",
    "skip_reason",
)
_KEYS = ("item", "prompt", "replies", "models", "slice", "ratings", "list", "verdicts", "confidence_max")
_VERDICTS = ("a", "b", "tie", "both_bad", "skip")
NO_VOTE = "rating: no verdict in the row"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnMapping:
    """Which column is what."""

    prompt: str
    replies: tuple[str, ...]
    ratings: tuple[Mapping[str, str], ...]
    verdicts: Mapping[str, str]
    item: str = ""
    models: tuple[str, ...] = ()
    slice: str = ""
    list: str = ""
    confidence_max: float = 1.0
    names: frozenset[str] = field(default_factory=frozenset[str])
    """All columns that a row must have."""


def read_mapping(path: Path | str) -> ColumnMapping:
    """Read and check a mapping file.

    Raises:
        ConfigError: an unknown or missing key, or a value of another kind; the message names it.
    """
    path = Path(path)
    require_file(path)
    try:
        text_ = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _refused(path, None, "is not UTF-8", "UTF-8 text", "Convert it") from error
    return mapping_from(parse_yaml(text_, where=str(path)), where=str(path))


def mapping_from(values: Any, *, where: str = "mapping") -> ColumnMapping:
    """Check a mapping that is data already."""
    found = _object(values, where)
    for key in found:
        if key not in _KEYS:
            raise _refused(
                f"{where}.{key}", None, f"is not known{nearest(str(key), _KEYS)}", ", ".join(_KEYS), "Rename it"
            )
    replies = _names(found, "replies", where)
    if not 2 <= len(replies) <= MAX_REPLIES:
        raise _refused(
            f"{where}.replies", len(replies), "columns", f"2 to {MAX_REPLIES}", "List the columns of the replies"
        )
    models = _names(found, "models", where) if "models" in found else ()
    if models and len(models) != len(replies):
        raise _refused(
            f"{where}.models", len(models), "do not fit the replies", f"{len(replies)} columns", "Name one for each"
        )
    ratings, listed = _ratings(found.get("ratings"), where), _text(found, "list", where, default="")
    if listed and len(ratings) != 1:
        raise _refused(
            f"{where}.ratings", len(ratings), "entries beside a list", "one, with the keys of its objects", "Keep one"
        )
    most = number(found.get("confidence_max", 1))
    if most is None or most <= 0:
        raise _refused(
            f"{where}.confidence_max",
            found.get("confidence_max"),
            "is no scale",
            "a number > 0",
            "Give the highest cell",
        )
    prompt = _text(found, "prompt", where)
    item, slice_ = (_text(found, key, where, default="") for key in ("item", "slice"))
    columns = {prompt, item, slice_, listed, *replies, *models} - {""}
    if not listed:
        columns |= {rating[key] for rating in ratings for key in ("rater", "verdict")}
    return ColumnMapping(prompt=prompt, replies=replies, models=models, slice=slice_, item=item, list=listed, ratings=ratings,
                         verdicts=_verdicts(found, where), confidence_max=most, names=frozenset(columns))  # fmt: skip


def _verdicts(found: Mapping[str, Any], where: str) -> dict[str, str]:
    """What the cells say, as text, to verdicts; without the key cells hold verdicts themselves."""
    at = f"{where}.verdicts"
    verdicts: dict[str, str] = {}
    for cell, verdict in _object(found.get("verdicts", {v: v for v in _VERDICTS}), at).items():
        if verdict not in _VERDICTS:
            raise _refused(at, verdict, "is no verdict", ", ".join(_VERDICTS), "Map the cell to one of them")
        try:
            verdicts[as_label(cell)] = verdict
        except Unusable as fault:
            raise _refused(at, cell, str(fault), "the text or number of a cell", "Quote it") from fault
    return verdicts


def _refused(path: object, value: object, wrong: str, expected: str, remedy: str) -> ConfigError:
    return ConfigError(explain(path, value, wrong, expected=expected, remedy=remedy))


def _ratings(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError(explain(f"{where}.ratings", value, "is no list of columns", expected="one entry for each rater in a row",
                                  remedy="See docs/formats.md"))  # fmt: skip
    found: list[Mapping[str, str]] = []
    for i, entry in enumerate(value):
        at = f"{where}.ratings[{i}]"
        columns = _object(entry, at)
        for key, column in columns.items():
            if key not in RATING_COLUMNS or not isinstance(column, str):
                raise ConfigError(explain(f"{at}.{key}", column, f"is not known{nearest(str(key), RATING_COLUMNS)}",
                                          expected=", ".join(RATING_COLUMNS),
                                          remedy="Name a column for each"))  # fmt: skip
        if not {"rater", "verdict"} <= set(columns):
            raise ConfigError(explain(at, None, "lacks rater or verdict", expected="both", remedy="Name their columns"))
        found.append(columns)
    return tuple(found)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(
            explain(where, value, "is not an object", expected="keys and values", remedy="See docs/formats.md")
        )
    return value


def _text(values: Mapping[str, Any], key: str, where: str, *, default: str | None = None) -> str:
    value = values.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        raise ConfigError(
            explain(f"{where}.{key}", value, "is no name of a column", expected="text", remedy="Name the column")
        )
    return value


def _names(values: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = values.get(key)
    if not isinstance(found, list) or not all(isinstance(name, str) and name for name in found):
        raise ConfigError(
            explain(
                f"{where}.{key}",
                found,
                "is no list of columns",
                expected="names of columns",
                remedy="Write [name, name]",
            )
        )
    return tuple(found)


def vendor_format(columns: ColumnMapping) -> Format:
    """A format for one mapping: never detected, handed to the reader by name of the file that maps."""

    def gather(rows: Sequence[Row]) -> Iterator[Gathered]:
        yield from _gather(rows, columns)

    def read(row: Row) -> list[Item]:
        return _read(row, columns)

    return Format(name="vendor", kind="annotations", detect=lambda rows: False, read=read, gather=gather, is_named_only=True,
                  doc="A vendor's table with a mapping of columns.")  # fmt: skip


def _gather(rows: Sequence[Row], columns: ColumnMapping) -> Iterator[Gathered]:
    """Rows of one item; without an `item` column each stands alone."""
    items: dict[str, list[Row]] = {}
    for row in rows:
        missing = sorted(columns.names - set(row.values))
        if missing:
            yield Gathered(members=[row], row=None, left_out=[LeftOut(reason=f"no column {missing[0]}", row=row)])
            continue
        name = str(row.values[columns.item]).strip() if columns.item else row.where
        items.setdefault(name, []).append(row)
    for name, members in items.items():
        yield Gathered(
            members=members,
            row=Row(members[0].where, members[0].number, {"item": name, "rows": [row.values for row in members]}),
        )


def _read(row: Row, columns: ColumnMapping) -> list[Item]:
    rows = row.values["rows"]
    first = rows[0]
    prompt = prompt_from(first[columns.prompt], columns.prompt)
    replies = _replies(first, columns)
    left_out: list[Item] = []
    ratings: list[Rating] = []
    for values in rows:
        if prompt_from(values[columns.prompt], columns.prompt) != prompt or _replies(values, columns) != replies:
            raise Unusable("rows of one item differ in their texts")
        for entry in _entries(values, columns):
            try:
                ratings.append(_rating(*entry, columns))
            except Unusable as fault:
                reason = str(fault)
                left_out.append(
                    LeftOut(
                        reason=f"rating: {reason}" if not reason.startswith("rating:") else reason,
                        is_fault=reason != NO_VOTE,
                    )
                )
    name = row.values["item"] if columns.item else ""
    slice_ = str(first[columns.slice]).strip() if columns.slice else ""
    return [
        checked_item(
            RatedItem(prompt=prompt, replies=replies, ratings=tuple(ratings), item=name, slice=slice_ or "all")
        ),
        *left_out,
    ]


def _replies(values: Values, columns: ColumnMapping) -> tuple[Reply, ...]:
    models = [str(values[name] or "") for name in columns.models] or [""] * len(columns.replies)
    return tuple(
        Reply(id=letter, text=text(values, name), model=model)
        for letter, name, model in zip("abcdefghi", columns.replies, models, strict=False)
    )


def _entries(values: Values, columns: ColumnMapping) -> Iterator[tuple[Values, Mapping[str, str]]]:
    if not columns.list:
        for entry in columns.ratings:
            yield values, entry
        return
    found = values[columns.list]
    if not isinstance(found, list):
        raise Unusable(f"{columns.list} is not a list")
    for value in found:
        yield mapping(value, columns.list), columns.ratings[0]


def _rating(values: Values, names: Mapping[str, str], columns: ColumnMapping) -> Rating:
    cells = {key: values.get(name) for key, name in names.items()}
    if _is_empty(cells["rater"]) or _is_empty(cells["verdict"]):
        raise Unusable(NO_VOTE)
    said = as_label(cells["verdict"])
    if said not in columns.verdicts:
        raise Unusable("a verdict that the mapping does not know")
    found: dict[str, Any] = {}
    for key in ("confidence", "cost", "strength", "duration_s"):
        if not _is_empty(cells.get(key)):
            value = number(cells[key])
            if value is None:
                raise Unusable(f"{key} is not a number")
            found[key] = value
    confidence = found["confidence"] / columns.confidence_max if "confidence" in found else None
    verdict = columns.verdicts[said]
    return Rating(
        rater=as_label(cells["rater"]), verdict=verdict, strength=int(found.get("strength", 0)), confidence=confidence,  # pyright: ignore[reportArgumentType] - checked
        cost=found.get("cost"), duration_ms=seconds_to_ms(found.get("duration_s")), rationale=str(cells.get("rationale") or ""),
        created_at=str(cells.get("created_at") or ""), skip_reason=str(cells.get("skip_reason") or ""),
    )  # fmt: skip


def _is_empty(value: Any) -> bool:
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )
