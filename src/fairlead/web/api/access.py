"""What every route of the API shares: who asks, how often, and the one shape of a refusal."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fairlead.store.annotation.database import Database
from fairlead.web.errors import Refused
from fairlead.web.policy import Actor
from fairlead.web.tokens import access_of

TOKEN_RATE_PER_S, TOKEN_BURST = 50.0, 200
"""Requests of one token."""
_SAFE = frozenset({"GET", "HEAD"})
_BEARER = HTTPBearer(auto_error=False, description="A token of the page Access or of `fairlead annotate token`.")


class Unknown(Refused):
    """No token, or none that is good: one answer for all reasons."""

    def __init__(self) -> None:
        super().__init__(401, "token", "The token is missing, wrong, expired or revoked. Make one on the page Access.")

    def __reduce__(self) -> tuple[type["Unknown"], tuple[()]]:  # type: ignore[override]
        return type(self), ()


def _actor(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)] = None
) -> Actor:
    state = request.app.state
    access = access_of(state.around.database, credentials.credentials) if credentials else None
    if access is None:
        raise Unknown
    if not state.buckets.take(access.token_id):
        raise Refused(429, "too_many", "Too many requests with this token. Wait a second.")
    if access.scope == "read" and request.method not in _SAFE:
        raise Refused(403, "scope", "This token only reads. Use one of scope rate, adjudicate or lead.")
    return access.actor


def _database(request: Request) -> Database:
    return request.app.state.around.database


Who = Annotated[Actor, Depends(_actor)]
Data = Annotated[Database, Depends(_database)]
