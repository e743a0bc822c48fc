"""Rated items to the files of other programs, and from one annotation tool to another: what `fairlead votes convert` does.

Items go to tools that rate (with every rating), preferences to programs that train (with votes, posterior, margin, weight, provenance).

Example:
    convert("export.json", "pairs.jsonl", to="trl", method="one_coin")
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlead.core.annotations import INCLUSION, RatedItem, RatedItems
from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.gates import some
from fairlead.core.io import Rejects, write_csv, write_jsonl, write_parquet, write_text
from fairlead.core.streams import JsonLines, write_json_list
from fairlead.core.summary import Figure, StageSummary
from fairlead.formats import FORMATS, ReadReport, read_annotations, read_mapping, write_preferences
from fairlead.formats.annotation_checks import has_alternating_turns
from fairlead.formats.argilla import DRAFT, write_record
from fairlead.formats.base import Unusable
from fairlead.formats.fine_tuning import provenance_path, write_fine_tuning
from fairlead.formats.helpsteer_export import attribute_rows
from fairlead.formats.label_studio import ONLY_NUMBER, label_config, min_row, write_task
from fairlead.formats.oasst_export import write_tree
from fairlead.formats.vendor import NO_VOTE
from fairlead.preferences.item_pairs import item_preferences
from fairlead.preferences.label_table import label_table

ITEM_TARGETS = (
    "labels",
    "fairlead_items",
    "label_studio",
    "label_studio_min",
    "argilla",
    "oasst",
    "helpsteer2",
    "votes",
)
TUNING_TARGETS = ("fine_tuning", "fine_tuning_sft")
PREFERENCE_TARGETS = tuple(known.name for known in FORMATS if known.write is not None)
TARGETS = (*ITEM_TARGETS, *PREFERENCE_TARGETS, *TUNING_TARGETS)
_NO_FAULTS = frozenset({NO_VOTE, DRAFT, ONLY_NUMBER})
_VOTE_COLUMNS = (
    "item",
    "rater",
    "label",
    "swapped",
    "strength",
    "confidence",
    "cost",
    "duration_ms",
    "guideline_version",
    "created_at",
    "rationale",
    *INCLUSION,
)
_SHOWN = 10
"""Faulty rows that a message lists; the rejects file has all."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a writing gave."""

    what: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def convert(
    path: Path | str, out: Path | str, *, to: str, source_format: str | None = None, mapping: Path | str | None = None,
    method: str = "auto", is_strict: bool = False, is_blind: bool = False,
) -> StageSummary:  # fmt: skip
    """Read rated items of any known tool and write them as `to`.

    Args:
        to: one of `TARGETS`; items keep every rating, the others get aggregated preferences.
        mapping: of the columns of a vendor's table; then `source_format` must be None.
        method: how votes become preferences; `auto` models sides where they were recorded.
        is_strict: write nothing when any row or rating is faulty.
        is_blind: leave the names of models out, for files that raters can look into.
    Raises:
        ConfigError: an unknown target or method.
        DataError: no usable row, or with `is_strict` a faulty one.
    """
    check_target(to)
    out = Path(out)
    with Rejects(out.with_name(f"{out.name}.rejects.jsonl")) as rejects:
        items, report, repeats = read_items(path, source_format=source_format, mapping=mapping, rejects=rejects)
        faults = {reason: count for reason, count in report.left_out.items() if reason not in _NO_FAULTS}
        if is_strict and (rejects.total or faults or repeats):
            raise DataError(explain(path, None, f"has faults and nothing was written: {_faults(rejects, faults, repeats)}",
                                    expected="no faulty row with --strict",
                                    remedy=f"Fix them ({rejects.path.name} lists all), or leave --strict out to take the rest"))  # fmt: skip
    written = write_rated(out, items, to=to, method=method, is_blind=is_blind)
    return StageSummary(
        stage="votes", headline=f"{written.what} from {some(len(items), 'item')} with {some(sum(len(i.ratings) for i in items), 'rating')}.",
        figures=(Figure(name="items", value=len(items), note="a count, exact"),),
        notes=(*written.notes, *_notes(items, rejects, faults, repeats)),
        facts={"rejects": report.rejects, "left_out": report.left_out, "repeats": list(repeats), "files": [str(p) for p in written.files]},
    )  # fmt: skip


