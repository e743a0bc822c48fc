"""Sampling from a server: against a small one in this process that fails in every way that servers do."""

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from fairlead.core.errors import ConfigError, EngineError
from fairlead.core.protocols import GenerateRequest, Sampler, Sampling
from fairlead.engine.http import JsonClient, check_server
from fairlead.engine.remote import Question, RemoteEngine, RemoteSettings
from openai_server import chat, good, said, serving

KEY = "sk-very-secret"
SAMPLING = Sampling(max_new_tokens=5)
HI = ({"role": "user", "content": "Hi"},)


@pytest.fixture
def serve():
    yield from serving()


def engine(server, **changes):
    options = {name: changes.pop(name) for name in ("needs_logprobs", "heed") if name in changes}
    settings = RemoteSettings(url=server.url, model="m", **changes)
    return RemoteEngine(settings, first_wait_s=0.01, **options)


def requests(num=4, num_samples=2):
    return [GenerateRequest(key=f"p{i}", token_ids=(1, 2, 3 + i), num_samples=num_samples) for i in range(num)]


def test_samples_carry_ids_and_logprobs(serve):
    server = serve(lambda _n, _path, body: said(good(body)))
    remote = engine(server)
    assert isinstance(remote, Sampler)
    found = {(s.key, s.sample_index): s for s in remote.generate(requests(), SAMPLING)}
    assert set(found) == {(f"p{i}", j) for i in range(4) for j in range(2)}
    sample = found["p1", 0]
    assert sample.token_ids.tolist()[:3] == [4, 2, 1] and sample.finish_reason == "stop"
    assert sample.sampling_logprobs.dtype == np.float32 and sample.sampling_logprobs.tolist() == [-0.5] * 4
    assert sample.policy_versions == ((0, 0, 4),)
    assert found["p1", 0].token_ids.tolist() != found["p1", 1].token_ids.tolist(), "each sample has its own seed"
    again = {(s.key, s.sample_index): s for s in remote.generate(requests()[::-1], SAMPLING)}
    assert all(again[n].token_ids.tolist() == s.token_ids.tolist() for n, s in found.items())
    assert remote.health().num_tokens == 64 and remote.health().state == "ready"


def test_only_what_differs_from_the_usual_is_sent(serve):
    server = serve(lambda _n, _path, body: said(good(body)))
    list(engine(server).generate(requests(1, 1), SAMPLING))
    path, body, headers = server.requests[-1]
    assert path == "/v1/completions" and "Authorization" not in headers
    assert set(body) == {
        "model",
        "max_tokens",
        "temperature",
        "seed",
        "prompt",
        "logprobs",
        "return_token_ids",
        "return_tokens_as_token_ids",
    }
    cut = Sampling(
        max_new_tokens=9, top_k=5, top_p=0.9, min_p=0.1, repetition_penalty=1.2, stop=("a",), stop_token_ids=(7,)
    )
    short = GenerateRequest(key="p", token_ids=(1,), max_new_tokens=2)
    with_body = engine(server, body={"priority": 3, "temperature": None})
    list(with_body.generate([short], cut))
    _, body, _ = server.requests[-1]
    assert (body["top_k"], body["top_p"], body["min_p"], body["repetition_penalty"]) == (5, 0.9, 0.1, 1.2)
    assert body["stop"] == ["a"] and body["stop_token_ids"] == [7] and body["max_tokens"] == 2
    assert body["priority"] == 3 and "temperature" not in body


def test_ids_may_come_in_place_of_texts(serve):
    def script(_n, _path, body):
        answer = good(body)
        ids = answer["choices"][0].pop("token_ids")
        answer["choices"][0]["logprobs"]["tokens"] = [f"token_id:{i}" for i in ids]
        return said(answer)

    (sample,) = engine(serve(script)).generate(requests(1, 1), SAMPLING)
    assert sample.token_ids.tolist()[:3] == [3, 2, 1]


def test_a_server_without_ids_or_logprobs_is_refused_where_they_are_needed(serve):
    def without(*names):
        def script(_n, _path, body):
            answer = good(body)
            for name in names:
                answer["choices"][0].pop(name)
            return said(answer)

        return serve(script)

    with pytest.raises(EngineError, match=r"gives no token ids.*engine\.api: chat"):
        list(engine(without("token_ids", "logprobs")).generate(requests(), SAMPLING))
    with pytest.raises(EngineError, match="no log-probabilities"):
        list(engine(without("logprobs")).generate(requests(), SAMPLING))
    found = list(engine(without("logprobs"), needs_logprobs=False).generate(requests(), SAMPLING))
    assert len(found) == 8 and all(np.isnan(s.sampling_logprobs).all() for s in found)


