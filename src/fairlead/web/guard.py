"""What every request meets before its route: host, origin, size, rate; and the headers that every answer carries.

    browser -> Guard (host, rate, size, origin; HEAD becomes GET) -> route (policy, CSRF token) -> page -> Guard (headers; HEAD: no body) -> browser

The content policy allows nothing but what the nonce of this one answer names: no inline script, no remote load of any kind.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairlead.web.place import Place

MAX_BODY = 1_000_000
"""Bytes of a request; the longest guideline is 200,000 characters."""
MAX_IMPORT = 64_000_000
"""Bytes of a file that is imported over the API; a larger one goes in by `fairlead annotate import`."""
API = "/api/v1/"
RATE_PER_S, BURST = 20.0, 120
"""Requests of one address: far above any rater, below what would hurt."""
_MAX_NAMES = 10_000
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class TooLarge(HTTPException):
    """The body of a request goes on beyond the limit. An HTTPException, for FastAPI turns others into 400 where it reads a form."""

    def __init__(self, limit: int = MAX_BODY) -> None:
        super().__init__(413, f"The request is larger than {limit:,} bytes. Send less.")


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """How often a name (an address, a token) may ask: a bucket of `burst` that fills at `rate_per_s`. Of one process."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s, self._burst = rate_per_s, burst
        self._found: dict[str, _Bucket] = {}

    def take(self, name: str) -> bool:
        """Take one; False when there is none."""
        now = time.monotonic()
        if len(self._found) > _MAX_NAMES:
            self._found.clear()
        bucket = self._found.setdefault(name, _Bucket(tokens=float(self._burst), at=now))
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate_per_s)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True


class Guard:
    """ASGI middleware. One for the process; not shared between processes."""

    def __init__(self, app: ASGIApp, *, place: Place, rate_per_s: float = RATE_PER_S, burst: int = BURST) -> None:
        self._app, self._place = app, place
        self._buckets = Buckets(rate_per_s, burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        nonce = secrets.token_urlsafe(16)
        scope.setdefault("state", {})["nonce"] = nonce
        if scope["method"] == "HEAD":  # of a load balancer or an uptime check: the answer to GET, without its body
            send = _without_body(send)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal, is_program=scope["path"].startswith(API))
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._headers(scope, nonce)]
            await send(message)

        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        await self._app(asked, _limited(receive, body_limit(scope["path"])), send_with_headers)

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str] | None:
        if headers.get("host", "") not in self._place.hosts:
            return 421, "This is not the address of the rating application. Use the one that the lead gave you."
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL takes no such text
            return 404, "This page is not there. Go back to the start."
        if not self._buckets.take((scope.get("client") or ("unknown", 0))[0]):
            return 429, "Too many requests. Wait a few seconds."
        length = headers.get("content-length", "0")
        limit = body_limit(scope["path"])
        if not length.isdigit() or int(length) > limit:
            return 413, f"The request is larger than {limit:,} bytes. Send less."
        if scope["method"] not in _SAFE and not self._is_own(headers, is_program=scope["path"].startswith(API)):
            return 403, "The request comes from another site. Open the application itself and try again."
        return None

    def _is_own(self, headers: Mapping[str, str], *, is_program: bool) -> bool:
        """Was the request made by a page of this application? A request that does not say is not, unless it is for
        the API, which looks at tokens only: no browser adds one by itself, and cookies say nothing there."""
        if "origin" in headers:
            return headers["origin"] in self._place.origins
        if is_program:
            return True
        referer = headers.get("referer", "")
        return any(referer == origin or referer.startswith(f"{origin}/") for origin in self._place.origins)

    def _headers(self, scope: Scope, nonce: str) -> list[tuple[bytes, bytes]]:
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; connect-src 'self'; "
            "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types fairlead"
        )
        found = {
            "content-security-policy": policy, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin", "x-frame-options": "DENY",
            "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=()",
        }  # fmt: skip
        if not scope["path"].startswith("/static/"):
            found["cache-control"] = "no-store"
        if self._place.is_secure:
            found["strict-transport-security"] = "max-age=31536000"
        return [(name.encode(), value.encode()) for name, value in found.items()]


def body_limit(path: str) -> int:
    """Bytes that a request to a path may have."""
    is_import = path.startswith(API) and path.endswith("/import")
    return MAX_IMPORT if is_import else MAX_BODY


def _limited(receive: Receive, limit: int) -> Receive:
    num_bytes = 0

    async def limited() -> Message:
        nonlocal num_bytes
        message = await receive()
        num_bytes += len(message.get("body", b""))
        if num_bytes > limit:
            raise TooLarge(limit)
        return message

    return limited


def _without_body(send: Send) -> Send:
    async def send_start(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_start


async def _answer(send: Send, status: int, text: str, *, is_program: bool) -> None:
    body = json.dumps({"error": {"code": "refused", "message": text}}).encode() if is_program else text.encode()
    kind = b"application/json" if is_program else b"text/plain; charset=utf-8"
    headers: list[tuple[bytes, bytes]] = [
        (b"content-type", kind), (b"content-length", str(len(body)).encode()),
        (b"content-security-policy", b"default-src 'none'"), (b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"),
    ]  # fmt: skip
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
