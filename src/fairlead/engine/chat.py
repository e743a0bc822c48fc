"""One reply of a chat model behind an OpenAI-compatible server (`POST URL/chat/completions`): for judges, over the standard library.

    messages -> request -> 200: text and counted tokens | 429, 5xx, no answer in time: again, later | else: the settings are wrong

A key is read from the environment, sent to the named server alone (redirects are not followed, plain http only to this machine) and
never written anywhere.

Example:
    chat = ChatEndpoint(url="http://127.0.0.1:8000/v1", model="judge", timeout_s=60.0)
    chat.reply(({"role": "user", "content": "Hello."},)).text
"""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.core.errors import ConfigError, EngineError, explain

_AGAIN = frozenset({408, 409, 425, 429})  # and every 5xx
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_MAX_BYTES = 4 << 20  # of an answer; a reply of 8,192 tokens takes 50 kB
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What the model said."""

    text: str
    prompt_tokens: int | None
    """As the server counted them; None where it does not."""
    completion_tokens: int | None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_given: Any) -> None:
        """Follow none: the key is for the server that the recipe names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatEndpoint:
    """A chat model. Stateless; threads may share it."""

    url: str
    """Up to `/v1`."""
    model: str
    key: str = field(default="", repr=False)
    """Sent as a bearer token; empty sends none."""
    timeout_s: float = 60.0
    """For one answer."""
    retries: int = 3
    """Further attempts at a request that was refused for now or not answered."""
    max_tokens: int = 512
    temperature: float = 0.0
    sleep: Callable[[float], None] = time.sleep
    """Between attempts."""

    def __post_init__(self) -> None:
        check_address(self.url, where="url", has_key=bool(self.key))

    def reply(self, messages: Sequence[Mapping[str, str]]) -> ChatReply:
        """Ask once, again where that may help.

        Raises:
            ConfigError: the server refuses the request, and would every time.
            EngineError: no usable answer in `retries` + 1 attempts.
        """
        why = ""
        for attempt in range(self.retries + 1):
            try:
                return _read(self._post(messages))
            except urllib.error.HTTPError as error:
                with error:
                    why = f"{error.code} {error.reason}"
                    if error.code not in _AGAIN and error.code < 500:
                        said = error.read(4096).decode("utf-8", "replace").replace("\n", " ")
                        told = self._shown(f"{why}: {said}")
                        raise ConfigError(explain(self.url, None, f"refuses the request ({told})", expected="an OpenAI-compatible server that "
                                                  f"knows the model {self.model}", remedy="Correct url, model or key")) from error  # fmt: skip
                    wait = _wait_s(error.headers.get("Retry-After"), attempt)
            except (
                OSError,
                http.client.HTTPException,
                ValueError,
            ) as error:  # nobody there, too slow, broken off, no JSON
                why, wait = f"{type(error).__name__}: {error}", _wait_s(None, attempt)
            if attempt < self.retries:
                self.sleep(wait)
        raise EngineError(explain(self.url, None, f"gave no answer in {self.retries + 1} attempts ({self._shown(why)})", expected="an answer within "
                                  f"{self.timeout_s:g} s", remedy="See whether the server runs; raise timeout_s or retries"))  # fmt: skip

    def _shown(self, said: str) -> str:
        """What a server said, without the key, which it may repeat."""
        return (said.replace(self.key, "***") if self.key else said)[:320]

    def _post(self, messages: Sequence[Mapping[str, str]]) -> bytes:
        body = {
            "model": self.model,
            "messages": [dict(m) for m in messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, data=json.dumps(body).encode(), headers=headers)  # noqa: S310 - http or https, see above
        with _opener(self.url).open(request, timeout=self.timeout_s) as answer:
            data = answer.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"an answer of more than {_MAX_BYTES} bytes")
        return data


def check_address(url: str, *, where: str, has_key: bool) -> None:
    """Refuse what is no address of a server, and one to which a key would go in the clear.

    Raises:
        ConfigError: located at `where`.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(explain(where, url, "is not the address of a server", expected="http://HOST:PORT/v1 or https://HOST/v1",
                                  remedy="Correct it"))  # fmt: skip
    if has_key and parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise ConfigError(explain(where, url, "would send the key in the clear", expected="https, or a server on this machine",
                                  remedy="Use https, or leave the key out"))  # fmt: skip


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Follows no redirect; a server on this machine is asked without the environment's proxy."""
    is_local = urllib.parse.urlsplit(url).hostname in _LOCAL
    return urllib.request.build_opener(_NoRedirects(), *([urllib.request.ProxyHandler({})] if is_local else ()))


def _wait_s(retry_after: str | None, attempt: int) -> float:
    """As long as the server asks for, else twice as long each time."""
    try:
        asked = float(retry_after or "")
    except ValueError:
        asked = _FIRST_WAIT_S * 2.0**attempt
    return min(max(asked, 0.0), _LONGEST_WAIT_S)


def _read(data: bytes) -> ChatReply:
    """Raises ValueError for what is no chat completion."""
    try:
        answer = json.loads(data)
        text = answer["choices"][0]["message"]["content"]
        usage = answer.get("usage") or {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError("an answer that is no chat completion") from error
    if not isinstance(text, str):
        raise ValueError("an answer without text")
    known = [int(n) if isinstance(n, int) else None for n in counts]
    return ChatReply(text=text, prompt_tokens=known[0], completion_tokens=known[1])