def check_target(to: str) -> None:
    """Raises: ConfigError: it is none of `TARGETS`."""
    if to not in TARGETS:
        raise ConfigError(
            explain(
                "to",
                to,
                f"is not known{nearest(to, TARGETS)}",
                expected=", ".join(TARGETS),
                remedy="Choose one of them",
            )
        )


def write_rated(out: Path, items: RatedItems, *, to: str, method: str = "auto", is_blind: bool = False) -> Written:
    """Write rated items as one of `TARGETS`, item by item as they are gone through; see `convert`."""
    check_target(to)
    return _write(out, _Blinded(items) if is_blind else items, to=to, method=method)


def read_items(
    path: Path | str, *, source_format: str | None = None, mapping: Path | str | None = None, rejects: Rejects
) -> tuple[list[RatedItem], ReadReport, tuple[str, ...]]:
    """All items of a file, the account of its rows, and the ids that stood twice (the first of each was kept)."""
    columns = read_mapping(mapping) if mapping is not None else None
    reading = read_annotations(path, format=source_format, columns=columns, rejects=rejects)
    kept: dict[str, RatedItem] = {}
    repeats: list[str] = []
    for item in reading:
        key = item.item or item.id
        if key in kept:
            repeats.append(key)
        else:
            kept[key] = item
    return list(kept.values()), reading.report, tuple(repeats)


def _faults(rejects: Rejects, faults: Mapping[str, int], repeats: Sequence[str]) -> str:
    rows = [f"{where}: {reason}" for where, reason in rejects.first(_SHOWN)]
    parts = [f"{reason} ({count})" for reason, count in faults.items()]
    more = [f"and {rejects.total - _SHOWN} more"] if rejects.total > _SHOWN else []
    twice = [f"ids that stand twice: {', '.join(repeats[:_SHOWN])}"] if repeats else []
    return "; ".join([*rows, *more, *parts, *twice])


def _notes(
    items: Sequence[RatedItem], rejects: Rejects, faults: Mapping[str, int], repeats: Sequence[str]
) -> tuple[str, ...]:
    notes = [f"Not taken: {where}: {reason}" for where, reason in rejects.first(_SHOWN)]
    if rejects.total:
        notes.append(f"{some(rejects.total, 'faulty row is', 'faulty rows are')} in {rejects.path}")
    notes += [f"{count:,} x {reason}" for reason, count in faults.items()]
    if repeats:
        notes.append(
            f"{some(len(repeats), 'item repeats', 'items repeat')} an earlier id "
            f"and {'was' if len(repeats) == 1 else 'were'} left out: {', '.join(repeats[:_SHOWN])}"
        )
    odd = sum(not has_alternating_turns(item.prompt) for item in items)
    if odd:
        notes.append(
            f"{some(odd, 'prompt holds', 'prompts hold')} two turns of one speaker in a row; kept, for that is what the models saw"
        )
    return tuple(notes)


@dataclasses.dataclass(frozen=True, slots=True)
class _Blinded:
    """Items without the names of models."""

    items: RatedItems

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[RatedItem]:
        for item in self.items:
            replies = tuple(dataclasses.replace(reply, model="") for reply in item.replies)
            yield dataclasses.replace(item, replies=replies, id="")


def _write(out: Path, items: RatedItems, *, to: str, method: str) -> Written:
    if to == "labels":
        return _write_labels(out, items, method=method)
    if to in ITEM_TARGETS:
        return _write_items(out, items, to)
    found = item_preferences(items, method=method)
    if to in TUNING_TARGETS:
        report = write_fine_tuning(out, found.preferences, is_supervised=to == "fine_tuning_sft")
        files, beside = (
            (out, provenance_path(out)),
            (f"Votes, posterior and provenance, line for line: {provenance_path(out)}",),
        )
    else:
        report = write_preferences(out, found.preferences, format=to, has_inclusion=found.has_inclusion)
        files, beside = (out,), ()
    left = [f"{count:,} not written: {reason}" for reason, count in report.left_out.items()]
    dropped = [f"{found.ledger.reasons()} left out"] if found.ledger.dropped else []
    by = f"Votes added up by {found.method}{' (chosen for these votes: auto)' if method == 'auto' else ''}"
    return Written(what=f"{some(report.written, 'row')} of {to}", files=files, notes=(by, *beside, *left, *dropped))


