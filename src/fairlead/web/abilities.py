"""Languages and skills of people, as a lead writes them down; each change is an event with all that the person then has."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from fairlead.store.annotation.database import Database, Rows
from fairlead.store.annotation.schema import Event, Person
from fairlead.store.annotation.skills import Ability
from fairlead.web.errors import missing
from fairlead.web.events import record

CHANGED = "person.abilities"
KINDS = (CHANGED,)


def set_abilities(database: Database, person_id: str, abilities: Sequence[str], *, by: str | None) -> None:
    """Say what a person has, in place of what was said before.

    Args:
        abilities: as `needs.abilities_from` gives them.
    """
    with database.write() as rows:
        person = rows.get(Person, person_id)
        if person is None or person.state == "erased":
            raise missing("This person")
        set_abilities_in(rows, person_id, abilities, by=by)


def set_abilities_in(rows: Rows, person_id: str, abilities: Iterable[str], *, by: str | None) -> None:
    """The same within a running transaction."""
    content = {"person": person_id, "abilities": sorted(abilities)}
    follow(rows, record(rows, CHANGED, person_id=by, content=content))


def abilities_of(rows: Rows) -> dict[str, list[str]]:
    """By person id; who has none is not in it."""
    found: dict[str, list[str]] = {}
    for person_id, need in rows.execute(sa.select(Ability.person_id, Ability.need).order_by(Ability.need)).all():
        found.setdefault(person_id, []).append(need)
    return found


def follow(rows: Rows, event: Event) -> None:
    """Derive from an event what a person has now."""
    person_id = event.content["person"]
    rows.execute(sa.delete(Ability).where(Ability.person_id == person_id))
    rows.flush()
    rows.add_all(Ability(person_id=person_id, need=need) for need in event.content["abilities"])
    rows.flush()


def forget_derived(rows: Rows) -> None:
    """Before a replay."""
    rows.execute(sa.delete(Ability))
