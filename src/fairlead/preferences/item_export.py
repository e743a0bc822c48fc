"""Rated items to the files of other programs, and from one annotation tool to another: what `fairlead votes convert` does.

Items go to tools that rate (with every rating), preferences to programs that train (with votes, posterior, margin, weight, provenance).

Example:
    convert("export.json", "pairs.jsonl", to="trl", method="one_coin")
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlead.core.annotations import RatedItem, Rating
from fairlead.core.errors import ConfigError, DataError, explain, nearest
from fairlead.core.io import Rejects, write_csv, write_json, write_jsonl, write_text
from fairlead.core.records import Completion, Preference, Prompt, Task
from fairlead.core.summary import Figure, StageSummary
from fairlead.formats import FORMATS, ReadReport, read_annotations, read_mapping, write_preferences
from fairlead.formats.annotation_checks import has_alternating_turns
from fairlead.formats.argilla import DRAFT, write_record
from fairlead.formats.base import Unusable
from fairlead.formats.fine_tuning import provenance_path, write_fine_tuning
from fairlead.formats.label_studio import ONLY_NUMBER, label_config, min_row, write_task
from fairlead.formats.oasst_export import write_tree
from fairlead.formats.vendor import NO_VOTE
from fairlead.preferences.aggregate import Method, Verdicts, aggregate_pairs, choose_method
from fairlead.preferences.pairs import Candidate, Ledger, Rules, build_preferences

ITEM_TARGETS = ("fairlead_items", "label_studio", "label_studio_min", "argilla", "oasst", "votes")
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
)
_SHOWN = 10
"""Faulty rows that a message lists; the rejects file has all."""


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
    out = Path(out)
    with Rejects(out.with_name(f"{out.name}.rejects.jsonl")) as rejects:
        items, report, repeats = read_items(path, source_format=source_format, mapping=mapping, rejects=rejects)
        faults = {reason: count for reason, count in report.left_out.items() if reason not in _NO_FAULTS}
        if is_strict and (rejects.total or faults or repeats):
            raise DataError(explain(path, None, f"has faults and nothing was written: {_faults(rejects, faults, repeats)}",
                                    expected="no faulty row with --strict",
                                    remedy=f"Fix them ({rejects.path.name} lists all), or leave --strict out to take the rest"))  # fmt: skip
    shown = [_blinded(item) for item in items] if is_blind else items
    written = _write(out, shown, to=to, method=method)
    return StageSummary(
        stage="votes", headline=f"{written.what} from {len(items):,} items with {sum(len(i.ratings) for i in items):,} ratings.",
        figures=(Figure(name="items", value=len(items), note="a count, exact"),),
        notes=(*written.notes, *_notes(items, rejects, faults, repeats)),
        facts={"rejects": report.rejects, "left_out": report.left_out, "repeats": list(repeats), "files": [str(p) for p in written.files]},
    )  # fmt: skip


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
        notes.append(f"{rejects.total:,} faulty rows are in {rejects.path}")
    notes += [f"{count:,} x {reason}" for reason, count in faults.items()]
    if repeats:
        notes.append(f"{len(repeats):,} items repeat an earlier id and were left out: {', '.join(repeats[:_SHOWN])}")
    odd = sum(not has_alternating_turns(item.prompt) for item in items)
    if odd:
        notes.append(
            f"{odd:,} prompts hold two turns of one speaker in a row; they are kept as they are, for that is what the models saw"
        )
    return tuple(notes)


def _blinded(item: RatedItem) -> RatedItem:
    replies = tuple(dataclasses.replace(reply, model="") for reply in item.replies)
    return dataclasses.replace(item, replies=replies, id="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    what: str
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def _write(out: Path, items: Sequence[RatedItem], *, to: str, method: str) -> _Written:
    if to in ITEM_TARGETS:
        return _write_items(out, items, to)
    preferences, ledger = item_preferences(items, method=method)
    if to in TUNING_TARGETS:
        report = write_fine_tuning(out, preferences, is_supervised=to == "fine_tuning_sft")
        files, beside = (
            (out, provenance_path(out)),
            (f"Votes, posterior and provenance, line for line: {provenance_path(out)}",),
        )
    else:
        report = write_preferences(out, preferences, format=to)
        files, beside = (out,), ()
    left = [f"{count:,} not written: {reason}" for reason, count in report.left_out.items()]
    dropped = [f"{ledger.reasons()} left out"] if ledger.dropped else []
    return _Written(what=f"{report.written:,} rows of {to}", files=files, notes=(*beside, *left, *dropped))


def _write_items(out: Path, items: Sequence[RatedItem], to: str) -> _Written:
    what = f"{len(items):,} items as {to}"
    if to == "votes":
        rows = [row for item in items for row in vote_rows(item)]
        if not rows:
            raise DataError(
                explain(
                    out,
                    None,
                    "would hold no vote",
                    expected="items with verdicts",
                    remedy="Check what the source holds",
                )
            )
        write_csv(out, rows, columns=_VOTE_COLUMNS) if out.suffix == ".csv" else write_jsonl(out, rows)
        return _Written(what=f"{len(rows):,} votes", files=(out,))
    if to == "fairlead_items":
        write_jsonl(out, items)
        return _Written(what=what, files=(out,))
    if to == "oasst":
        return _write_trees(out, items)
    rows = _RENDER[to](items)
    write_json(out, rows) if out.suffix == ".json" else write_jsonl(out, rows)
    if to != "label_studio":
        return _Written(what=what, files=(out,))
    interface = out.with_name(f"{out.name}.config.xml")
    write_text(interface, label_config(items))
    return _Written(what=what, files=(out, interface), notes=(f"Labeling interface for its project: {interface}",))


def _write_trees(out: Path, items: Sequence[RatedItem]) -> _Written:
    rows: list[dict[str, Any]] = []
    left_out: dict[str, int] = {}
    for item in items:
        try:
            rows.append(write_tree(item))
        except Unusable as fault:
            left_out[str(fault)] = left_out.get(str(fault), 0) + 1
    if not rows:
        raise DataError(explain(out, None, f"would hold no tree: {', '.join(left_out)}", expected="items that a tree can hold",
                                remedy="Write fairlead_items, which holds everything"))  # fmt: skip
    write_jsonl(out, rows)
    notes = tuple(f"{count:,} not written: {reason}" for reason, count in left_out.items())
    return _Written(what=f"{len(rows):,} trees", files=(out,), notes=notes)


def _min_rows(items: Iterable[RatedItem]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, item in enumerate(items, start=1):
        task: dict[str, Any] = {**write_task(item), "id": number}
        found += [min_row(task, annotation) for annotation in task["annotations"] if not annotation["was_cancelled"]]
    return found


_RENDER: dict[str, Callable[[Sequence[RatedItem]], list[dict[str, Any]]]] = {
    "label_studio": lambda items: [write_task(item) for item in items],
    "label_studio_min": _min_rows,
    "argilla": lambda items: [write_record(item) for item in items],
}


def vote_rows(item: RatedItem) -> list[dict[str, Any]]:
    """(item, rater, label) rows of a pair, with what the rating says beside."""
    return [
        {"item": item.item or item.id, "rater": r.rater, "label": r.verdict, "swapped": str(r.swapped).lower(), "strength": r.strength,
         "confidence": r.confidence, "cost": r.cost, "duration_ms": r.duration_ms, "guideline_version": r.guideline_version,
         "created_at": r.created_at, "rationale": r.rationale}
        for r in item.ratings
        if r.verdict is not None
    ]  # fmt: skip


def item_preferences(items: Sequence[RatedItem], *, method: str = "auto") -> tuple[list[Preference], Ledger]:
    """Aggregate the ratings of all items together, so that raters are known from all of their work; ties are kept as ties.

    A ranking of more than two replies is a vote on each of its pairs.
    """
    pairs = [pair for item in items for pair in _pairs(item)]
    rows = [(name, rating.rater, verdict) for name, _, _, _, _, votes in pairs for rating, verdict in votes]
    swapped = [rating.swapped for _, _, _, _, _, votes in pairs for rating, _ in votes]
    verdicts = Verdicts.from_rows(rows, swapped=swapped)
    known = (*typing.get_args(Method), "auto")
    if method not in known:
        raise ConfigError(
            explain(
                "method",
                method,
                f"is not known{nearest(method, known)}",
                expected=", ".join(known),
                remedy="Choose one of them",
            )
        )
    outcome = aggregate_pairs(verdicts, method=choose_method(typing.cast(Any, method), verdicts),
                              completions={name: (task.completion_a, task.completion_b) for name, task, _, _, _, _ in pairs})  # fmt: skip
    ledger = Ledger()
    candidates = [
        Candidate(task=task, prompt=prompt, a=a, b=b, outcome=outcome.pairs.get(name), judgments=tuple(_name(r, task) for r, _ in votes))
        for name, task, prompt, a, b, votes in pairs
    ]  # fmt: skip
    found = build_preferences(candidates, rules=Rules(ties="keep"), ledger=ledger)
    strengths = {task.id: [r.strength for r, _ in votes] for _, task, _, _, _, votes in pairs}
    models = {task.id: (a, b) for _, task, _, a, b, _ in pairs}
    return [_described(p, strengths, models, outcome.method) for p in found], ledger


def _described(
    preference: Preference,
    strengths: Mapping[str, list[int]],
    models: Mapping[str, tuple[Completion, Completion]],
    method: str,
) -> Preference:
    """Strengths, in the frame of the task, and who wrote what: kept in meta."""
    task_id = str(preference.meta.get("task_id"))
    a, b = models[task_id]
    is_first = preference.chosen_id == a.id
    votes = strengths[task_id]
    extra: dict[str, Any] = {"method": method}
    if any(votes):
        extra["votes"] = [vote if is_first else -vote for vote in votes]
    for name, side in (("chosen_model", a if is_first else b), ("rejected_model", b if is_first else a)):
        if side.model:
            extra[name] = side.model
    return dataclasses.replace(preference, meta={**preference.meta, **extra})


_Pair = tuple[str, Task, Prompt, Completion, Completion, list[tuple[Rating, str]]]


def _pairs(item: RatedItem) -> list[_Pair]:
    prompt = Prompt(messages=item.prompt, slice=item.slice, source=item.source, split=item.split)
    completions = [Completion(prompt_id=prompt.id, text=reply.text, model=reply.model) for reply in item.replies]
    found: list[_Pair] = []
    for i, first in enumerate(item.replies):
        for j in range(i + 1, len(item.replies)):
            second = item.replies[j]
            name = item.item or item.id
            name = name if len(item.replies) == 2 else f"{name}:{first.id}:{second.id}"
            task = Task(prompt_id=prompt.id, completion_a=completions[i].id, completion_b=completions[j].id, id=name)
            votes = [
                (r, v)
                for r in item.ratings
                if (v := _vote(r, first.id, second.id, is_pair=len(item.replies) == 2)) is not None
            ]
            found.append((name, task, prompt, completions[i], completions[j], votes))
    return found


def _vote(rating: Rating, first: str, second: str, *, is_pair: bool) -> str | None:
    if is_pair and rating.verdict is not None:
        return rating.verdict
    places = {name: place for place, tied in enumerate(rating.ranking) for name in tied}
    if first not in places or second not in places or rating.verdict == "skip":
        return None
    gap = places[first] - places[second]
    return "tie" if gap == 0 else "a" if gap < 0 else "b"


def _name(rating: Rating, task: Task) -> str:
    return rating.source_id or f"{task.id}/{rating.rater}"
