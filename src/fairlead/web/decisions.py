"""Decisions of adjudicators as the tables hold them; derived from events, live and in a replay."""

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.leading import Decision
from fairlead.store.annotation.schema import Event

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
    rows.add(Decision(
        item_id=content["item"], project_id=event.project_id, person_id=event.person_id, event_number=event.number,
        verdict=canonical(content["choice"], is_swapped=content["swapped"]), reason=content["reason"],
        guideline_version=content["guideline_version"],
    ))  # fmt: skip
    rows.flush()


def canonical(choice: str, *, is_swapped: bool) -> str:
    """left or right of a screen as a or b."""
    if choice not in ("left", "right"):
        return choice
    return "a" if (choice == "left") != is_swapped else "b"


def forget_derived(rows: Rows) -> None:
    """Before a replay."""
    rows.execute(sa.delete(Decision))


def decisions_of(rows: Rows, project_id: str) -> dict[str, Decision]:
    """By item."""
    found = rows.scalars(sa.select(Decision).where(Decision.project_id == project_id))
    return {decision.item_id: decision for decision in found}
