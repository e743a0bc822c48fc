"""One's own tokens: to look at and to end. They are made on the page Access or by `fairlead annotate token`, never by another token."""

from fastapi import APIRouter
from pydantic import BaseModel

from fairlead.web import policy, tokens
from fairlead.web.api.access import Data, Who

router = APIRouter(tags=["tokens"])


class TokenShown(BaseModel):
    """A token without its secret."""

    id: str
    name: str
    prefix: str
    scope: str
    created_at: int
    expires_at: int
    revoked_at: int | None
    used_at: int | None


@router.get("/tokens")
def list_tokens(who: Who, data: Data) -> list[TokenShown]:
    """One's own, newest first."""
    policy.may_make_token(who, "read")
    return [
        TokenShown(id=token.id, name=token.name, prefix=token.prefix, scope=token.scope, created_at=token.created_at, expires_at=token.expires_at,
                   revoked_at=token.revoked_at, used_at=token.used_at)
        for token, _ in tokens.list_tokens(data, who)
    ]  # fmt: skip


@router.delete("/tokens/{token_id}", status_code=204)
def revoke(who: Who, data: Data, token_id: str) -> None:
    """End one of one's own tokens."""
    policy.may_make_token(who, "read")
    tokens.revoke_token(data, token_id, by=who)
