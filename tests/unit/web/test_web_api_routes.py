"""Every route of the API: in the OpenAPI document, in the table of scopes and roles, and the twin of what a page does."""

import dataclasses

import numpy as np
import pytest
from test_web_api import PAIRS
from test_web_app import PUBLIC
from test_web_app import ROUTES as PAGES
from web_example import take, vote

from fairlead.stats.intervals import undefined
from fairlead.store.annotation.schema import Person
from fairlead.web import tokens, verdicts, webhooks
from fairlead.web.api.plain import plain

ROUTES = {
    "GET /me": "read", "GET /projects": "read", "GET /projects/{p}": "read", "GET /projects/{p}/guideline": "read", "GET /projects/{p}/pace": "read",
    "GET /projects/{p}/mine": "read", "GET /projects/{p}/own": "read", "GET /assignments/{a}": "read", "GET /projects/{p}/written": "read",
    "GET /projects/{p}/guideline/document": "read", "GET /projects/{p}/talk": "read", "GET /writing/{d}": "read", "GET /tokens": "read",
    "GET /projects/{p}/discussion": "read",
    "POST /projects/{p}/next": "rate", "POST /projects/{p}/undo": "rate", "POST /assignments/{a}/verdict": "rate",
    "POST /assignments/{a}/flag": "rate", "PUT /assignments/{a}/draft": "rate", "DELETE /tokens/{t}": "rate",
    "POST /projects/{p}/writing/next": "rate", "POST /writing/{d}/reply": "rate", "POST /writing/{d}/review": "rate",
    "POST /writing/{d}/skip": "rate", "POST /writing/{d}/take-back": "rate", "PUT /writing/{d}/draft": "rate",
    "POST /writing/{d}/ask": "rate", "GET /writing/{d}/asked": "read",
    "POST /projects/{p}/say": "rate", "POST /projects/{p}/again": "rate",
    "GET /projects/{p}/disagreements": "adjudicate", "GET /projects/{p}/adjudicate": "adjudicate", "GET /projects/{p}/items/{i}": "adjudicate",
    "POST /projects/{p}/items/{i}/decision": "adjudicate", "POST /projects/{p}/items/{i}/revoke": "adjudicate",
    "GET /projects/{p}/status": "lead", "GET /projects/{p}/quality": "lead", "GET /projects/{p}/items": "lead", "GET /projects/{p}/votes": "lead",
    "GET /projects/{p}/calibration": "lead", "GET /projects/{p}/export": "lead", "GET /people": "lead",
    "GET /projects/{p}/agreement": "lead", "GET /projects/{p}/raters": "lead", "GET /projects/{p}/labels": "lead",
    "GET /projects/{p}/guideline/history": "lead", "GET /projects/{p}/steering": "lead", "GET /projects/{p}/costs": "lead",
    "GET /projects/{p}/demonstrations": "lead", "GET /projects/{p}/demonstrations/counts": "lead", "GET /projects/{p}/chats": "lead",
    "GET /projects/{p}/chats/{c}": "lead", "GET /projects/{p}/webhooks": "lead",
    "POST /projects/{p}/items/{i}/anchor": "lead", "POST /projects/{p}/discussion": "lead", "POST /projects/{p}/costs": "lead",
    "POST /projects/{p}/costs/payment": "lead", "POST /projects/{p}/costs/override": "lead", "POST /projects/{p}/steering": "lead",
    "POST /projects/{p}/scale": "lead", "POST /projects/{p}/rounds": "lead", "POST /projects/{p}/alarms/{n}": "lead",
    "POST /projects/{p}/anchors": "lead",
    "POST /projects": "lead", "POST /projects/{p}/state": "lead", "POST /projects/{p}/guideline": "lead", "POST /projects/{p}/waive": "lead",
    "POST /projects/{p}/webhooks": "lead", "DELETE /projects/{p}/webhooks/{w}": "lead",
    "GET /projects/{p}/watched": "lead", "GET /projects/{p}/choice": "lead", "POST /projects/{p}/scores": "lead",
    "POST /projects/{p}/more-votes": "lead",
    "GET /projects/{p}/coverage": "lead", "GET /projects/{p}/qualifications": "read", "POST /projects/{p}/qualifications": "rate",
    "POST /projects/{p}/qualifications/waive": "lead", "POST /projects/{p}/qualifications/{n}/again": "lead", "POST /people/{u}/abilities": "lead",
    "POST /projects/{p}/import": "lead", "POST /people/{u}/state": "lead", "POST /invites": "lead",
}  # fmt: skip
KEY = {"key": "a-key-of-the-matrix"}
BODIES = {
    "POST /projects": {"name": "new"}, "POST /projects/{p}/next": {}, "POST /projects/{p}/undo": KEY,
    "POST /assignments/{a}/verdict": {**KEY, "choice": "left", "strength": 1, "guideline_version": 1},
    "POST /assignments/{a}/flag": {**KEY, "note": "x"}, "PUT /assignments/{a}/draft": {"text": "x"},
    "POST /writing/{d}/reply": {**KEY, "text": "x", "guideline_version": 1}, "PUT /writing/{d}/draft": {"text": "x"},
    "POST /writing/{d}/review": {**KEY, "decision": "accept", "guideline_version": 1}, "POST /writing/{d}/skip": {**KEY, "reason": "unclear"},
    "POST /writing/{d}/take-back": KEY, "POST /writing/{d}/ask": KEY,
    "POST /projects/{p}/say": {**KEY, "text": "x"}, "POST /projects/{p}/again": {**KEY, "chat": "x"},
    "POST /projects/{p}/items/{i}/decision": {"key": "a-key-of-a-ruling", "choice": "left", "reason": "x", "guideline_version": 1},
    "POST /projects/{p}/items/{i}/revoke": {"key": "a-key-of-a-return"}, "POST /projects/{p}/discussion": {"is_open": False},
    "POST /projects/{p}/costs": {"dollars_per_vote": 0.5}, "POST /projects/{p}/costs/override": {"reason": "x"},
    "POST /projects/{p}/costs/payment": {"key": "a-key-of-payment", "kind": "ai", "dollars": 1.0, "note": "x"},
    "POST /projects/{p}/steering": {"settings": {"cap_before_round": 40}}, "POST /projects/{p}/scale": {"reason": "x"},
    "POST /projects/{p}/scores": [], "POST /projects/{p}/more-votes": {"items": [], "reason": "x", "key": "a-key-of-votes"},
    "POST /projects/{p}/rounds": {"key": "a-key-of-a-round", "reason": "x"}, "POST /projects/{p}/alarms/{n}": {"act": "close", "reason": "x"},
    "POST /projects/{p}/state": {"state": "open"}, "POST /people/{u}/state": {"state": "active"},
    "POST /invites": {"key": "a-key-of-an-invite", "role": "rater"},
    "POST /projects/{p}/guideline": {"text": "# x", "replaces": 1}, "POST /projects/{p}/waive": {"person": "{u}", "reason": "x"},
    "POST /projects/{p}/qualifications": {"need": "skill:code"}, "POST /people/{u}/abilities": {"languages": ["de"]},
    "POST /projects/{p}/qualifications/waive": {"need": "skill:code", "person": "{u}", "reason": "x"},
    "POST /projects/{p}/webhooks": {"key": "a-key-of-a-hook", "url": "https://93.184.215.14/", "events": ["alarm"]},
}  # fmt: skip
ANSWERS = {
    "POST /projects/{p}/undo": 409, "POST /projects/{p}/say": 409, "POST /projects/{p}/again": 404, "POST /projects/{p}/costs/override": 422,
    "POST /projects/{p}/rounds": 422, "POST /projects/{p}/alarms/{n}": 404, "GET /projects/{p}/chats/{c}": 404, "DELETE /tokens/{t}": 404,
    "POST /projects/{p}/items/{i}/anchor": 409, "POST /projects/{p}/qualifications": 404, "POST /projects/{p}/qualifications/waive": 404,
    "POST /projects/{p}/qualifications/{n}/again": 404,
}  # fmt: skip
"""Where there is nothing to undo, nobody to talk to, no alarm and the like; others give what was asked for."""
SHORT = {"{project_id}": "{p}", "{assignment_id}": "{a}", "{person_id}": "{u}", "{webhook_id}": "{w}", "{item_id}": "{i}", "{task_id}": "{d}",
         "{number}": "{n}", "{chat_id}": "{c}", "{token_id}": "{t}"}  # fmt: skip
