"""Votes out of a project: for a recipe (`feedback.path`), for `fairlead votes`, and a manifest that says what must be in them.

    comparisons.jsonl   a comparison a line with texts and votes: feedback.path of a recipe
    decisions.jsonl     item, label, reason: what adjudicators said beside the votes, a pair a line; fairlead votes aggregate --gold
    votes.jsonl         item, rater, label, swapped and more: fairlead votes agreement
    items.jsonl         item, prompt, a, b: fairlead votes aggregate --items
    qualifications.jsonl  item, rater, test, expected, label, correct: answers of tests of skills, which are no votes on the pair
    demonstrations.jsonl  an edited reply a line: sft.data of a recipe
    anchors.jsonl       item, rater, kind, expected, label, correct, order: votes on hidden anchors, which are no votes on the pair
    guideline-N.md      every version that votes name
    manifest.json       rows and SHA-256 of each file

Raters appear under their pseudonyms only.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from fairlead.core.annotations import inclusion_in
from fairlead.core.errors import DataError, explain
from fairlead.core.io import write_json, write_text
from fairlead.core.records import Judgment, Message, Task
from fairlead.core.records import Verdict as Outcome
from fairlead.core.streams import JsonLines, MemberLines
from fairlead.feedback.collected import Comparison, as_row
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Guideline, Item, Person, Project, Verdict
from fairlead.store.annotation.steering import Anchor, Check
from fairlead.web import qualification
from fairlead.web.decisions import decision_meta
from fairlead.web.demonstrations.transfer import export_demonstrations
from fairlead.web.edits import edited_comparisons, edited_demonstrations
from fairlead.web.frames import pairs_of, stands_after, verdict_on
from fairlead.web.given import Given, given_items, no_votes, rated_ids
from fairlead.web.inclusion import Inclusion, inclusions
from fairlead.web.projects import get_project

_COMPARISONS = "comparisons"
_FILES = (_COMPARISONS, "votes", "decisions", "items", "anchors", "qualifications", "demonstrations")
_ALWAYS = _FILES[:4]
"""Those that are there even when they hold no row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written."""

    num_comparisons: int
    """Pairs with at least one vote or skip; a ranking is as many as it has pairs."""
    num_votes: int
    num_skips: int
    num_raters: int
    num_decisions: int
    """Items that an adjudicator decided; of a ranking all its pairs are."""
    num_demonstrations: int
    """Edited replies, for supervised fine-tuning."""
    num_overruled: int
    """Edits of replies that an adjudicator put behind another; they give no demonstration."""


@dataclass(slots=True, kw_only=True)
class _Counts:
    """What has been written so far."""

    num_said: int = 0
    """Votes and skips that the database holds, each once."""
    num_skips: int = 0
    num_overruled: int = 0
    raters: set[str] = field(default_factory=set[str])
    versions: set[str] = field(default_factory=set[str])


def export_project(
    database: Database, project: Project, out: Path, *, comparisons: MemberLines | None = None
) -> Export:
    """Write all files of a project as of one moment, prompt by prompt; none is there before all are complete.

    Args:
        comparisons: where the comparisons go in place of their file, as they are read.
    Raises:
        DataError: nobody has voted yet, or the files do not hold what the database does.
    """
    with database.read() as rows:
        ids = rated_ids(rows, project.id, by_prompt=True)
        if not ids:
            raise no_votes(project)
        with contextlib.ExitStack() as stack:
            given = {} if comparisons is None else {_COMPARISONS: comparisons}
            files: dict[str, JsonLines | MemberLines] = {
                name: given.get(name)
                or stack.enter_context(JsonLines(out / f"{name}.jsonl", is_optional=name not in _ALWAYS))
                for name in _FILES
            }
            counts = _write_votes(rows, project, ids, files)
            _check_complete(rows, project, counts)
            for row in _decision_rows(rows, project.id):
                files["decisions"].write(row)
            for row in _checks(rows, project.id):
                files["anchors"].write(row)
            for row in qualification.exported(rows, project.id):
                files["qualifications"].write(row)
        num_decisions = rows.scalar(sa.select(sa.func.count()).select_from(Decision).where(Decision.project_id == project.id))  # fmt: skip
        guidelines = rows.scalars(sa.select(Guideline).where(Guideline.project_id == project.id)).all()
    documents = [guideline for guideline in guidelines if str(guideline.version) in counts.versions]
    for guideline in documents:
        write_text(out / f"guideline-{guideline.version}.md", guideline.text)
    export = Export(
        num_comparisons=files["comparisons"].num_rows,
        num_votes=counts.num_said - counts.num_skips,
        num_skips=counts.num_skips,
        num_raters=len(counts.raters),
        num_decisions=num_decisions or 0,
        num_demonstrations=files["demonstrations"].num_rows,
        num_overruled=counts.num_overruled,
    )
    written = [f"{name}.jsonl" for name, file in files.items() if file.num_rows or name in _ALWAYS]
    written += [f"guideline-{guideline.version}.md" for guideline in documents]
    sent = {} if comparisons is None else {f"{_COMPARISONS}.jsonl": comparisons.sha256}
    digests = {name: sent.get(name) or _digest(out / name) for name in written}
    _write_manifest(out, project, export, digests)
    return export


def _write_votes(
    rows: Rows, project: Project, ids: Sequence[str], files: Mapping[str, JsonLines | MemberLines]
) -> _Counts:
    counts, included = _Counts(), inclusions(rows, project)
    found = given_items(rows, project.id, ids)
    for _, group in itertools.groupby(found, key=lambda each: each.item.prompt_id):
        given = list(group)
        for comparison in comparisons_of(given, included=included):
            files["comparisons"].write(as_row(comparison))
            files["items"].write(_item_row(comparison))
            for vote in comparison.judgments:
                files["votes"].write(_vote_row(vote))
                counts.raters.add(vote.rater)
                counts.versions.add(vote.guideline_version)
        edits = edited_demonstrations(given, project=project.name)
        counts.num_overruled += edits.num_overruled
        for demonstration in edits.demonstrations:
            files["demonstrations"].write(demonstration)
        for each in given:
            counts.num_said += len(each.votes)
            counts.num_skips += sum(verdict.verdict == "skip" for verdict, _, _ in each.votes)
    return counts


def _check_complete(rows: Rows, project: Project, counts: _Counts) -> None:
    num_stored = rows.scalar(
        sa.select(sa.func.count()).select_from(Verdict).join(Item, Item.id == Verdict.item_id)
        .where(Verdict.project_id == project.id, Item.use != "anchor")
    ) or 0  # fmt: skip
    if counts.num_said != num_stored:
        raise DataError(
            explain(
                "votes",
                counts.num_said,
                "is not what the database holds",
                expected=str(num_stored),
                remedy="Export again, and report this",
            )
        )


def _write_manifest(out: Path, project: Project, export: Export, digests: Mapping[str, str]) -> None:
    write_json(out / "manifest.json", {
        "project": project.name, "comparisons": export.num_comparisons, "votes": export.num_votes, "skips": export.num_skips,
        "raters": export.num_raters, "decisions": export.num_decisions, "demonstrations": export.num_demonstrations,
        "overruled_edits": export.num_overruled, "sha256": digests,
    })  # fmt: skip


def write_archive(archive: zipfile.ZipFile, database: Database, project_id: str) -> None:
    """All files of a project into an archive: the comparisons while they are read, what is written beside them after that."""
    with database.read() as rows:
        project = get_project(rows, project_id)
    with tempfile.TemporaryDirectory(prefix="fairlead-export-") as folder:
        if project.kind == "demonstration":
            export_demonstrations(database, project, Path(folder))
        else:
            with MemberLines(archive, f"{_COMPARISONS}.jsonl") as comparisons:
                export_project(database, project, Path(folder), comparisons=comparisons)
        add_files(archive, Path(folder))


def add_files(archive: zipfile.ZipFile, folder: Path) -> None:
    """Each file of a folder as a member."""
    for file in sorted(folder.iterdir()):
        archive.write(file, file.name)


def comparisons_of(given: Sequence[Given], *, included: Mapping[str, Inclusion]) -> list[Comparison]:
    """The votes on the items of one prompt by pair of completions.

    A ranking is a comparison of every two of its completions; what was said of one pair in two items stands together.
    """
    found: dict[str, Comparison] = {}
    for each in given:
        item, texts, votes = each.item, each.texts, each.votes
        came_in = included[item.id].meta() if item.id in included else {}
        for first, second in pairs_of(len(texts.completions)):
            a, b = texts.completions[first], texts.completions[second]
            meta: dict[str, Any] = {"use": item.use, **came_in}
            if len(texts.completions) > 2:
                meta["item"] = item.content_id
            meta |= decision_meta(each.decision, first, second)
            task = Task(prompt_id=texts.prompt.id, completion_a=a.id, completion_b=b.id, meta=meta)
            made = {vote.rater: vote for vote in (_judgment(task.id, (first, second), *vote) for vote in votes)}
            known = found.get(task.id)
            if known is not None:  # a rater who judged the pair in both items is heard once, and so is who decided it
                made |= {vote.rater: vote for vote in known.judgments}
                task = known.task if "decision" in known.task.meta else task
            found[task.id] = Comparison(prompt=texts.prompt, a=a, b=b, task=task, judgments=tuple(made.values()))
        for comparison in edited_comparisons(item, texts, votes, meta=came_in):
            known = found.setdefault(comparison.task.id, comparison)
            if comparison.judgments[0].rater not in {vote.rater for vote in known.judgments}:  # two wrote the same
                judgments = (*known.judgments, *comparison.judgments)
                found[comparison.task.id] = dataclasses.replace(known, judgments=judgments)
    return list(found.values())


def _decision_rows(rows: Rows, project_id: str) -> Iterator[dict[str, Any]]:
    found = rows.execute(
        sa.select(Item, Decision, Person.pseudonym).join(Decision, Decision.item_id == Item.id)
        .join(Person, Person.id == Decision.person_id).where(Decision.project_id == project_id).order_by(Item.content_id)
    )  # fmt: skip
    seen: set[str] = set()
    for item, decision, pseudonym in found:
        for first, second in pairs_of(len(item.completions)):
            pair = Task(
                prompt_id=item.prompt_id, completion_a=item.completions[first], completion_b=item.completions[second]
            )
            said = decision_meta(decision, first, second)
            if said and pair.id not in seen:  # a pair of two items has one decision here, as in the comparisons
                seen.add(pair.id)
                kept = {"label" if name == "verdict" else name: value for name, value in said["decision"].items()}
                yield {"item": pair.id, **kept, "adjudicator": pseudonym}


def _judgment(
    task_id: str, pair: tuple[int, int], verdict: Verdict, assignment: Assignment, pseudonym: str
) -> Judgment:
    meta: dict[str, Any] = {
        name: value
        for name in ("rationale", "skip_reason", "active_ms")
        if (value := getattr(verdict, name)) not in ("", None)
    }
    sides = dict(zip(pair, ("a", "b"), strict=True))
    if verdict.criteria:
        meta["criteria"] = {name: [given[position] for position in pair] for name, given in verdict.criteria.items()}
    spans = [{"side": sides[span["completion"]], **{name: span[name] for name in ("start", "end", "label", "note")}}
             for span in verdict.spans if span["completion"] in sides]  # fmt: skip
    if spans:
        meta["spans"] = spans
    is_decided = verdict.verdict not in ("skip", "both_bad")
    return Judgment(
        task_id=task_id, rater=pseudonym, rater_kind="human", strength=verdict.strength, order=assignment.position,
        verdict=cast(Outcome, verdict_on(verdict.ranking, *pair) if is_decided else verdict.verdict),
        swapped=stands_after(assignment.shown, *pair), guideline_version=str(verdict.guideline_version), meta=meta,
    )  # fmt: skip


def _checks(rows: Rows, project_id: str) -> Iterator[dict[str, Any]]:
    root = aliased(Item)
    found = rows.execute(
        sa.select(root.content_id, Person.pseudonym, Anchor.kind, Check, Verdict.verdict).select_from(Check)
        .join(Anchor, Anchor.item_id == Check.item_id).join(root, root.id == Anchor.root_id)
        .join(Person, Person.id == Check.person_id).join(Verdict, Verdict.assignment_id == Check.assignment_id)
        .where(Check.project_id == project_id, ~Anchor.is_retired).order_by(Person.pseudonym, Check.position)
    )  # fmt: skip
    for pair_id, pseudonym, kind, check, label in found:
        yield {"item": pair_id, "rater": pseudonym, "kind": kind, "expected": check.expected, "label": label, "correct": check.is_right,
               "order": check.position}  # fmt: skip


def _vote_row(vote: Judgment) -> dict[str, Any]:
    return {
        "item": vote.task_id, "rater": vote.rater, "label": vote.verdict, "swapped": vote.swapped, "strength": vote.strength,
        "order": vote.order, "guideline_version": vote.guideline_version, **vote.meta,
    }  # fmt: skip


def _item_row(comparison: Comparison) -> dict[str, Any]:
    messages = [_turn(message) for message in comparison.prompt.messages]
    is_plain = len(messages) == 1 and messages[0]["role"] == "user"
    return {
        "item": comparison.task.id,
        "prompt": messages[0]["content"] if is_plain else messages,
        "a": comparison.a.text,
        "b": comparison.b.text,
        **inclusion_in(comparison.task.meta),
    }


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
