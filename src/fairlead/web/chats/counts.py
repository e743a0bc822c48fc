"""How far a project of conversations is, for its lead."""

from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.stats.intervals import Interval, undefined, wilson
from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Assignment, Person, Verdict
from fairlead.store.annotation.talked import ChatTurn

STRENGTHS = ("the same", "slightly better", "better", "much better")
"""By the number of a choice's strength; 0 is a tie, or a choice on a scale without strengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Talks:
    """Of one project, or of one person in it."""

    name: str
    num_chats: int
    num_turns: int
    """Messages of people."""
    num_chosen: int
    """Turns with a choice, ties among them."""
    num_left_out: int
    """Turns that were skipped, or whose replies were both bad."""
    num_waiting: int
    """For the policy."""
    num_failed: int
    num_open: int
    """Turns whose replies wait for a choice."""
    by_strength: tuple[int, int, int, int]
    """Choices by strength, from 0 to 3."""
    left: Interval
    """Share of choices that went to the left."""
    median_s: float | None
    """Time for a choice; None where no browser said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    chat_id: str
    person: str
    state: str
    verdict: str | None
    strength: int
    is_left: bool
    active_ms: int | None


def talks_of(rows: Rows, project_id: str) -> tuple[Talks, tuple[Talks, ...]]:
    """All, and by person."""
    found = rows.execute(
        sa.select(ChatTurn.chat_id, Person.name, ChatTurn.state, Verdict.verdict, Verdict.strength, Verdict.ranking, Assignment.shown,
                  Verdict.active_ms)
        .join(Person, Person.id == ChatTurn.person_id).outerjoin(Assignment, Assignment.id == ChatTurn.assignment_id)
        .outerjoin(Verdict, Verdict.assignment_id == ChatTurn.assignment_id).where(ChatTurn.project_id == project_id)
    ).all()  # fmt: skip
    turns = [
        _Turn(chat_id=chat, person=name, state=state, verdict=verdict, strength=abs(strength or 0),
              is_left=verdict in ("a", "b") and str(ranking[0][0]) == shown[0], active_ms=active)
        for chat, name, state, verdict, strength, ranking, shown, active in found
    ]  # fmt: skip
    names = sorted({turn.person for turn in turns}, key=str.lower)
    return _count("", turns), tuple(_count(name, [turn for turn in turns if turn.person == name]) for name in names)


def _count(name: str, turns: list[_Turn]) -> Talks:
    chosen = [turn for turn in turns if turn.verdict in ("a", "b", "tie")]
    sided = [turn for turn in chosen if turn.verdict != "tie"]
    times = sorted(turn.active_ms for turn in turns if turn.active_ms is not None)
    strengths = [sum(turn.strength == number for turn in chosen) for number in range(4)]
    return Talks(
        name=name, num_chats=len({turn.chat_id for turn in turns}), num_turns=len(turns), num_chosen=len(chosen),
        num_left_out=sum(turn.verdict in ("both_bad", "skip") for turn in turns), num_waiting=sum(turn.state == "waiting" for turn in turns),
        num_failed=sum(turn.state == "failed" for turn in turns), num_open=sum(turn.state == "ready" and turn.verdict is None for turn in turns),
        by_strength=(strengths[0], strengths[1], strengths[2], strengths[3]), median_s=times[len(times) // 2] / 1000 if times else None,
        left=wilson(sum(turn.is_left for turn in sided), len(sided)) if sided else undefined("no choice yet", n=0),
    )  # fmt: skip