def _write_labels(out: Path, items: RatedItems, *, method: str) -> Written:
    table = label_table(items, method=method)
    if out.suffix == ".csv":
        num_rows = write_csv(out, table.rows(), columns=table.columns)
    elif out.suffix == ".parquet":
        num_rows = write_parquet(out, table.rows())
    else:
        num_rows = write_jsonl(out, table.rows())
    what = f"{some(num_rows, 'pair')} under {some(len(table.outcomes), 'method')}; label and p_a are those of {table.chosen}"
    return Written(what=what, files=(out,), notes=table.notes)


def _write_items(out: Path, items: RatedItems, to: str) -> Written:
    what = f"{some(len(items), 'item')} as {to}"
    if to == "votes":
        return _write_votes(out, items)
    if to == "fairlead_items":
        write_jsonl(out, items)
        return Written(what=what, files=(out,))
    if to in _ROWS:
        return _write_some(out, items, to)
    rows = _RENDER[to](items)
    write_json_list(out, rows) if out.suffix == ".json" else write_jsonl(out, rows)
    if to != "label_studio":
        return Written(what=what, files=(out,))
    interface = out.with_name(f"{out.name}.config.xml")
    write_text(interface, label_config(items))
    return Written(what=what, files=(out, interface), notes=(f"Labeling interface for its project: {interface}",))


def _write_votes(out: Path, items: RatedItems) -> Written:
    rows = (row for item in items for row in vote_rows(item))
    first = next(rows, None)
    if first is None:
        raise DataError(
            explain(
                out, None, "would hold no vote", expected="items with verdicts", remedy="Check what the source holds"
            )
        )
    found = itertools.chain([first], rows)
    num_rows = write_csv(out, found, columns=_VOTE_COLUMNS) if out.suffix == ".csv" else write_jsonl(out, found)
    return Written(what=some(num_rows, "vote"), files=(out,))


def _write_some(out: Path, items: RatedItems, to: str) -> Written:
    """Formats that not every item fits into."""
    make, what = _ROWS[to]
    left_out: dict[str, int] = {}
    with JsonLines(out, is_optional=True) as file:
        for item in items:
            try:
                found = make(item)
            except Unusable as fault:
                left_out[str(fault)] = left_out.get(str(fault), 0) + 1
                continue
            for row in found:
                file.write(row)
    if not file.num_rows:
        raise DataError(explain(out, None, f"would hold no {what}: {', '.join(left_out) or 'there are no items'}",
                                expected=f"items that {to} can hold", remedy="Write fairlead_items, which holds everything"))  # fmt: skip
    notes = tuple(f"{count:,} not written: {reason}" for reason, count in left_out.items())
    return Written(what=f"{file.num_rows:,} {what}s", files=(out,), notes=notes)


_ROWS: dict[str, tuple[Callable[[RatedItem], list[dict[str, Any]]], str]] = {
    "oasst": (lambda item: [write_tree(item)], "tree"),
    "helpsteer2": (attribute_rows, "reply"),
}


def _min_rows(items: RatedItems) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(items, start=1):
        task: dict[str, Any] = {**write_task(item), "id": number}
        for annotation in task["annotations"]:
            if not annotation["was_cancelled"]:
                yield min_row(task, annotation)


_RENDER: dict[str, Callable[[RatedItems], Iterator[dict[str, Any]]]] = {
    "label_studio": lambda items: map(write_task, items),
    "label_studio_min": _min_rows,
    "argilla": lambda items: map(write_record, items),
}


def vote_rows(item: RatedItem) -> list[dict[str, Any]]:
    """(item, rater, label) rows of a pair, with what the rating says beside."""
    return [
        {"item": item.item or item.id, "rater": r.rater, "label": r.verdict, "swapped": str(r.swapped).lower(), "strength": r.strength,
         "confidence": r.confidence, "cost": r.cost, "duration_ms": r.duration_ms, "guideline_version": r.guideline_version,
         "created_at": r.created_at, "rationale": r.rationale,
         **{name: item.meta.get(name) for name in INCLUSION}}
        for r in item.ratings
        if r.verdict is not None
    ]  # fmt: skip
