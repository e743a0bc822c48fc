"""How far a project of demonstrations is: for its lead by state and person, for a rater only their own."""

from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Person, Prompt
from fairlead.store.annotation.written import Demonstration, Writing, WritingTask
from fairlead.web.excerpts import excerpt_of_prompt

STATES = ("open", "written", "returned", "accepted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one project."""

    by_state: dict[str, int]
    num_drafted: int
    """Accepted ones that began as a draft by a model."""
    num_edited: int
    """Accepted ones that the reviewer changed."""
    num_skips: int
    num_authors: int

    @property
    def num_all(self) -> int:
        """All conversations that want a reply."""
        return sum(self.by_state.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPerson:
    """What one person has written and reviewed, as things stand."""

    name: str
    num_accepted: int
    num_waiting: int
    num_returned: int
    num_drafted: int
    """Of the accepted."""
    from_draft: float | None
    """Mean share of these that is the draft's; None without any."""
    num_reviewed: int
    median_s: float | None
    """Time for an accepted reply; None where no browser said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """One reply of the person who looks."""

    task_id: str
    about: str
    state: str
    reason: str
    is_edited: bool
    changed_at: int


def counts_of(rows: Rows, project_id: str) -> Counts:
    """By state."""
    of_project = Demonstration.project_id == project_id
    by_state: dict[str, int] = dict.fromkeys(STATES, 0)
    states = sa.select(Demonstration.state, sa.func.count()).where(of_project).group_by(Demonstration.state)
    by_state.update({row[0]: row[1] for row in rows.execute(states).all()})
    is_accepted = Demonstration.state == "accepted"
    sums = rows.execute(
        sa.select(_count(is_accepted & Demonstration.is_drafted), _count(is_accepted & Demonstration.is_edited),
                  sa.func.coalesce(sa.func.sum(Demonstration.num_skips), 0),
                  sa.func.count(Demonstration.author_id.distinct())).where(of_project)
    ).one()  # fmt: skip
    return Counts(by_state=by_state, num_drafted=sums[0], num_edited=sums[1], num_skips=sums[2], num_authors=sums[3])


def _count(claim: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((claim, 1), else_=0)), 0)


def by_person(rows: Rows, project_id: str) -> list[ByPerson]:
    """Everybody who has written or reviewed, by name."""
    has_author = (Demonstration.project_id == project_id) & Demonstration.author_id.is_not(None)
    found = rows.scalars(sa.select(Demonstration).where(has_author)).all()
    written: dict[str, list[Demonstration]] = {}
    for each in found:
        written.setdefault(str(each.author_id), []).append(each)
    reviews = {
        row[0]: row[1]
        for row in rows.execute(
            sa.select(WritingTask.person_id, sa.func.count())
            .where(WritingTask.project_id == project_id, WritingTask.part == "review", WritingTask.state == "done")
            .group_by(WritingTask.person_id)
        ).all()
    }
    people = rows.execute(sa.select(Person.id, Person.name).where(Person.id.in_({*written, *reviews})).order_by(Person.name)).all()  # fmt: skip
    return [_of_person(name, written.get(person_id, []), reviews.get(person_id, 0)) for person_id, name in people]


def _of_person(name: str, found: list[Demonstration], num_reviewed: int) -> ByPerson:
    accepted = [each for each in found if each.state == "accepted"]
    drafted = [each.from_draft for each in accepted if each.is_drafted]
    times = sorted(each.active_ms for each in accepted if each.active_ms is not None)
    return ByPerson(
        name=name, num_accepted=len(accepted), num_waiting=sum(each.state == "written" for each in found),
        num_returned=sum(each.state == "returned" for each in found), num_drafted=len(drafted), num_reviewed=num_reviewed,
        from_draft=sum(drafted) / len(drafted) if drafted else None, median_s=times[len(times) // 2] / 1000 if times else None,
    )  # fmt: skip


def own_replies(rows: Rows, project_id: str, person_id: str, *, limit: int = 200) -> list[Own]:
    """What a person has written, what changed last first."""
    found = rows.execute(
        sa.select(Demonstration, Prompt.record).join(Writing, Writing.id == Demonstration.writing_id)
        .join(Prompt, (Prompt.project_id == Writing.project_id) & (Prompt.id == Writing.prompt_id))
        .where(Demonstration.project_id == project_id, Demonstration.author_id == person_id)
        .order_by(Demonstration.event_number.desc()).limit(limit)
    ).all()  # fmt: skip
    tasks = {task.writing_id: task.id for task in rows.scalars(
        sa.select(WritingTask).where(WritingTask.project_id == project_id, WritingTask.person_id == person_id).order_by(WritingTask.round)
    )}  # fmt: skip
    return [
        Own(task_id=tasks[each.writing_id], about=excerpt_of_prompt(record), state=each.state, reason=each.reason, is_edited=each.is_edited,
            changed_at=each.changed_at)
        for each, record in found
    ]  # fmt: skip
