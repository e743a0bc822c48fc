"""Votes of many raters on many items: one row is (item, rater, label)."""

from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, explain, nearest
from fairlead.core.io import Row, read_rows
from fairlead.core.untrusted import plain_cell
from fairlead.formats.base import Format, Item, Unusable, Values, Vote, mostly


def read_votes(
    path: Path | str, *, item: str = "item", rater: str = "rater", label: str = "label"
) -> list[tuple[str, str, str]]:
    """Read (item, rater, label) from named columns of a CSV, JSONL or Parquet file, as text.

    Raises:
        DataError: a column is missing, a cell is empty or nested, or a rater voted twice on one item (both rows are named:
            which of the two counts is not ours to guess).
    """
    columns = {"item": item, "rater": rater, "label": label}
    votes: list[tuple[str, str, str]] = []
    seen: dict[tuple[str, str], str] = {}
    for row in read_rows(path):
        _require_columns(row, columns)
        vote = Vote(*(_cell(row, column) for column in columns.values()))
        first = seen.setdefault((vote.item, vote.rater), row.where)
        if first != row.where:
            raise DataError(explain(row.where, None, f"is a second vote of rater {vote.rater} on item {vote.item}, after {first}",
                                    expected="one vote of each rater on each item", remedy="Remove one of the two rows"))  # fmt: skip
        votes.append(vote)
    return votes


def _require_columns(row: Row, columns: dict[str, str]) -> None:
    for name, column in columns.items():
        if column not in row.values:
            found = [str(key) for key in row.values]
            raise DataError(explain(row.where, None, f"has no column {column}{nearest(column, found)}; found {', '.join(found)}",
                                    expected="a column for each of item, rater and label",
                                    remedy=f"Name the column: --{name} NAME, or {name}=NAME in Python"))  # fmt: skip


def _cell(row: Row, column: str) -> str:
    try:
        return as_label(row.values[column])
    except Unusable as fault:
        raise DataError(explain(f"{row.where}.{column}", row.values[column], str(fault), expected="one text, number or truth value",
                                remedy="Fix the row, or remove it when there was no vote")) from fault  # fmt: skip


def as_label(value: Any) -> str:
    """Write a label the same way whichever file it came from: 3 and 3.0 are "3", true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (int, float)) and value == value:  # not NaN, the empty cell of a Parquet file
        return str(value)
    if not isinstance(value, str):
        raise Unusable("is empty" if value is None or isinstance(value, float) else "is not a single value")
    if not value.strip():
        raise Unusable("is empty")
    return plain_cell(value.strip())


def _read(row: Row) -> list[Item]:
    missing = [name for name in Vote._fields if name not in row.values]
    if missing:
        raise Unusable(f"missing {missing[0]}")
    return [Vote(*(as_label(row.values[name]) for name in Vote._fields))]


def _is_vote(values: Values) -> bool:
    return set(Vote._fields) <= set(values)


VOTES = Format(
    name="votes", kind="votes", detect=mostly(_is_vote), read=_read,
    doc="One vote a row: `item`, `rater`, `label`. `read_votes` takes other column names.",
)  # fmt: skip
