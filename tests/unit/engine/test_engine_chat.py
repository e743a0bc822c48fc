"""A chat model over HTTP: what is sent, what is tried again, what is refused, and that a key goes nowhere else."""

import threading

import pytest

from fairlead.core.errors import ConfigError, EngineError
from fairlead.engine.chat import ChatEndpoint
from openai_server import chat_server

HELLO = ({"role": "user", "content": "Hello."},)


def endpoint(url: str, **options) -> ChatEndpoint:
    return ChatEndpoint(url=url, model="m", **{"sleep": lambda _s: None, **options})


def test_a_reply_and_what_was_asked() -> None:
    with chat_server(lambda body: body["messages"][0]["content"].upper()) as server:
        reply = endpoint(server.url, key="secret", max_tokens=7, temperature=0.5).reply(HELLO)
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("HELLO.", 10, 2)
    assert server.asked == [{"model": "m", "messages": [dict(HELLO[0])], "max_tokens": 7, "temperature": 0.5, "path": "/v1/chat/completions",
                             "authorization": "Bearer secret"}]  # fmt: skip


def test_without_a_key_none_is_sent_and_a_server_that_does_not_count_says_none() -> None:
    with chat_server(lambda _body: "yes", usage=False) as server:
        reply = endpoint(server.url).reply(HELLO)
    assert (reply.prompt_tokens, reply.completion_tokens) == (None, None) and server.asked[0]["authorization"] is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_after_as_long_as_the_server_asks(status: int) -> None:
    waits: list[float] = []
    with chat_server(
        lambda _body: (
            (status, {"Retry-After": "2"} if len(server.asked) == 1 else {}, "") if len(server.asked) < 3 else "yes"
        )
    ) as server:
        assert endpoint(server.url, sleep=waits.append).reply(HELLO).text == "yes"
    assert len(server.asked) == 3 and waits[0] == 2.0 and 0.5 <= waits[1] < 1.5


def test_after_the_last_attempt_it_is_one_line() -> None:
    with (
        chat_server(lambda _body: (503, {}, "")) as server,
        pytest.raises(EngineError, match=r"endpoint\.url=.* failed 3 times in a row \(HTTP 503") as info,
    ):
        endpoint(server.url, retries=2).reply(HELLO)
    assert "\n" not in str(info.value) and len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 404])
def test_what_would_fail_every_time_is_not_tried_again_and_the_key_is_not_told(status: int) -> None:
    with (
        chat_server(lambda _body: (status, {}, "no such\nmodel for the key secret")) as server,
        pytest.raises(ConfigError, match="no such model") as info,
    ):
        endpoint(server.url, key="secret").reply(HELLO)
    assert "secret" not in repr(endpoint(server.url, key="secret"))
    assert len(server.asked) == 1 and "secret" not in str(info.value) and "\n" not in str(info.value)


def test_a_redirect_is_not_followed() -> None:
    with chat_server(lambda _body: "yes") as other:
        elsewhere = {"Location": f"{other.url}/chat/completions"}
        with chat_server(lambda _body: (307, elsewhere, "")) as server, pytest.raises(ConfigError, match="307"):
            endpoint(server.url, key="secret").reply(HELLO)
    assert other.asked == []


def test_a_server_that_is_too_slow_costs_its_time_and_no_more() -> None:
    is_told = threading.Event()

    def slow(_body: object) -> str:
        is_told.wait(60)
        return "late"

    with chat_server(slow) as server:
        with pytest.raises(EngineError, match="failed 2 times"):
            endpoint(server.url, timeout_s=0.1, retries=1).reply(HELLO)
        assert not is_told.is_set(), "it was given up before it answered"
        is_told.set()


def test_a_server_that_never_replies_is_told_so() -> None:
    with (
        chat_server(lambda _body: (200, {}, "{}")) as server,
        pytest.raises(EngineError, match="gave no reply in 2 answers"),
    ):
        endpoint(server.url, retries=1).reply(HELLO)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "body", ["", "nothing", "[]", "{}", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}']
)
def test_an_answer_that_is_no_reply_is_tried_again(body: str) -> None:
    with chat_server(lambda _body: (200, {}, body) if len(server.asked) == 1 else "yes") as server:
        assert endpoint(server.url).reply(HELLO).text == "yes"


def test_nobody_there() -> None:
    with pytest.raises(EngineError, match="refused"):
        endpoint("http://127.0.0.1:9/v1", retries=0).reply(HELLO)


@pytest.mark.parametrize("url", ["ftp://host/v1", "file:///etc/passwd", "host/v1", "http://", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a server"):
        endpoint(url)


def test_a_key_never_goes_over_the_net_in_the_clear() -> None:
    with pytest.raises(ConfigError, match="in the clear"):
        endpoint("http://judge.example/v1", key="secret")
    endpoint("https://judge.example/v1", key="secret")
