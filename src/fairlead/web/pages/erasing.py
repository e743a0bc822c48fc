"""The admin's page on which a person is erased."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from fairlead.store.annotation.schema import Person
from fairlead.web import policy
from fairlead.web.erasing import erase_person
from fairlead.web.errors import missing
from fairlead.web.pages.context import actor, around, check_csrf, render, see

router = APIRouter()
Text = Annotated[str, Form()]


@router.get("/people/{person_id}/erase")
def erase_page(request: Request, person_id: str) -> Response:
    """What goes and what stays, and the question."""
    policy.may_erase(actor(request), person_id=person_id)
    return _page(request, person_id, error="")


def _page(request: Request, person_id: str, *, error: str) -> Response:
    with around(request).database.read() as rows:
        person = rows.get(Person, person_id)
    if person is None or person.state == "erased":
        raise missing("This person")
    return render(request, "erase.html", status=422 if error else 200, person=person, error=error)


@router.post("/people/{person_id}/erase")
def erase(request: Request, person_id: str, pseudonym: Text = "", csrf: Text = "") -> Response:
    """Erase, when the pseudonym was typed."""
    check_csrf(request, csrf)
    who = actor(request)
    policy.may_erase(who, person_id=person_id)
    database = around(request).database
    with database.read() as rows:
        person = rows.get(Person, person_id)
    if person is None:
        raise missing("This person")
    if pseudonym.strip() != person.pseudonym:
        return _page(request, person_id, error=f"Type {person.pseudonym} to go on.")
    erase_person(database, person_id, by=who.person_id)
    return see("/people")