ORDER = ["read", "rate", "adjudicate", "lead"]

TWINS = {
    "GET /": "GET /projects", "GET /p/{p}/rate": "POST /projects/{p}/next", "GET /p/{p}/next": "POST /projects/{p}/next",
    "GET /p/{p}/mine": "GET /projects/{p}/mine", "GET /p/{p}/guideline": "GET /projects/{p}/guideline",
    "POST /p/{p}/undo": "POST /projects/{p}/undo", "POST /a/{a}/verdict": "POST /assignments/{a}/verdict",
    "POST /a/{a}/flag": "POST /assignments/{a}/flag", "POST /a/{a}/draft": "PUT /assignments/{a}/draft", "GET /p/{p}": "GET /projects/{p}/status",
    "GET /p/{p}/agreement": "GET /projects/{p}/agreement", "GET /p/{p}/raters": "GET /projects/{p}/raters",
    "GET /p/{p}/calibration": "GET /projects/{p}/calibration", "GET /p/{p}/disagreements": "GET /projects/{p}/disagreements",
    "GET /p/{p}/adjudicate": "GET /projects/{p}/adjudicate", "GET /p/{p}/items/{i}": "GET /projects/{p}/items/{i}",
    "POST /p/{p}/items/{i}/decision": "POST /projects/{p}/items/{i}/decision",
    "POST /p/{p}/items/{i}/revoke": "POST /projects/{p}/items/{i}/revoke", "POST /p/{p}/items/{i}/anchor": "POST /projects/{p}/items/{i}/anchor",
    "GET /p/{p}/discussion": "GET /projects/{p}/discussion", "POST /p/{p}/discussion": "POST /projects/{p}/discussion",
    "GET /p/{p}/labels": "GET /projects/{p}/labels", "GET /p/{p}/costs": "GET /projects/{p}/costs", "POST /p/{p}/costs": "POST /projects/{p}/costs",
    "POST /p/{p}/costs/payment": "POST /projects/{p}/costs/payment", "POST /p/{p}/costs/override": "POST /projects/{p}/costs/override",
    "GET /p/{p}/guideline/history": "GET /projects/{p}/guideline/history", "GET /p/{p}/guideline/document": "GET /projects/{p}/guideline/document",
    "GET /p/{p}/guideline/document.md": "GET /projects/{p}/guideline/document", "POST /p/{p}/state": "POST /projects/{p}/state",
    "POST /p/{p}/waive": "POST /projects/{p}/waive", "GET /p/{p}/guideline/edit": "GET /projects/{p}/guideline",
    "POST /p/{p}/guideline/edit": "POST /projects/{p}/guideline", "GET /p/{p}/export.zip": "GET /projects/{p}/export", "GET /people": "GET /people",
    "POST /people/invite": "POST /invites", "POST /people/{u}/state": "POST /people/{u}/state", "GET /tokens": "GET /tokens",
    "POST /tokens/{t}/revoke": "DELETE /tokens/{t}", "GET /p/{p}/webhooks": "GET /projects/{p}/webhooks",
    "POST /p/{p}/webhooks": "POST /projects/{p}/webhooks", "POST /p/{p}/webhooks/{w}/remove": "DELETE /projects/{p}/webhooks/{w}",
    "GET /p/{p}/write": "POST /projects/{p}/writing/next", "GET /p/{p}/written": "GET /projects/{p}/written",
    "POST /w/{d}/reply": "POST /writing/{d}/reply", "POST /w/{d}/review": "POST /writing/{d}/review", "POST /w/{d}/skip": "POST /writing/{d}/skip",
    "POST /w/{d}/draft": "PUT /writing/{d}/draft", "POST /w/{d}/take-back": "POST /writing/{d}/take-back",
    "GET /p/{p}/talk": "GET /projects/{p}/talk", "GET /p/{p}/talk/state": "GET /projects/{p}/talk", "POST /p/{p}/say": "POST /projects/{p}/say",
    "POST /p/{p}/again": "POST /projects/{p}/again", "GET /p/{p}/steering": "GET /projects/{p}/steering",
    "POST /p/{p}/steering": "POST /projects/{p}/steering", "POST /p/{p}/scale": "POST /projects/{p}/scale",
    "POST /p/{p}/rounds": "POST /projects/{p}/rounds", "POST /p/{p}/alarms/{n}": "POST /projects/{p}/alarms/{n}",
    "POST /p/{p}/items/{i}/votes": "POST /projects/{p}/more-votes",
    "POST /w/{d}/ask": "POST /writing/{d}/ask", "GET /w/{d}/asked": "GET /writing/{d}/asked",
    "POST /p/{p}/anchors": "POST /projects/{p}/anchors", "GET /p/{p}/skills": "GET /projects/{p}/coverage",
    "POST /p/{p}/skills": "POST /projects/{p}/qualifications/waive", "POST /people/{u}/abilities": "POST /people/{u}/abilities",
    "GET /p/{p}/qualification": "GET /projects/{p}/qualifications", "POST /p/{p}/qualification": "POST /projects/{p}/qualifications",
}  # fmt: skip
"""What a page does, and the route of the API that does it."""
PAGES_ALONE = {
    "GET /login": "people log in with a password, programs with a token", "POST /login": "no program gets a password",
    "POST /logout": "a session is of a browser; a token is revoked", "GET /invite/{secret}": "a person makes an account",
    "POST /invite/{secret}": "a person makes an account and chooses a password",
    "POST /tokens": "a token makes no token: one that leaked would live on after it is revoked",
    "GET /log": "an admin's; no token has an admin's powers", "GET /people/{u}/erase": "an admin's", "POST /people/{u}/erase": "an admin's",
}  # fmt: skip
"""What only a page does, and why."""


