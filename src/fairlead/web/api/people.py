"""People and invitations. What takes an admin (roles above rater, the log) is on the pages: no token has an admin's powers."""

import sqlalchemy as sa
from fastapi import APIRouter, Request

from fairlead.store.annotation.database import Rows
from fairlead.store.annotation.schema import Person
from fairlead.web import abilities, needs, people, policy
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import AbilitiesSent, InviteSent, InviteShown, PersonShown, StateSent
from fairlead.web.errors import missing

router = APIRouter(tags=["people"])


@router.get("/people")
def list_people(who: Who, data: Data) -> list[PersonShown]:
    """Everybody with an account."""
    policy.may_invite(who, "rater")
    with data.read() as rows:
        return [_shown(rows, person) for person in rows.scalars(sa.select(Person).order_by(Person.name))]


def _shown(rows: Rows, person: Person) -> PersonShown:
    languages, skills = needs.split(abilities.abilities_of(rows).get(person.id, ()))
    return PersonShown(id=person.id, name=person.name, pseudonym=person.pseudonym, role=person.role, state=person.state, languages=languages,
                       skills=skills)  # fmt: skip


@router.post("/people/{person_id}/state")
def set_state(who: Who, data: Data, person_id: str, sent: StateSent) -> PersonShown:
    """Disable a person, or let them in again."""
    policy.may_invite(who, "rater")
    with data.read() as rows:
        person = rows.get(Person, person_id)
    if person is None:
        raise missing("This person")
    policy.may_disable(who, person_id=person_id, role=person.role)
    people.set_state(data, person_id, state=sent.state, by=who.person_id)
    with data.read() as rows:
        return _shown(rows, rows.get_one(Person, person_id))


@router.post("/people/{person_id}/abilities")
def set_abilities(who: Who, data: Data, person_id: str, sent: AbilitiesSent) -> PersonShown:
    """Say which languages and skills a person has, in place of what was said before."""
    policy.may_set_abilities(who)
    found = needs.abilities_from(languages=sent.languages, skills=sent.skills)
    abilities.set_abilities(data, person_id, found, by=who.person_id)
    with data.read() as rows:
        return _shown(rows, rows.get_one(Person, person_id))


@router.post("/invites", status_code=201)
def invite(who: Who, data: Data, sent: InviteSent, request: Request) -> InviteShown:
    """Make a link that lets one person in within seven days; it is shown once, and to the same key again."""
    policy.may_invite(who, sent.role)
    found = needs.abilities_from(languages=sent.languages, skills=sent.skills)
    here = request.app.state.around
    secret = people.make_invite(data, role=sent.role, by=who.person_id, abilities=found, keyed=(sent.key, here.secret))
    return InviteShown(link=f"{here.place.url}/invite/{secret}", role=sent.role)