def test_a_server_that_read_another_prompt_is_refused(serve):
    server = serve(lambda _n, _path, body: said(good(body) | {"prompt_token_ids": [0, *body["prompt"]]}))
    with pytest.raises(EngineError, match="another prompt"):
        list(engine(server).generate(requests(1, 1), SAMPLING))


def test_replies_to_messages(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    server = serve(lambda _n, _path, body: said(chat(f"{body['messages'][0]['content']} {body['seed'] % 7}", "length")))
    remote = engine(server, key_env="MY_KEY")
    found = list(remote.ask([Question(key="p", messages=HI, num_samples=3)], SAMPLING, skip={("p", 1)}))
    assert sorted(r.sample_index for r in found) == [0, 2] and all(r.text.startswith("Hi ") for r in found)
    assert all(r.finish_reason == "length" for r in found)
    path, body, headers = server.requests[0]
    assert path == "/v1/chat/completions" and "stop_token_ids" not in body
    assert headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "bad",
    [
        (429, {}, b"slow down"),
        (429, {"Retry-After": "0"}, b"{}"),
        (429, {"Retry-After": "Mon, 01 Jan 2024 00:00:00 GMT"}, b"{}"),
        (500, {}, b"<html>oops</html>"),
        (503, {}, b""),
        (200, {}, b"no json"),
        (200, {}, b"[1, 2]"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b'{"choices": [{"finish_reason": "content_filter", "message": {"content": "x"}}]}'),
        (200, {}, b'{"choices": [{"finish_reason": "stop", "message": {"content": null}}]}'),
        (200, {"Content-Length": "900"}, b'{"choices"'),
        (200, {}, b"[" * 100_000),
    ],
)
def test_what_may_pass_is_asked_again(serve, bad):
    server = serve(lambda n, _path, _body: bad if n < 2 else said(chat("at last")))
    (reply,) = engine(server, timeout_s=60.0).ask([Question(key="p", messages=HI)], SAMPLING)
    assert reply.text == "at last" and len(server.requests) == 3
    assert len({json.dumps(body) for _, body, _ in server.requests}) == 1, "the same question"


@pytest.fixture
def end():
    """Set when the test is over: for answers that do not come before."""
    is_over = threading.Event()
    yield is_over
    is_over.set()


def test_a_slow_answer_is_given_up_and_asked_again(serve, end):
    def script(n, _path, _body):
        if n == 0:
            end.wait(60)
        return said(chat("x"))

    server = serve(script)
    (reply,) = engine(server, timeout_s=0.5).ask([Question(key="p", messages=HI)], SAMPLING)
    assert reply.text == "x" and len(server.requests) >= 2  # more where the machine was slow, too


def test_an_answer_that_drips_is_given_up(serve):
    class Dripping:
        def __len__(self):
            return 1000

        def __iter__(self):
            for _ in range(600):
                time.sleep(0.1)
                yield b" "

    server = serve(lambda _n, _path, _body: (200, {}, Dripping()))
    client = JsonClient(server.url, key=None, timeout_s=0.4, max_tries=1)
    started = time.monotonic()
    with pytest.raises(EngineError, match="too long"):
        client.post("/x", {})
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(("status", "remedy"), [(401, "key_env"), (404, "engine.url"), (400, "engine.body")])
def test_what_will_not_pass_is_asked_once(serve, monkeypatch, status, remedy):
    monkeypatch.setenv("MY_KEY", KEY)
    server = serve(lambda _n, _path, _body: said({"error": {"message": f"not with {KEY}\x1b[31m"}}, status))
    remote = engine(server, key_env="MY_KEY", num_parallel=1)
    with pytest.raises(EngineError, match=remedy) as found:
        list(remote.ask([Question(key="p", messages=HI, num_samples=20)], SAMPLING))
    assert len(server.requests) == 1 and f"HTTP {status}" in str(found.value)
    assert KEY not in str(found.value) and "\x1b" not in str(found.value) and "not with ***" in str(found.value)
    assert KEY not in repr(remote.settings) and KEY not in str(remote.health()) and remote.health().state == "failed"


