"""The API as an application of its own, mounted beside the pages."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException

from fairlead.core.errors import FairleadError
from fairlead.store.annotation.faults import WriterBusy, storage_fault
from fairlead.web.api import (
    costs,
    disputes,
    figures,
    people,
    projects,
    rating,
    skills,
    steering,
    talking,
    tokens,
    transfer,
    watching,
    webhooks,
    writing,
)
from fairlead.web.api.access import TOKEN_BURST, TOKEN_RATE_PER_S
from fairlead.web.api.models import Refusal
from fairlead.web.errors import Refused
from fairlead.web.guard import Buckets
from fairlead.web.pages.context import Around


def make_api(around: Around, *, rate_per_s: float = TOKEN_RATE_PER_S, burst: int = TOKEN_BURST) -> FastAPI:
    """Build it around what the pages have."""
    errors: dict[int | str, dict[str, Any]] = {"4XX": {"model": Refusal, "description": "Not done, and why."}}
    api = FastAPI(title="Fairlead rating application", version="1", docs_url=None, redoc_url=None, openapi_url="/openapi.json",
                  description=__doc__ or "", responses=errors, swagger_ui_oauth2_redirect_url=None)  # fmt: skip
    api.state.around = around
    api.state.buckets = Buckets(rate_per_s, burst)
    modules = (
        projects,
        rating,
        writing,
        talking,
        disputes,
        figures,
        steering,
        watching,
        costs,
        people,
        skills,
        tokens,
        transfer,
        webhooks,
    )
    for module in modules:
        api.include_router(module.router)
    api.add_exception_handler(Refused, _refused)
    api.add_exception_handler(FairleadError, _unusable)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(RequestValidationError, _malformed)
    for fault in (DBAPIError, WriterBusy):
        api.add_exception_handler(fault, _storage)
    return api


def _say(status: int, code: str, message: str) -> Response:
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status, headers=headers)


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _say(error.status, error.code, error.message)


def _unusable(_request: Request, error: Exception) -> Response:
    """A file that cannot be read, or nothing to export: the sentence that the command line prints."""
    return _say(422, "invalid", str(error))


def _http(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _say(error.status_code, "http", str(error.detail))


def _malformed(_request: Request, error: Exception) -> Response:
    """The first fault with its place. What was sent is not repeated, for it may be long or secret."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    return _say(422, "invalid", f"{place}: {fault['msg']}. See /api/v1/openapi.json.")


def _storage(_request: Request, error: Exception) -> Response:
    cause = storage_fault(error)
    if cause is None:
        raise error
    return _say(503, "storage", f"Not saved: {cause}. Send it again with the same key.")
