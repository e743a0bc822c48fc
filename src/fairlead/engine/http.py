"""JSON over HTTP to one server of the user's choice: timeouts, retries, and nothing of the key in any message. Standard library alone.

Only the address that was given is ever asked: redirects are not followed, so neither the key nor a prompt reaches another host. A key goes over
https, or to this machine, which is asked without the environment's proxy.

Example:
    client = JsonClient("http://localhost:8000/v1", key=None)
    client.post("/completions", {"prompt": [1, 2]})
"""

import email.utils
import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from fairlead.core.errors import ConfigError, EngineError, explain

_MAX_BYTES = 64 << 20  # of an answer
_LONGEST_WAIT_S = 60.0
_FIRST_WAIT_S = 0.5
_MAY_PASS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Status codes after which the same request is made again."""
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_MAX_TOLD = 200  # characters of a server's own words


class RefusedError(EngineError):
    """The server will say the same to every request: a wrong key, a wrong address, a request that it does not take."""


class _Passing(Exception):
    """A failure that may pass; `wait_s` when the server says how long."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class JsonClient:
    """Posts to one server. Thread-safe.

    Args:
        url: what paths are put after, http or https.
        key: sent as a bearer token, never shown; None sends none.
        timeout_s: of one whole answer.
        max_tries: of one request.
        first_wait_s: before the second try; doubled each time, up to a minute, with a random part. A server's Retry-After is obeyed.
        where: recipe path of the section that names url and key.
        sleep: between tries, seconds; None waits until `stopped` is set at the latest.
    Raises:
        ConfigError: the address is none that may be asked, the key holds what no header may, or would go in the clear.
    """

    def __init__(
        self, url: str, *, key: str | None, timeout_s: float = 120.0, max_tries: int = 6, first_wait_s: float = _FIRST_WAIT_S,
        where: str = "engine", sleep: Callable[[float], object] | None = None,
    ) -> None:  # fmt: skip
        if key is not None and not (key.isascii() and key.isprintable() and key):
            raise ConfigError(explain(f"{where}.key_env", None, "names a variable whose value is no key", expected="printable characters without "
                                      "line ends", remedy="Set it again"))  # fmt: skip
        self.url, self._where = check_server(url, where=where, has_key=key is not None), where
        self.max_tries, self.num_retries = max_tries, 0
        self.stopped = threading.Event()
        self._sleep = sleep or self.stopped.wait
        self._key, self._timeout_s, self._first_wait_s = key, timeout_s, first_wait_s
        self._random = random.Random()
        is_local = urllib.parse.urlsplit(self.url).hostname in _LOCAL
        # No handler of redirects, files or other schemes.
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler({} if is_local else None),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
        ):
            self._opener.add_handler(handler)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The server's answer.

        Raises:
            RefusedError: asking again would not help.
            EngineError: it failed `max_tries` times, or `stopped` was set.
        """
        data = json.dumps(body, allow_nan=False).encode()
        why = ""
        for attempt in range(self.max_tries):
            try:
                return self._once(path, data)
            except _Passing as error:
                why = str(error)
                if attempt + 1 == self.max_tries or self.stopped.is_set():
                    break
                self.num_retries += 1
                wait = self._first_wait_s * 2**attempt * (0.5 + self._random.random())
                self._sleep(min(_LONGEST_WAIT_S, wait if error.wait_s is None else error.wait_s))
        raise EngineError(explain(f"{self._where}.url", self.url, f"failed {self.max_tries} times in a row ({why})", expected="a server that answers",
                                  remedy="Look at the server; what came so far is kept"))  # fmt: skip

    def _once(self, path: str, data: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "fairlead"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url + path, data=data, headers=headers, method="POST")  # noqa: S310  (http or https: check_server)
        ends = time.monotonic() + self._timeout_s
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                status, text = response.status, _read(response, ends)
                after = response.headers.get("Retry-After")
        except (OSError, http.client.HTTPException, TimeoutError) as error:
            raise _Passing(self._clean(f"{type(error).__name__}: {error}")) from None
        if status == 200:
            return self._parsed(text)
        told = f"HTTP {status}: {self._clean(_words(text))}"
        if status in _MAY_PASS:
            raise _Passing(told, _seconds(after))
        raise RefusedError(
            explain(
                f"{self._where}.url",
                self.url + path,
                f"refuses the request ({told})",
                expected="HTTP 200",
                remedy=_remedy(status, self._where),
            )
        )

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise _Passing(self._clean(f"the answer is no JSON: {_words(text)}")) from None
        if not isinstance(found, dict):
            raise _Passing("the answer is no JSON object")
        return found  # pyright: ignore[reportUnknownVariableType]

    def _clean(self, text: str) -> str:
        """Servers may repeat the key in what they say."""
        text = text.replace(self._key, "***") if self._key else text
        return "".join(c if c.isprintable() else " " for c in text)[:_MAX_TOLD]


def check_server(url: str, *, where: str, has_key: bool) -> str:
    """The address without a slash at its end.

    Args:
        where: recipe path of the section that names it.
        has_key: a key would be sent there.
    Raises:
        ConfigError: not http or https, without a host, with a password, which would be shown in messages, or a key would go in the clear.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        parts, is_whole = None, False
    if parts is None or not is_whole or parts.query or parts.fragment or any(c.isspace() for c in url):
        raise ConfigError(explain(f"{where}.url", url.split("@")[-1], "is no address of a server", expected="http://HOST/v1 or https://HOST/v1",
                                  remedy="Correct it"))  # fmt: skip
    if parts.username is not None or parts.password is not None:
        raise ConfigError(explain(f"{where}.url", parts.hostname, "carries a name or a password", expected="an address alone",
                                  remedy="Put the key into an environment variable and name it in key_env"))  # fmt: skip
    if has_key and parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise ConfigError(explain(f"{where}.url", url, "would send the key in the clear", expected="https, or a server on this machine",
                                  remedy="Use https, or leave key_env out"))  # fmt: skip
    return url.rstrip("/")


def _read(response: Any, ends: float) -> bytes:
    """All of an answer, within its time and size."""
    parts, size = list[bytes](), 0
    while block := response.read1(1 << 16):
        parts.append(block)
        size += len(block)
        if size > _MAX_BYTES:
            raise _Passing(f"the answer is longer than {_MAX_BYTES >> 20} MB")
        if time.monotonic() > ends:
            raise TimeoutError("the answer took too long")
    if response.length:  # bytes that were announced and did not come
        raise _Passing("the answer was cut off")
    return b"".join(parts)


def _words(text: bytes) -> str:
    """What an error says, where it says it in JSON."""
    plain = text[:4096].decode("utf-8", errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return plain
    error = found.get("error", found) if isinstance(found, dict) else found
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)


def _seconds(after: str | None) -> float | None:
    """Of a Retry-After header: a number or a date."""
    if not after:
        return None
    try:
        return max(0.0, float(after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return None


def _remedy(status: int, where: str) -> str:
    if 300 <= status < 400:
        return f"Redirects are not followed: give {where}.url the address that answers"
    if status in (401, 403):
        return f"Name the environment variable that holds the key in {where}.key_env, and set it"
    if status in (404, 405):
        return f"Check {where}.url (it ends in /v1 on most servers) and {where}.model" + (
            " and engine.api" if where == "engine" else ""
        )
    return "Change what the server names" + (
        "; engine.body adds to or takes from what is sent" if where == "engine" else ""
    )
