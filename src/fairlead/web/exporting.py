"""Votes out of a project: for a recipe (`feedback.path`), for `fairlead votes`, and a manifest that says what must be in them.

    comparisons.jsonl   a comparison a line with texts and votes: feedback.path of a recipe
    decisions.jsonl     item, label, reason: what adjudicators said beside the votes; fairlead votes aggregate --gold
    votes.jsonl         item, rater, label, swapped and more: fairlead votes agreement
    items.jsonl         item, prompt, a, b: fairlead votes aggregate --items
    anchors.jsonl       item, rater, kind, expected, label, correct, order: votes on hidden anchors, which are no votes on the pair
    guideline-N.md      every version that votes name
    manifest.json       rows and SHA-256 of each file

Raters appear under their pseudonyms only.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from fairlead.core.errors import DataError, explain
from fairlead.core.io import write_json, write_jsonl, write_text
from fairlead.core.records import Completion, Judgment, Message, Task
from fairlead.core.records import Verdict as Outcome
from fairlead.feedback.collected import Comparison, write_collected
from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Assignment, Guideline, Item, Person, Project, Verdict
from fairlead.store.annotation.steering import Anchor, Check
from fairlead.web.decisions import decisions_of
from fairlead.web.demonstrations.transfer import export_demonstrations
from fairlead.web.frames import pairs_of, stands_after, verdict_on
from fairlead.web.importing import NewItem, texts_of
from fairlead.web.projects import get_project


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What was written."""

    num_comparisons: int
    """Pairs with at least one vote or skip; a ranking is as many as it has pairs."""
    num_votes: int
    num_skips: int
    num_raters: int
    num_decisions: int


def export_project(database: Database, project: Project, out: Path) -> Export:
    """Write all files of a project as of one moment.

    Raises:
        DataError: nobody has voted yet, or the files do not hold what the database does.
    """
    with database.read() as rows:
        given = _given(rows, project.id)
        comparisons = list(_comparisons(rows, given, decided=decisions_of(rows, project.id)))
        decided = list(_decision_rows(rows, project.id))
        guidelines = list(rows.scalars(sa.select(Guideline).where(Guideline.project_id == project.id)))
        num_stored = rows.scalar(
            sa.select(sa.func.count()).select_from(Verdict).join(Item, Item.id == Verdict.item_id)
            .where(Verdict.project_id == project.id, Item.use != "anchor")
        ) or 0  # fmt: skip
        checks = list(_checks(rows, project.id))
    said = [verdict for _, votes in given for verdict, _, _ in votes]
    if not comparisons:
        raise DataError(
            explain(
                project.name,
                None,
                "has no votes yet",
                expected="at least one vote",
                remedy="Invite raters first: fairlead annotate invite",
            )
        )
    if len(said) != num_stored:
        raise DataError(
            explain(
                "votes",
                len(said),
                "is not what the database holds",
                expected=str(num_stored),
                remedy="Export again, and report this",
            )
        )
    votes = [judgment for comparison in comparisons for judgment in comparison.judgments]
    out.mkdir(parents=True, exist_ok=True)
    write_collected(out / "comparisons.jsonl", comparisons)
    write_jsonl(out / "votes.jsonl", (_vote_row(vote) for vote in votes))
    write_jsonl(out / "decisions.jsonl", decided)
    write_jsonl(out / "items.jsonl", (_item_row(comparison) for comparison in comparisons))
    if checks:
        write_jsonl(out / "anchors.jsonl", checks)
    used = {vote.guideline_version for vote in votes}
    documents = [guideline for guideline in guidelines if str(guideline.version) in used]
    for guideline in documents:
        write_text(out / f"guideline-{guideline.version}.md", guideline.text)
    num_skips = sum(verdict.verdict == "skip" for verdict in said)
    export = Export(
        num_comparisons=len(comparisons),
        num_votes=len(said) - num_skips,
        num_skips=num_skips,
        num_raters=len({v.rater for v in votes}),
        num_decisions=len(decided),
    )
    names = [
        "comparisons.jsonl",
        "votes.jsonl",
        "decisions.jsonl",
        "items.jsonl",
        *(["anchors.jsonl"] if checks else []),
        *(f"guideline-{g.version}.md" for g in documents),
    ]
    write_json(out / "manifest.json", {
        "project": project.name, "comparisons": export.num_comparisons, "votes": export.num_votes, "skips": export.num_skips,
        "raters": export.num_raters, "decisions": export.num_decisions, "sha256": {name: _digest(out / name) for name in names},
    })  # fmt: skip
    return export


