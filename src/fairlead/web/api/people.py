"""People and invitations. What takes an admin (roles above rater, the log) is on the pages: no token has an admin's powers."""

import sqlalchemy as sa
from fastapi import APIRouter, Request

from fairlead.store.annotation.schema import Person
from fairlead.web import people, policy
from fairlead.web.api.access import Data, Who
from fairlead.web.api.models import InviteSent, InviteShown, PersonShown, StateSent
from fairlead.web.errors import missing

router = APIRouter(tags=["people"])


@router.get("/people")
def list_people(who: Who, data: Data) -> list[PersonShown]:
    """Everybody with an account."""
    policy.may_invite(who, "rater")
    with data.read() as rows:
        return [_shown(person) for person in rows.scalars(sa.select(Person).order_by(Person.name))]


def _shown(person: Person) -> PersonShown:
    return PersonShown(id=person.id, name=person.name, pseudonym=person.pseudonym, role=person.role, state=person.state)


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
        return _shown(rows.get_one(Person, person_id))


@router.post("/invites", status_code=201)
def invite(who: Who, data: Data, sent: InviteSent, request: Request) -> InviteShown:
    """Make a link that lets one person in within seven days; it is shown once."""
    policy.may_invite(who, sent.role)
    secret = people.make_invite(data, role=sent.role, by=who.person_id)
    return InviteShown(link=f"{request.app.state.around.place.url}/invite/{secret}", role=sent.role)
