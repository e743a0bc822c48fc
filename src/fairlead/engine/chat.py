"""One reply of a chat model behind an OpenAI-compatible server (`POST URL/chat/completions`): for judges, over `engine.http`.

    messages -> request -> 200: text and counted tokens | what may pass, no answer in time: again, later | else: the settings are wrong

Example:
    chat = ChatEndpoint(url="http://127.0.0.1:8000/v1", model="judge", timeout_s=60.0)
    chat.reply(({"role": "user", "content": "Hello."},)).text
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.core.errors import ConfigError, EngineError, explain
from fairlead.engine.http import JsonClient, RefusedError, check_server


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """What the model said."""

    text: str
    prompt_tokens: int | None
    """As the server counted them; None where it does not."""
    completion_tokens: int | None


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
    """Further attempts at a request that was refused for now or not answered, and at one whose answer is no reply."""
    max_tokens: int = 512
    temperature: float = 0.0
    where: str = "endpoint"
    """Recipe path of the section that names it."""
    sleep: Callable[[float], object] | None = None
    """Between attempts, seconds; None really waits."""

    def __post_init__(self) -> None:
        check_server(self.url, where=self.where, has_key=bool(self.key))

    def reply(self, messages: Sequence[Mapping[str, str]]) -> ChatReply:
        """Ask once, again where that may help.

        Raises:
            ConfigError: the server refuses the request, and would every time.
            EngineError: no usable answer in `retries` + 1 attempts.
        """
        client = JsonClient(self.url, key=self.key or None, timeout_s=self.timeout_s, max_tries=self.retries + 1, where=self.where,
                            sleep=self.sleep)  # fmt: skip
        body = {
            "model": self.model,
            "messages": [dict(m) for m in messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
        }
        for _ in range(self.retries + 1):
            try:
                found = _read(client.post("/chat/completions", body))
            except RefusedError as error:
                raise ConfigError(str(error)) from error
            if found is not None:
                return found
        raise EngineError(explain(f"{self.where}.url", self.url, f"gave no reply in {self.retries + 1} answers", expected="chat completions",
                                  remedy="Look at the server, or at the model that it serves"))  # fmt: skip


def _read(answer: Mapping[str, Any]) -> ChatReply | None:
    """None for what is no chat completion."""
    try:
        text = answer["choices"][0]["message"]["content"]
        usage = answer.get("usage") or {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if not isinstance(text, str):
        return None
    known = [int(n) if isinstance(n, int) else None for n in counts]
    return ChatReply(text=text, prompt_tokens=known[0], completion_tokens=known[1])
