"""Who may get which item: one whose language and skills the rater has, and passed the test of, where the project has one.

A language or skill with a test in the project counts for a rater who passed it there (`qualification`) or was let in; one without counts
for whom a lead wrote it down. The queue asks `matched_needs` and looks at no item to know.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from fairlead.store.annotation.database import Rows, run
from fairlead.store.annotation.schema import Person, Progress, Project, table_of
from fairlead.store.annotation.skills import Ability, Demand, Qualification
from fairlead.store.annotation.steering import Anchor
from fairlead.store.annotation.written import Demonstration, Writing
from fairlead.web.needs import in_words
from fairlead.web.steering import steering_of

QUALIFIED = ("passed", "waived")
_DEMAND = table_of(Demand).c
_DEMANDS = sa.select(_DEMAND.needs).where(_DEMAND.project_id == sa.bindparam("project")).order_by(_DEMAND.needs)
MAX_NAMES = 6
"""Raters that a line of coverage names."""


def demand(rows: Rows, project_id: str, needs: Iterable[str]) -> None:
    """Note what items that come into a project ask for."""
    known = set(rows.scalars(sa.select(Demand.needs).where(Demand.project_id == project_id)))
    rows.add_all(Demand(project_id=project_id, needs=each) for each in sorted(set(needs) - known))
    rows.flush()


def tested_needs(rows: Rows, project_id: str) -> set[str]:
    """Languages and skills that have a test in a project."""
    tests = (
        sa.select(Anchor.qualifies)
        .distinct()
        .where(Anchor.project_id == project_id, Anchor.kind == "gold", Anchor.qualifies != "", ~Anchor.is_retired)
    )
    return set(rows.scalars(tests))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What counts in one project, for one person or for all."""

    tested: set[str]
    listed: Mapping[str, set[str]]
    """By person: what leads wrote down."""
    passed: Mapping[str, set[str]]
    """By person: tests passed or waived."""

    def has(self, person_id: str, need: str) -> bool:
        """Does one language or skill count for a person?"""
        return need in (self.passed if need in self.tested else self.listed).get(person_id, ())

    def may_get(self, person_id: str, needs: str) -> bool:
        """May a person get items that ask for this?"""
        return all(self.has(person_id, need) for need in needs.split())


def grants_of(rows: Rows, project_id: str, person_id: str | None = None) -> Grants:
    """Args: person_id: whom to look at; everybody when None."""
    listed = sa.select(Ability.person_id, Ability.need)
    passed = sa.select(Qualification.person_id, Qualification.need).where(
        Qualification.project_id == project_id, Qualification.state.in_(QUALIFIED)
    )
    if person_id is not None:
        listed = listed.where(Ability.person_id == person_id)
        passed = passed.where(Qualification.person_id == person_id)
    return Grants(tested=tested_needs(rows, project_id), listed=_by_person(rows, listed), passed=_by_person(rows, passed))  # fmt: skip


def _by_person(rows: Rows, asked: sa.Select[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for person_id, need in rows.execute(asked).all():
        found.setdefault(person_id, set()).add(need)
    return found


def matched_needs(rows: Rows, project: Project, person_id: str) -> tuple[list[str], bool]:
    """(what items may ask for so that this rater gets them, does that leave none out?)."""
    demands = [each for (each,) in run(rows, _DEMANDS, {"project": project.id})]
    if demands == [""] or not steering_of(project).matches:
        return demands, True
    grants = grants_of(rows, project.id, person_id)
    matched = [needs for needs in demands if grants.may_get(person_id, needs)]
    return matched, len(matched) == len(demands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Items that ask for the same, and who can rate them."""

    needs: str
    num_items: int
    """Production items that lack votes."""
    num_lacking: int
    """Votes that they lack."""
    names: tuple[str, ...]
    """Raters who may get them, at most `MAX_NAMES`."""
    num_raters: int

    @property
    def words(self) -> str:
        """What they ask for."""
        return in_words(self.needs)


def coverage(rows: Rows, project: Project) -> list[Coverage]:
    """What waits, by what it asks for; those that nobody can rate first. Of demonstrations what has no accepted reply, one of which each lacks."""
    pairs = (
        sa.select(Progress.needs, sa.func.count(), sa.func.sum(Progress.num_lacking))
        .where(Progress.project_id == project.id, Progress.use == "production", Progress.num_lacking > 0).group_by(Progress.needs)
    )  # fmt: skip
    writings = (
        sa.select(Writing.needs, sa.func.count(), sa.func.count()).join(Demonstration, Demonstration.writing_id == Writing.id)
        .where(Writing.project_id == project.id, Demonstration.state != "accepted").group_by(Writing.needs)
    )  # fmt: skip
    waiting = rows.execute(writings if project.kind == "demonstration" else pairs).all()
    raters = rows.execute(
        sa.select(Person.id, Person.name).where(Person.state == "active", Person.role.in_(("rater", "adjudicator"))).order_by(Person.name)
    ).all()  # fmt: skip
    grants, is_open = grants_of(rows, project.id), not steering_of(project).matches
    found: list[Coverage] = []
    for needs, num_items, num_lacking in waiting:
        names = [name for person_id, name in raters if is_open or grants.may_get(person_id, needs)]
        found.append(
            Coverage(
                needs=needs,
                num_items=num_items,
                num_lacking=int(num_lacking),
                num_raters=len(names),
                names=tuple(names[:MAX_NAMES]),
            )
        )
    return sorted(found, key=lambda each: (each.num_raters > 0, -each.num_items, each.needs))
