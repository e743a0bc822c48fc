"""Stream records out of any known file, with an account of every row.

Example:
    with Rejects(out / "rejects.jsonl") as rejects:
        reading = read_preferences("hh.jsonl.gz", rejects=rejects)
        write_jsonl(out / "preferences.jsonl", reading)
    reading.report.rejects   # {'empty chosen': 3, 'completion has more than one turn': 5}
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from fairlead.core.annotations import ASKED, RatedItem
from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.io import Rejects, Row, read_rows
from fairlead.core.records import Demonstration, Label, Preference, Prompt, Record, StepLabels
from fairlead.formats.base import Format, Gathered, Item, Kind, LeftOut, Pairing, Read, ReadReport, Unusable
from fairlead.formats.cells import decode
from fairlead.formats.conversations import IDENTICAL, check_prompt
from fairlead.formats.fields import object_or_empty
from fairlead.formats.nesting import cut_deep
from fairlead.formats.provenance import is_ours, restored
from fairlead.formats.registry import detect_format, find_format
from fairlead.formats.vendor import ColumnMapping, vendor_format

Found = TypeVar("Found", bound=Record)
NOTHING = "holds nothing of this kind"


class Reading(Iterator[Found], Generic[Found]):
    """Records of one file. Single use; `report` is complete when it is exhausted.

    Raises while iterating:
        DataError: the file is damaged, or at its end no row was usable, or all pairs were one and the same.
    """

    def __init__(self, report: ReadReport, records: Iterator[Found]) -> None:
        self.report = report
        self._records = records

    def __next__(self) -> Found:
        return next(self._records)


def read_preferences(
    path: Path | str, *, format: str | None = None, rejects: Rejects, pairs: Pairing | None = None
) -> Reading[Preference]:
    """Read pairs of completions.

    Args:
        format: name of the format; None detects it.
        pairs: how rankings are cut into pairs; None is the format's own default.
    """
    known = _choose(path, format, "preferences")
    read: Read | None = known.read if known.kind == "preferences" else known.also.get("preferences")
    if pairs is not None and pairs not in known.pairings:
        raise ConfigError(explain("pairs", pairs, f"does not apply to {known.name}", expected=", ".join(known.pairings) or "nothing: it holds pairs",
                                  remedy="Remove it or choose another"))  # fmt: skip
    if read is not None and pairs is not None:
        read = functools.partial(read, pairs=pairs)
    return cast("Reading[Preference]", _reading(Path(path), known, read, "preferences", rejects))


def read_demonstrations(path: Path | str, *, format: str | None = None, rejects: Rejects) -> Reading[Demonstration]:
    """Read conversations to be imitated."""
    known = _choose(path, format, "demonstrations")
    read = known.read if known.kind == "demonstrations" else known.also["demonstrations"]
    return cast("Reading[Demonstration]", _reading(Path(path), known, read, "demonstrations", rejects))


def read_labels(path: Path | str, *, format: str | None = None, rejects: Rejects) -> Reading[Label]:
    """Read completions that are each good or bad."""
    known = _choose(path, format, "labels")
    read = known.read if known.kind == "labels" else known.also["labels"]
    return cast("Reading[Label]", _reading(Path(path), known, read, "labels", rejects))


def read_steps(path: Path | str, *, format: str | None = None, rejects: Rejects) -> Reading[StepLabels]:
    """Read replies whose steps are labelled."""
    known = _choose(path, format, "steps")
    read = known.read if known.kind == "steps" else known.also["steps"]
    return cast("Reading[StepLabels]", _reading(Path(path), known, read, "steps", rejects))


def read_annotations(
    path: Path | str, *, format: str | None = None, columns: ColumnMapping | None = None, rejects: Rejects
) -> Reading[RatedItem]:
    """Read items with everything that raters said about them.

    Args:
        columns: which column is what in a vendor's table (`vendor.read_mapping`); then `format` must be None.
    """
    if columns is not None and format is not None:
        raise ConfigError(
            explain(
                "format",
                format,
                "does not go with a mapping of columns",
                expected="one of the two",
                remedy="Leave one out",
            )
        )
    known = vendor_format(columns) if columns is not None else _choose(path, format, "annotations")
    return cast("Reading[RatedItem]", _reading(Path(path), known, known.read, "annotations", rejects))


def read_prompts(path: Path | str, *, format: str | None = None, rejects: Rejects) -> Reading[Prompt]:
    """Read prompts, also those of preferences and demonstrations; one row gives each of its prompts once."""
    known = find_format(format) if format else detect_format(path)
    if known.kind == "votes":
        raise _wrong_kind(path, known, "prompts")
    reader = known.also.get("prompts") or (lambda row: _prompts(known.read(row)))
    return cast("Reading[Prompt]", _reading(Path(path), known, reader, "prompts", rejects))


def _prompts(found: Sequence[Item]) -> list[Item]:
    prompts: dict[str, Item] = {}
    rest: list[Item] = []
    for item in found:
        if isinstance(item, (Preference, Demonstration, Label, StepLabels, Prompt)):
            prompt = prompt_part(item)
            prompts.setdefault(prompt.id, prompt)
        else:
            rest.append(item)
    return [*prompts.values(), *rest]


def prompt_part(record: Preference | Demonstration | Label | StepLabels | Prompt) -> Prompt:
    """The prompt of a record; of a demonstration everything before its last reply.

    Raises:
        Unusable: nothing is asked (plain text has no prompt).
    """
    if isinstance(record, Prompt):
        return record
    turns = record.messages[:-1] if isinstance(record, Demonstration) else record.prompt
    check_prompt(turns)
    return Prompt(messages=turns, slice=record.slice, source=record.source, split=record.split, meta=record.meta)


def _choose(path: Path | str, name: str | None, kind: Kind) -> Format:
    known = find_format(name) if name else detect_format(path)
    is_group = known.neighbours is not None and known.neighbours.kind == kind
    if known.kind != kind and kind not in known.also and not is_group:
        raise _wrong_kind(path, known, kind)
    return known


def _wrong_kind(path: Path | str, known: Format, kind: Kind) -> DataError:
    return DataError(explain(path, None, f"is in format {known.name}, which holds {known.kind}", expected=f"a file of {kind}",
                             remedy="Choose another file, or name its format with format: NAME"))  # fmt: skip


def _reading(path: Path, known: Format, read: Read | None, kind: Kind, rejects: Rejects) -> Reading[Any]:
    report = ReadReport(path=str(path), format=known.name)
    return Reading(report, _records(path, known, read, kind, _Account(report, rejects)))


@dataclasses.dataclass(frozen=True, slots=True)
class _Account:
    """Books every row into the report exactly once."""

    report: ReadReport
    rejects: Rejects

    def reject(self, row: Row, reason: str) -> None:
        self.rejects.add(cut_deep(row), reason)
        _count(self.report.rejects, reason)

    def left_out(self, row: Row, item: LeftOut) -> None:
        """Book a row that gave nothing."""
        if item.is_fault:
            self.reject(row, item.reason)
        else:
            _count(self.report.skips, item.reason)

    def book(self, rows: Sequence[Row], found: Sequence[Item]) -> list[Record]:
        """Book a row, or rows that were read together, and return their records."""
        records = [item for item in found if isinstance(item, Record)]
        left = [item for item in found if isinstance(item, LeftOut)]
        named = {id(item.row) for item in left if item.row is not None}
        self.report.records += len(records)
        for item in left:
            if item.row is not None:
                self.left_out(item.row, item)
            elif records:
                _count(self.report.left_out, item.reason)
        nothing = next(
            (item for item in sorted(left, key=lambda item: not item.is_fault) if item.row is None),
            LeftOut(reason=NOTHING, is_fault=False),
        )
        for row in rows:
            if id(row) in named:
                continue
            if records:
                self.report.used += 1
            else:
                self.left_out(row, nothing)
        return records


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1


def _records(path: Path, known: Format, read: Read | None, kind: Kind, account: _Account) -> Iterator[Record]:
    stamp = _stamper(path, known)
    first: Record | None = None
    all_alike = True
    for rows, found in _outcomes(_counted(read_rows(path), known, account.report), known, read, kind, account):
        for record in account.book(rows, found):
            first = first or record
            all_alike = all_alike and _content(record) == _content(first)
            yield stamp(record, rows[0])
    _refuse_useless(account.report, all_alike=all_alike and kind == "preferences")


def _counted(rows: Iterator[Row], known: Format, report: ReadReport) -> Iterator[Row]:
    for row in rows:
        report.rows += 1
        yield row if known.is_own else decode(row)


def _outcomes(
    rows: Iterator[Row], known: Format, read: Read | None, kind: Kind, account: _Account
) -> Iterator[tuple[Sequence[Row], Sequence[Item]]]:
    group = known.neighbours
    if group is not None and group.kind == kind:
        for _, members in itertools.groupby(rows, key=group.key):
            together = list(members)
            yield together, group.read(together)
        return
    assert read is not None, (known.name, kind)
    parts = known.gather(list(rows)) if known.gather else (Gathered(members=[row], row=row) for row in rows)
    for part in parts:
        try:
            found = [*part.left_out, *(_read_part(part.row, read) if part.row is not None else ())]
        except Unusable as fault:
            found = [*part.left_out, LeftOut(reason=str(fault))]
        yield part.members, found


def _read_part(row: Row, read: Read) -> list[Item]:
    return [restored(item, row.values) if isinstance(item, Preference) else item for item in read(row)]


def _content(record: Record) -> object:
    return (record.prompt, record.chosen, record.rejected) if isinstance(record, Preference) else None


def _stamper(path: Path, known: Format) -> Callable[[Record, Row], Record]:
    """Name the file and the row in records that came from elsewhere; our own records keep what they say."""
    if known.is_own:
        return lambda record, row: record

    def stamp(record: Any, row: Row) -> Record:
        if (isinstance(record, Preference) and is_ours(row.values)) or _names_source(record):
            return record
        asked = _asked(row.values)
        if "programming_language" in record.meta:  # the format has read the row's `language` as that (HelpSteer3)
            asked.pop("language", None)
        return dataclasses.replace(record, source=path.name, meta={**asked, **record.meta, "row": row.number}, id="")

    return stamp


def _asked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of any format that say who can rate a row: `language`, `skills`, `programming_language`, of the row or of its metadata."""
    places = (values, *(object_or_empty(values.get(name)) for name in ("meta", "metadata", "data")))
    found = {name: given for name in ASKED for place in reversed(places) if (given := place.get(name))}
    return {
        name: given if _is_flat(given) else {} for name, given in found.items()
    }  # importers refuse {} as they would the rest


def _is_flat(given: Any) -> bool:
    return not isinstance(given, (dict, list)) or (
        isinstance(given, list) and not any(isinstance(each, (dict, list)) for each in given)
    )


def _names_source(record: Any) -> bool:
    """Items that came from us through another tool say themselves where they were from."""
    return isinstance(record, RatedItem) and record.source != "unknown"


def _refuse_useless(report: ReadReport, *, all_alike: bool) -> None:
    """Stop at the end of a file that gave nothing to learn from."""
    if report.records == 0:
        fault = "holds only identical pairs" if set(report.rejects) == {IDENTICAL} else "gave no usable row"
        raise DataError(explain(report.path, None, f"{fault}, most often because: {report.top_reason}", expected=f"rows of format {report.format}",
                                remedy="Fix these rows, or name another format with format: NAME"))  # fmt: skip
    if all_alike and report.records > 1:
        raise DataError(explain(report.path, None, f"holds one pair {report.records} times", expected="different pairs",
                                remedy="Check the export that wrote it"))  # fmt: skip