def test_redirects_are_not_followed(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    other = serve(lambda _n, _path, _body: said(chat("stolen")))
    server = serve(lambda _n, _path, _body: (307, {"Location": other.url + "/chat/completions"}, b""))
    with pytest.raises(EngineError, match="Redirects are not followed"):
        list(engine(server, key_env="MY_KEY").ask([Question(key="p", messages=HI)], SAMPLING))
    assert not other.requests


def test_what_came_is_handed_over_before_a_failure_is_told(serve):
    """One question of many fails for good: all others come first."""

    def script(_n, _path, body):
        return said({}, 500) if body["prompt"][-1] == 5 else said(good(body))

    found = []
    with pytest.raises(EngineError, match="failed 2 times"):
        for sample in engine(serve(script), max_tries=2).generate(requests(6, 1), SAMPLING):
            found.append(sample.key)
    assert sorted(found) == ["p0", "p1", "p3", "p4", "p5"]


def test_a_server_that_is_gone_ends_it_soon(serve):
    server = serve(lambda _n, _path, _body: said({}, 503))
    with pytest.raises(EngineError, match="what came so far is kept"):
        list(
            engine(server, max_tries=2, num_parallel=3).ask([Question(key="p", messages=HI, num_samples=500)], SAMPLING)
        )
    assert len(server.requests) < 30
    closed = RemoteEngine(RemoteSettings(url="http://127.0.0.1:9", model="m", max_tries=2), first_wait_s=0.01)
    with pytest.raises(EngineError, match="failed 2 times in a row"):
        list(closed.ask([Question(key="p", messages=HI)], SAMPLING))


def test_the_reader_may_stop_while_it_waits(serve, end):
    """Ctrl-C is heeded although no answer comes; a reader that goes away takes the questions along."""

    class StopError(Exception):
        pass

    def heed():
        if len(server.requests) == 2:
            raise StopError

    server = serve(lambda _n, _path, _body: end.wait(60) and said(chat("x")))
    with pytest.raises(StopError):
        list(engine(server, heed=heed, num_parallel=2).ask([Question(key="p", messages=HI, num_samples=50)], SAMPLING))
    assert not end.is_set() and len(server.requests) == 2
    quick = serve(lambda _n, _path, _body: said(chat("x")))
    before = set(threading.enumerate())
    replies = engine(quick, num_parallel=2).ask([Question(key="p", messages=HI, num_samples=5000)], SAMPLING)
    next(replies)
    replies.close()
    limit = time.monotonic() + 60
    while set(threading.enumerate()) - before:  # not joined: one that another thread is just starting cannot be
        assert time.monotonic() < limit, "the questions go on"
        time.sleep(0.01)
    assert len(quick.requests) < 5000


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://host/v1", "file:///etc/passwd", "http://", "http:///v1", "http://host:99999/v1", "http://ho st/v1",
     "http://host/v1?key=1", "http://host/v1#a"],
)  # fmt: skip
def test_addresses_are_http(url):
    with pytest.raises(ConfigError, match="no address of a server"):
        check_server(url, where="engine", has_key=False)


def test_an_address_with_a_password_is_refused_without_showing_it():
    with pytest.raises(ConfigError, match="carries a name or a password") as found:
        check_server("https://me:hunter2@host/v1", where="engine", has_key=False)
    assert "hunter2" not in str(found.value)
    with pytest.raises(ConfigError) as found:
        check_server("ftp://me:hunter2@host/v1", where="engine", has_key=False)
    assert "hunter2" not in str(found.value)
    assert check_server("https://host:8443/v1/", where="engine", has_key=True) == "https://host:8443/v1"


def test_a_key_that_is_missing_or_none_is_said(monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(EngineError, match=r"engine\.key_env=NO_KEY is not set"):
        RemoteEngine(RemoteSettings(url="http://host/v1", model="m", key_env="NO_KEY"))
    monkeypatch.setenv("NO_KEY", "a\nb")
    with pytest.raises(ConfigError, match="no key") as found:
        RemoteEngine(RemoteSettings(url="http://host/v1", model="m", key_env="NO_KEY"))
    assert "a\nb" not in str(found.value)


def test_it_needs_no_torch():
    code = "import sys, fairlead.engine.remote; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_key_does_not_go_in_the_clear_but_to_this_machine():
    with pytest.raises(ConfigError, match="in the clear") as info:
        JsonClient("http://host/v1", key="secret")
    assert "secret" not in str(info.value)
    assert JsonClient("https://host/v1", key="secret").url == "https://host/v1"
    assert JsonClient("http://127.0.0.1:1/v1", key="secret").url == "http://127.0.0.1:1/v1"
    assert JsonClient("http://host/v1", key=None).url == "http://host/v1"


def test_this_machine_is_asked_without_a_proxy(serve, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server = serve(lambda _n, _path, _body: said(chat("yes")))
    (reply,) = engine(server, max_tries=1).ask([Question(key="p", messages=HI)], SAMPLING)
    assert reply.text == "yes" and len(server.requests) == 1


def test_what_could_not_be_recorded_is_not_asked_for(serve):
    server = serve(lambda _n, _path, body: said(good(body)))
    with pytest.raises(EngineError, match="does not say which"):
        list(engine(server).generate(requests(), replace(SAMPLING, top_k=5, wants_choices=True)))
    assert server.requests == []
    assert len(list(engine(server).generate(requests(), replace(SAMPLING, top_k=5)))) == 8
