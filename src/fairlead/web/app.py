"""The application: routes, the guard before them, and one shape for every refusal.

Example:
    app = make_app(database, place=Place.of(host="127.0.0.1", port=8643, url=None), secret=os.urandom(32))
"""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

import fairlead.report
from fairlead.core.errors import FairleadError
from fairlead.store.annotation.database import Database
from fairlead.store.annotation.faults import WriterBusy, storage_fault
from fairlead.web.api import make_api
from fairlead.web.chats.talker import Talker
from fairlead.web.errors import NotYet, Refused
from fairlead.web.files import StaticFolder
from fairlead.web.guard import BURST, RATE_PER_S, Guard
from fairlead.web.pages import (
    access,
    accounts,
    costs,
    dashboard,
    disputes,
    erasing,
    guidelines,
    lead,
    rating,
    skills,
    steering,
    talking,
    webhooks,
    writing,
)
from fairlead.web.pages.context import Around, render, wants_json
from fairlead.web.pages.preparing import preparing_page
from fairlead.web.place import Place


def make_app(
    database: Database, *, place: Place, secret: bytes, rate_per_s: float = RATE_PER_S, burst: int = BURST,
    allow_local_webhooks: bool = False, talker: Talker | None = None,
) -> FastAPI:  # fmt: skip
    """Build it around an open database.

    Args:
        secret: key of the CSRF tokens.
        rate_per_s: requests of one address; tests and load generators raise it.
        allow_local_webhooks: for a receiver on this machine.
        talker: answers in live conversations; None for a server without a policy.
    """
    app = FastAPI(title="Fairlead rating application", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.around = Around(
        database=database, place=place, secret=secret, allow_local_webhooks=allow_local_webhooks, talker=talker
    )
    app.mount("/static/charts", StaticFolder(Path(fairlead.report.__file__).parent / "static"), name="charts")
    app.mount("/static", StaticFolder(Path(__file__).parent / "static"), name="static")
    for module in (  # asked in this order: first what raters ask for with every item
        rating,
        accounts,
        writing,
        talking,
        lead,
        dashboard,
        disputes,
        costs,
        guidelines,
        access,
        steering,
        skills,
        webhooks,
        erasing,
    ):
        app.include_router(module.router)
    app.mount("/api/v1", make_api(app.state.around), name="api")
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(NotYet, _not_yet)
    app.add_exception_handler(FairleadError, _unusable)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _malformed)
    for fault in (DBAPIError, WriterBusy):
        app.add_exception_handler(fault, _storage)
    app.add_middleware(Guard, place=place, rate_per_s=rate_per_s, burst=burst)
    return app


def _say(request: Request, status: int, code: str, message: str) -> Response:
    if wants_json(request):
        return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)
    return render(request, "refused.html", status=status, message=message)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _say(request, error.status, error.code, error.message)


def _not_yet(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotYet)
    return _refused(request, error) if wants_json(request) else preparing_page(request, error)


def _unusable(request: Request, error: Exception) -> Response:
    """Nothing to export yet, a format that cannot hold it: the sentence that the command line prints."""
    return _say(request, 422, "invalid", str(error))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {
        404: "This page is not there. Go back to the start.",
        405: "This cannot be done here. Go back to the start.",
    }
    return _say(request, error.status_code, "http", words.get(error.status_code, str(error.detail)))


def _malformed(request: Request, _error: Exception) -> Response:
    return _say(request, 422, "invalid", "The request lacks a field or has a wrong one. Load the page again.")


def _storage(request: Request, error: Exception) -> Response:
    """A full disk, a locked database, a server that is gone: nothing was stored, and the person is told so."""
    cause = storage_fault(error)
    if cause is None:
        raise error
    if not hasattr(request.state, "actor"):
        request.state.actor = None  # who asks cannot be looked up now
    return _say(request, 503, "storage", f"Not saved: {cause}. Your vote is kept in this browser and sent again.")
