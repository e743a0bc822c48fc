"""What routes share: who asks, the CSRF token, rendering, cookies."""

import datetime
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import jinja2
from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from fairlead.core.gates import some
from fairlead.store.annotation.database import Database
from fairlead.web import people
from fairlead.web.chats.talker import Talker
from fairlead.web.errors import Refused
from fairlead.web.place import Place
from fairlead.web.policy import Actor
from fairlead.web.rendering import to_html

_VISIT = "fairlead_visit"
_ITEMS_AT_ONCE = 2
_VOTES_AT_ONCE = 4
_LOGINS_AT_ONCE = 4
"""Two of them hash (`people`), while others store what came of it."""
_STORING = anyio.CapacityLimiter(_VOTES_AT_ONCE)
_MAKING = anyio.CapacityLimiter(_ITEMS_AT_ONCE)
_LETTING_IN = anyio.CapacityLimiter(_LOGINS_AT_ONCE)
_TEMPLATES = jinja2.Environment(
    loader=jinja2.ChoiceLoader([jinja2.FileSystemLoader(Path(__file__).parents[1] / "templates"), jinja2.PackageLoader("fairlead.report")]),
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False,
)  # fmt: skip
_TEMPLATES.filters["markdown"] = to_html
_TEMPLATES.filters["count"] = lambda number: f"{number:,}"
_TEMPLATES.filters["some"] = some
_TEMPLATES.filters["utc"] = lambda ms: datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).strftime(
    "%Y-%m-%d %H:%M:%S"
)
_TEMPLATES.filters["percent"] = lambda share: f"{100 * share:.0f} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What the application was made with."""

    database: Database
    place: Place
    secret: bytes
    allow_local_webhooks: bool = False
    """May webhooks go to this machine itself, without TLS?"""
    talker: Talker | None = None
    """Answers in live conversations; None for a server without a policy."""


class LogIn(Refused):
    """Nobody is logged in."""

    def __init__(self) -> None:
        super().__init__(401, "login", "You are logged out. Log in again; what you wrote is kept in this browser.")

    def __reduce__(self) -> tuple[type["LogIn"], tuple[()]]:  # type: ignore[override]
        return type(self), ()


def around(request: Request) -> Around:
    """The application's surroundings."""
    return request.app.state.around


def session_cookie(place: Place) -> str:
    """Name of the session's cookie; behind TLS browsers hold it to this host and path."""
    return "__Host-fairlead" if place.is_secure else "fairlead"


def actor_or_none(request: Request) -> Actor | None:
    """Who is logged in."""
    here = around(request)
    if not hasattr(request.state, "actor"):
        request.state.actor = people.actor_of(here.database, request.cookies.get(session_cookie(here.place)))
    return request.state.actor


def actor(request: Request) -> Actor:
    """Who is logged in, or a refusal."""
    found = actor_or_none(request)
    if found is None:
        raise LogIn
    return found


def wants_json(request: Request) -> bool:
    """Was the request made by a script of ours?"""
    return "application/json" in request.headers.get("accept", "")


def csrf_token(request: Request) -> str:
    """Bound to the session, before it to the visit."""
    here = around(request)
    bound = request.cookies.get(session_cookie(here.place)) or _visit(request)
    return hmac.new(here.secret, bound.encode(), "sha256").hexdigest()


def _visit(request: Request) -> str:
    if not hasattr(request.state, "visit"):
        request.state.visit = request.cookies.get(_VISIT) or secrets.token_urlsafe(24)
    return request.state.visit


def check_csrf(request: Request, token: str) -> None:
    """Refuse a form that no page of ours made for this session."""
    given = token or request.headers.get("x-csrf-token", "")
    if not hmac.compare_digest(given.encode(), csrf_token(request).encode()):
        raise Refused(
            403, "csrf", "The page is too old. Load it again and repeat; what you wrote is kept in this browser."
        )


async def before_pages(store: Callable[[], Response]) -> Response:
    """Store a vote in a thread. A few at once share a commit; more of them would only take the interpreter from each other."""
    return await run_sync(store, limiter=_STORING)


async def behind_votes(make: Callable[[], Response]) -> Response:
    """Make an item's page in a thread. Few at once: it takes far more of the processor than a vote, of which somebody may be waiting for
    the acknowledgement, while the next item is fetched long before it is needed."""
    return await run_sync(make, limiter=_MAKING)


async def at_the_door(let_in: Callable[[], Response]) -> Response:
    """Check or set a password in a thread. Few at once: the logins of a morning wait for each other's hashes, and would take the threads
    that drafts, undo and all other pages share."""
    return await run_sync(let_in, limiter=_LETTING_IN)


def render(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Fill a template with its values and what every page has."""
    here = around(request)
    text = _TEMPLATES.get_template(template).render(
        nonce=request.state.nonce, csrf=csrf_token(request), actor=actor_or_none(request), **values
    )
    response = HTMLResponse(text, status_code=status)
    if actor_or_none(request) is None:
        _set_cookie(response, here.place, _VISIT, _visit(request), max_age=None)
    return response


def logged_in(request: Request, session_secret: str) -> Response:
    """Go to the start with a new session."""
    here = around(request)
    response = see("/")
    _set_cookie(response, here.place, session_cookie(here.place), session_secret, max_age=people.SESSION_MS // 1000)
    response.delete_cookie(_VISIT, path="/")
    return response


def _set_cookie(response: Response, place: Place, name: str, value: str, *, max_age: int | None) -> None:
    response.set_cookie(name, value, max_age=max_age, path="/", secure=place.is_secure, httponly=True, samesite="lax")


def see(path: str) -> RedirectResponse:
    """After a form: look at this page."""
    return RedirectResponse(path, status_code=303)