def zip_project(database: Database, project_id: str) -> Path:
    """All files of a project in an archive, alone in a new temporary folder that the caller removes."""
    with database.read() as rows:
        project = get_project(rows, project_id)
    folder = Path(tempfile.mkdtemp(prefix="fairlead-export-"))
    try:
        export = export_demonstrations if project.kind == "demonstration" else export_project
        export(database, project, folder / "votes")
        return Path(shutil.make_archive(str(folder / "votes"), "zip", folder / "votes"))
    except BaseException:
        shutil.rmtree(folder)
        raise


_Vote = tuple[Verdict, Assignment, str]


def _given(rows: Rows, project_id: str) -> list[tuple[Item, list[_Vote]]]:
    """Items with what was said of them, by whom (pseudonym)."""
    found = rows.execute(
        sa.select(Item, Verdict, Assignment, Person.pseudonym)
        .join(Verdict, Verdict.item_id == Item.id).join(Assignment, Assignment.id == Verdict.assignment_id)
        .join(Person, Person.id == Verdict.person_id)
        .where(Item.project_id == project_id, Item.use != "anchor").order_by(Item.content_id, Person.pseudonym)
    ).all()  # fmt: skip
    grouped: dict[str, tuple[Item, list[_Vote]]] = {}
    for item, verdict, assignment, pseudonym in found:
        grouped.setdefault(item.id, (item, []))[1].append((verdict, assignment, pseudonym))
    return list(grouped.values())


def _comparisons(
    rows: Rows, given: Sequence[tuple[Item, list[_Vote]]], *, decided: Mapping[str, Decision]
) -> Iterable[Comparison]:
    """A ranking is a comparison of every two of its completions; what was said of one pair in two items stands together."""
    found: dict[str, Comparison] = {}
    for item, votes in given:
        texts = texts_of(rows, item)
        for first, second in pairs_of(len(texts.completions)):
            a, b = texts.completions[first], texts.completions[second]
            meta: dict[str, Any] = {"use": item.use}
            if len(texts.completions) > 2:
                meta["item"] = item.content_id
            if (first, second) == (0, 1):  # which is what adjudicators decide
                meta |= _decision(decided.get(item.id))
            task = Task(prompt_id=texts.prompt.id, completion_a=a.id, completion_b=b.id, meta=meta)
            made = {vote.rater: vote for vote in (_judgment(task.id, (first, second), *vote) for vote in votes)}
            if task.id in found:  # a rater who judged the pair in both items is heard once
                made |= {vote.rater: vote for vote in found[task.id].judgments}
            found[task.id] = Comparison(prompt=texts.prompt, a=a, b=b, task=task, judgments=tuple(made.values()))
        for comparison in _edited(item, texts, votes):
            found.setdefault(comparison.task.id, comparison)
    return found.values()


def _edited(item: Item, texts: NewItem, votes: Sequence[_Vote]) -> Iterator[Comparison]:
    """An edited text beats every completion of its item: a vote of the rater who wrote it, on a pair that nobody was shown."""
    for verdict, assignment, pseudonym in votes:
        if verdict.edited is None:
            continue
        source = texts.completions[verdict.edited].id
        better = Completion(
            prompt_id=texts.prompt.id,
            text=verdict.edited_text,
            model=f"edited by {pseudonym}",
            meta={"edited_from": source},
        )
        for other in texts.completions:
            a, b = sorted((better, other), key=lambda completion: completion.id)
            task = Task(
                prompt_id=texts.prompt.id,
                completion_a=a.id,
                completion_b=b.id,
                meta={"use": item.use, "edited_from": source},
            )
            vote = Judgment(
                task_id=task.id, rater=pseudonym, rater_kind="human", verdict="a" if a is better else "b", order=assignment.position,
                guideline_version=str(verdict.guideline_version), meta={"edited": True},
            )  # fmt: skip
            yield Comparison(prompt=texts.prompt, a=a, b=b, task=task, judgments=(vote,))


def _decision(decision: Decision | None) -> dict[str, Any]:
    """What the task says of itself when an adjudicator decided it; preferences use it by their rule `decisions`."""
    if decision is None:
        return {}
    return {
        "decision": {
            "verdict": decision.verdict,
            "reason": decision.reason,
            "guideline_version": str(decision.guideline_version),
        }
    }


def _decision_rows(rows: Rows, project_id: str) -> Iterator[dict[str, Any]]:
    found = rows.execute(
        sa.select(Item, Decision, Person.pseudonym).join(Decision, Decision.item_id == Item.id)
        .join(Person, Person.id == Decision.person_id).where(Decision.project_id == project_id).order_by(Item.content_id)
    ).all()  # fmt: skip
    for item, decision, pseudonym in found:
        pair = Task(prompt_id=item.prompt_id, completion_a=item.completions[0], completion_b=item.completions[1])
        yield {"item": pair.id, "label": decision.verdict, "reason": decision.reason, "guideline_version": str(decision.guideline_version),
               "adjudicator": pseudonym}  # fmt: skip


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
    ).all()  # fmt: skip
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
    }


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