def test_every_route_is_in_the_table_and_in_the_openapi_document(program):
    document = program().get("openapi.json").json()
    assert document["info"]["title"].startswith("Fairlead")
    found = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    for long, short in SHORT.items():
        found = {route.replace(long, short) for route in found}
    assert found == set(ROUTES)
    for methods in document["paths"].values():
        for route in methods.values():
            assert route["security"] == [{"HTTPBearer": []}] and route["description"]


def test_what_a_page_does_the_api_does_or_it_is_said_why_not():
    assert set(TWINS) | set(PAGES_ALONE) == set(PAGES) | PUBLIC and not set(TWINS) & set(PAGES_ALONE)
    assert set(TWINS.values()) <= set(ROUTES) and all(PAGES_ALONE.values())
    assert not {page for page, twin in TWINS.items() if page.startswith("POST") and twin.startswith("GET")}


def asked(client, route, ids):
    method, path = route.split()
    body = BODIES.get(route)
    if isinstance(body, dict) and body.get("person") == "{u}":
        body = {**body, "person": ids["u"]}
    place = path.format(**ids).removeprefix("/")
    if route.endswith("/import"):
        return client.request(method, place, content=PAIRS.encode())
    return client.request(method, place, **({} if body is None else {"json": body}))


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("role", "scope"),
    [
        (None, ""),
        ("rater", "read"),
        ("rater", "rate"),
        ("adjudicator", "read"),
        ("adjudicator", "adjudicate"),
        ("lead", "read"),
        ("lead", "rate"),
        ("lead", "adjudicate"),
        ("lead", "lead"),
        ("admin", "lead"),
    ],
)
def test_roles_scopes_and_routes(program, database, project, join, role, scope):
    """No token: 401. A role or scope that is too low: 403. Another's item, task or token: 404, whatever the role."""
    owner = join("owner")
    assignment = take(database, owner, project)
    verdicts.submit(database, owner, assignment.id, vote())
    hook = webhooks.make_webhook(
        database, owner, project.id, url="https://93.184.215.14/", events=["alarm"], allow_local=False
    )
    token = tokens.make_token(database, owner, name="x", scope="read", num_days=1).token.id
    ids = {"p": project.id, "a": assignment.id, "u": owner.person_id, "w": hook.id, "i": assignment.item_id, "d": "none", "n": 1, "c": "none",
           "t": token}  # fmt: skip
    client = program(join("zoe", role), scope) if role else program()
    for route in sorted(ROUTES, key=lambda route: ROUTES[route] == "rate"):  # who has an item to rate may not decide it
        needed = ROUTES[route]
        answer = asked(client, route, ids)
        said = f"{route} {answer.status_code} {answer.text}"
        if role is None:
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "token", said
        elif (scope == "read" and not route.startswith("GET")) or not may(role, scope, needed):
            assert answer.status_code == 403, said
        elif "{a}" in route or "{d}" in route:
            assert answer.status_code == 404, said
        elif route == "GET /projects/{p}/discussion" and not may(role, scope, "lead"):
            assert answer.status_code == 409, said
        elif route in ANSWERS:
            assert answer.status_code == ANSWERS[route], said
        else:
            assert answer.status_code in (200, 201, 204), said


def may(role, scope, needed):
    """Is a route that needs this much open to a token of this scope of a person of this role?"""
    of_role = {"rater": "rate", "adjudicator": "adjudicate", "lead": "lead", "admin": "lead"}[role]
    of_scope = "lead" if scope == "read" else scope
    return ORDER.index(needed) <= min(ORDER.index(of_role), ORDER.index(of_scope))


def test_what_is_given_out_is_figures_and_no_rows():
    @dataclasses.dataclass
    class Reading:
        share: float
        parts: tuple

    found = plain(Reading(share=np.float64("nan"), parts=(np.arange(2), {1: undefined("no votes", n=0)})))
    assert found["share"] is None and found["parts"][0] == [0, 1] and found["parts"][1]["1"]["value"] is None
    for odd in (Person(name="ann", password_hash="secret"), object()):
        with pytest.raises(TypeError, match="is no figure"):
            plain([odd])
