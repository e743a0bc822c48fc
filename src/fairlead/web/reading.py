"""Items of a file or folder: a run's completions, pairs of any preference file that `formats` reads, or the items of another annotation tool.

What a file says of quality (chosen, rejected, scores) is left behind: raters see texts in an order that says nothing.

Example:
    found = read_source(Path("hh.jsonl.gz"), seed=0, rejects_file=Path("rejects.jsonl"))
    added = importing.add_items(database, project.id, found.items, ratings=found.ratings, source="hh.jsonl.gz")
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairlead.core.annotations import MAX_REPLIES, RatedItem, Rating, asked_in
from fairlead.core.errors import DataError, explain
from fairlead.core.io import read_records
from fairlead.core.records import Completion, Prompt
from fairlead.feedback.tasks import choose_groups, make_tasks
from fairlead.formats import detect_format, find_format, prompt_part, read_annotations, read_preferences
from fairlead.formats.annotation_checks import has_alternating_turns
from fairlead.formats.argilla import DRAFT
from fairlead.formats.label_studio import ONLY_NUMBER
from fairlead.formats.vendor import NO_VOTE, ColumnMapping
from fairlead.web.importing import MAX_TEXT, NewItem
from fairlead.web.needs import needs_of
from fairlead.web.outside import in_order
from fairlead.web.screening import NUM_FAULTS, Placed, screened

_NO_FAULTS = frozenset({NO_VOTE, DRAFT, ONLY_NUMBER})
"""Parts of a row that are sound and hold no vote."""


@dataclass(slots=True, kw_only=True)
class Found:
    """Items of a file or folder, and what became of the rest."""

    items: list[NewItem]
    left_out: dict[str, int] = field(default_factory=dict[str, int])
    """Rows, prompts or items that gave nothing, by reason."""
    faults: list[str] = field(default_factory=list[str])
    """The first faulty rows: line and reason."""
    ratings: dict[str, tuple[Rating, ...]] = field(default_factory=dict[str, tuple[Rating, ...]])
    """What raters of another tool said, by the content ids of items, in canonical order."""
    repeats: int = 0
    """Items that stand more than once; they are taken once, with all of their ratings."""
    num_uneven: int = 0
    """Items whose conversation has two turns of one speaker in a row; kept, for that is what the models saw."""

    def leave_out(self, reason: str, num: int = 1) -> None:
        """Count what gave nothing."""
        if num:
            self.left_out[reason] = self.left_out.get(reason, 0) + num


def read_source(
    path: Path, *, pairs_per_prompt: int = 1, group_size: int = 2, seed: int, rejects_file: Path, source_format: str | None = None,
    mapping: ColumnMapping | None = None,
) -> Found:  # fmt: skip
    """Read a folder with prompts.jsonl and completions.jsonl, or a file of preferences or rated items in any known format.

    Args:
        source_format: of the file; recognised when None.
        mapping: which column is what in a vendor's table.
        group_size: completions of an item. With 2 every pair of a file is an item; with more all completions of a prompt are one, to be
            ranked, up to this many.
    Raises:
        DataError: nothing usable is in it.
    """
    if not 2 <= group_size <= MAX_REPLIES:
        raise DataError(explain("group size", group_size, "cannot be rated", expected=f"2 to {MAX_REPLIES}", remedy="Choose another"))  # fmt: skip
    found = (
        _read_run(path, pairs_per_prompt=pairs_per_prompt, group_size=group_size, seed=seed)
        if path.is_dir()
        else _read_file(
            path, rejects_file, group_size=group_size, seed=seed, source_format=source_format, mapping=mapping
        )
    )
    found.items, items = [], found.items
    for item in items:
        reason = _fault(item)
        if reason is None:
            found.items.append(item)
        else:
            found.leave_out(reason)
    kept = {item.content_id for item in found.items}
    found.repeats = len(found.items) - len(kept)
    found.num_uneven = sum(not has_alternating_turns(item.prompt.messages) for item in found.items)
    found.ratings = {name: ratings for name, ratings in found.ratings.items() if name in kept and ratings}
    if not found.items:
        reasons = ", ".join(f"{num:,} {reason}" for reason, num in found.left_out.items()) or "it is empty"
        raise DataError(explain(path, None, f"gives no pair to rate ({reasons})", expected="two different completions of a prompt",
                                remedy="Check the file"))  # fmt: skip
    return found


def _read_run(folder: Path, *, pairs_per_prompt: int, group_size: int, seed: int) -> Found:
    for name in ("prompts.jsonl", "completions.jsonl"):
        if not (folder / name).is_file():
            raise DataError(explain(folder / name, None, "is missing", expected="prompts.jsonl and completions.jsonl in one folder",
                                    remedy="Copy both files of a run into a folder, or name a file of pairs"))  # fmt: skip
    prompts = {prompt.id: prompt for prompt in read_records(folder / "prompts.jsonl", Prompt)}
    completions = {c.id: c for c in read_records(folder / "completions.jsonl", Completion)}
    groups: dict[str, list[Completion]] = {}
    for completion in completions.values():
        if completion.prompt_id not in prompts:
            raise DataError(explain(f"{folder / 'completions.jsonl'}: {completion.id}.prompt_id", completion.prompt_id, "is no prompt of the run",
                                    expected="files of one run", remedy="Copy both files of the same run"))  # fmt: skip
        groups.setdefault(completion.prompt_id, []).append(completion)
    plan = make_tasks(groups, pairs_per_prompt=pairs_per_prompt, seed=seed)
    if group_size > 2:
        chosen = choose_groups(groups, group_size=group_size, seed=seed)
        found = Found(items=[NewItem.of(prompts[name], group) for name, group in chosen.items()])
    else:
        named = [(prompts[t.prompt_id], (completions[t.completion_a], completions[t.completion_b])) for t in plan.tasks]
        found = Found(items=[NewItem.of(prompt, texts) for prompt, texts in named])
    found.leave_out("prompts with fewer than two completions", plan.num_single)
    found.leave_out("prompts whose completions are all equal", plan.num_identical)
    return found


def _read_file(
    path: Path, rejects_file: Path, *, group_size: int, seed: int, source_format: str | None, mapping: ColumnMapping | None
) -> Found:  # fmt: skip
    found = Found(items=[])
    with Placed(rejects_file, original=path) as rejects, screened(path, found.leave_out, rejects) as file:
        known = None if mapping else find_format(source_format) if source_format else detect_format(file)
        if known is None or known.kind == "annotations":
            reading = read_annotations(file, format=known.name if known else None, columns=mapping, rejects=rejects)
            for item in reading:
                new = _new(_prompt(item), [reply.text for reply in item.replies])
                found.items.append(new)
                if len({c.text for c in new.completions}) == len(item.replies):  # else the item is left out as a whole
                    before = found.ratings.get(new.content_id, ())
                    found.ratings[new.content_id] = (*before, *in_order(item, new.completions))
        else:
            reading = read_preferences(file, format=known.name, rejects=rejects)
            pairs = [
                (prompt_part(preference), (preference.chosen, preference.rejected), preference.is_tie)
                for preference in reading
            ]
            found.items = (
                [_new(prompt, texts, best=texts[0], is_tie=is_tie) for prompt, texts, is_tie in pairs]
                if group_size == 2
                else _join([pair[:2] for pair in pairs], group_size=group_size, seed=seed)
            )
        found.faults = rejects.listed(NUM_FAULTS)
    for reason, num in (*reading.report.rejects.items(), *reading.report.skips.items()):
        found.leave_out(f"rows: {reason}", num)
    if mapping or (known is not None and known.kind == "annotations"):
        for reason, num in reading.report.left_out.items():
            if reason not in _NO_FAULTS:
                found.leave_out(f"parts of rows: {reason}", num)
    return found


def _prompt(item: RatedItem) -> Prompt:
    return Prompt(
        messages=item.prompt, slice=item.slice, source=item.source, split=item.split, meta=asked_in(item.meta)
    )


def _new(prompt: Prompt, texts: Sequence[str], *, best: str = "", is_tie: bool = False) -> NewItem:
    """Who wrote a text is not taken over: raters could not know, and files that name only some models would tell them apart."""
    made = (Completion(prompt_id=prompt.id, text=text, model="unknown") for text in texts)
    return NewItem.of(prompt, made, best=best, is_tie=is_tie)


def _join(pairs: Iterable[tuple[Prompt, tuple[str, str]]], *, group_size: int, seed: int) -> list[NewItem]:
    """All texts of a prompt as one item."""
    prompts: dict[str, Prompt] = {}
    groups: dict[str, list[Completion]] = {}
    for prompt, texts in pairs:
        prompts[prompt.id] = prompt
        groups.setdefault(prompt.id, []).extend(_new(prompt, texts).completions)
    chosen = choose_groups(groups, group_size=group_size, seed=seed)
    return [NewItem.of(prompts[name], group) for name, group in chosen.items()]


def _fault(item: NewItem) -> str | None:
    replies = [completion.text for completion in item.completions]
    texts = (*(message.content for message in item.prompt.messages), *replies)
    if not all(text.strip() for text in replies):
        return "items with an empty reply"
    if len({text.strip() for text in replies}) < len(replies):
        return "items with equal replies"
    if any("\0" in text for text in texts):
        return "items with a NUL character"
    if max(map(len, texts)) > MAX_TEXT:
        return f"items with a text beyond {MAX_TEXT:,} characters"
    try:
        needs_of(item.prompt.meta)
    except ValueError as fault:
        return f"items whose language or skills are {fault}"
    return None
