"""Decisions of adjudicators as the tables hold them; derived from events, live and in a replay; and as exports say them.

An event holds what stood on the adjudicator's screen (places from the left) and the order of it, as votes do. Decisions of the first version
name a side of the first two completions (`swapped`): of a ranking they speak of these two only.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Event
from fairlead.web.frames import as_stored, verdict_on

DECIDED, REVOKED = "item.decided", "item.decision_revoked"
KINDS = (DECIDED, REVOKED)


def follow(rows: Rows, event: Event) -> None:
    """Derive from an event what holds now: an item has the newest decision, or none."""
    content = event.content
    rows.execute(sa.delete(Decision).where(Decision.item_id == content["item"]))
    if event.kind == REVOKED:
        return
    assert event.project_id is not None and event.person_id is not None, (
        f"event {event.number} names no project or person"
    )
    shown = content["shown"] if "shown" in content else "10" if content["swapped"] else "01"
    said = as_stored({"strength": 0, "rationale": "", "active_ms": None, **content}, shown=shown)
    rows.add(Decision(
        item_id=content["item"], project_id=event.project_id, person_id=event.person_id, event_number=event.number,
        verdict=said["verdict"], ranking=said["ranking"], criteria=said["criteria"], reason=content["reason"],
        guideline_version=content["guideline_version"],
    ))  # fmt: skip
    rows.flush()


def decision_on(decision: Decision, first: int, second: int) -> str | None:
    """What is decided about two completions: a (the first is better), b, tie or both_bad; None where the decision does not speak of both."""
    if decision.verdict == "both_bad":
        return "both_bad"
    placed = {position for tied in decision.ranking for position in tied}
    return verdict_on(decision.ranking, first, second) if {first, second} <= placed else None


def decision_meta(decision: Decision | None, first: int = 0, second: int = 1) -> dict[str, Any]:
    """What a pair says of itself when an adjudicator decided it; preferences use it by their rule `decisions`."""
    verdict = None if decision is None else decision_on(decision, first, second)
    if decision is None or verdict is None:
        return {}
    found: dict[str, Any] = {
        "verdict": verdict,
        "reason": decision.reason,
        "guideline_version": str(decision.guideline_version),
    }
    if decision.criteria:
        found["criteria"] = {name: [given[first], given[second]] for name, given in decision.criteria.items()}
    return {"decision": found}


def ranked_meta(decision: Decision | None, names: Sequence[str]) -> dict[str, Any]:
    """What an item of three or more says of itself: the ranking by the names of its completions."""
    if decision is None:
        return {}
    return {"decision": {
        "verdict": decision.verdict, "reason": decision.reason, "guideline_version": str(decision.guideline_version),
        "ranking": [[names[position] for position in tied] for tied in decision.ranking],
        "criteria": {name: dict(zip(names, given, strict=True)) for name, given in decision.criteria.items()},
    }}  # fmt: skip


def forget_derived(rows: Rows) -> None:
    """Before a replay."""
    rows.execute(sa.delete(Decision))


def decisions_of(rows: Rows, project_id: str) -> dict[str, Decision]:
    """By item."""
    found = rows.scalars(sa.select(Decision).where(Decision.project_id == project_id))
    return {decision.item_id: decision for decision in found}
