"""Replies that raters wrote better: comparisons that they win (edited > chosen > rejected), and demonstrations for supervised fine-tuning.

An edit is the rater's whole reply in place of the one that they put first. Hidden anchors give none: their votes are no votes on the item.

Example:
    list(edited_comparisons(item, texts, votes))      # the edited reply against each reply of its item
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.core.records import NO_SIDE, Completion, Demonstration, Judgment, Message, Task
from fairlead.feedback.collected import Comparison
from fairlead.preferences.pairs import EDITED_FROM
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Item, Verdict
from fairlead.web.decisions import decision_on
from fairlead.web.demonstrations.kept import share_standing
from fairlead.web.given import Given, Vote
from fairlead.web.importing import NewItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """Edited replies as demonstrations."""

    demonstrations: tuple[Demonstration, ...]
    num_overruled: int
    """Edits that give none, for an adjudicator put another reply above the one that was edited."""


def edited_comparisons(
    item: Item, texts: NewItem, votes: Sequence[Vote], *, meta: Mapping[str, Any]
) -> Iterator[Comparison]:
    """An edited text beats every completion of its item: a vote of the rater who wrote it, on a pair that nobody was shown.

    Args:
        meta: what else their tasks say: how the item came in.
    """
    written: dict[str, Completion] = {}  # two raters who write the same vote on the same pairs
    for verdict, assignment, pseudonym in votes:
        if verdict.edited is None:
            continue
        better = written.setdefault(verdict.edited_text, Completion(
            prompt_id=texts.prompt.id, text=verdict.edited_text, model=f"edited by {pseudonym}",
            meta={EDITED_FROM: texts.completions[verdict.edited].id},
        ))  # fmt: skip
        for other in texts.completions:
            a, b = sorted((better, other), key=lambda completion: completion.id)
            said = {"use": item.use, **meta, **better.meta}
            task = Task(prompt_id=texts.prompt.id, completion_a=a.id, completion_b=b.id, meta=said)
            vote = Judgment(
                task_id=task.id, rater=pseudonym, rater_kind="human", verdict="a" if a is better else "b", order=assignment.position,
                guideline_version=str(verdict.guideline_version), meta={"edited": True, "side": NO_SIDE},
            )  # fmt: skip
            yield Comparison(prompt=texts.prompt, a=a, b=b, task=task, judgments=(vote,))


def edited_demonstrations(given: Sequence[Given], *, project: str) -> Edits:
    """A conversation with the edited reply at its end, once each, with who wrote it and what stayed of the completion.

    Args:
        given: items of one prompt; whose edit an adjudicator overruled is counted and left out.
        project: its name, for the provenance.
    """
    found: dict[tuple[str, str], Demonstration] = {}
    num_overruled = 0
    for each in given:
        for verdict, _, pseudonym in each.votes:
            if verdict.edited is None:
                continue
            if _is_overruled(verdict.edited, each.decision, num=len(each.texts.completions)):
                num_overruled += 1
                continue
            made = _demonstration(each.item, each.texts, verdict, pseudonym, project=project)
            found.setdefault((each.texts.prompt.id, verdict.edited_text), made)
    return Edits(demonstrations=tuple(found.values()), num_overruled=num_overruled)


def _is_overruled(edited: int, decision: Decision | None, *, num: int) -> bool:
    """Did an adjudicator put another completion above the edited one?"""
    others = [position for position in range(num) if position != edited]
    return decision is not None and any(decision_on(decision, other, edited) == "a" for other in others)


def _demonstration(item: Item, texts: NewItem, verdict: Verdict, pseudonym: str, *, project: str) -> Demonstration:
    assert verdict.edited is not None, "an edit names its completion"
    prompt, source, text = texts.prompt, texts.completions[verdict.edited], verdict.edited_text
    meta: dict[str, Any] = {
        "project": project, "prompt_id": prompt.id, "item": item.content_id, "author": pseudonym,
        "guideline_version": str(verdict.guideline_version), "is_drafted": True,
        "draft": {"completion_id": source.id, "model": source.model, "from_draft": round(share_standing(text, source.text), 4),
                  "draft_kept": round(share_standing(source.text, text), 4)},
    }  # fmt: skip
    return Demonstration(messages=(*prompt.messages, Message(role="assistant", content=text)), slice=prompt.slice, source=prompt.source,
                         split=prompt.split, meta=meta)  # fmt: skip
