"""Completions written by a server: kept as they come, and the rest asked for when the run goes on."""

import json
from dataclasses import replace

import pytest

import tiny_models
from fairlead.completions.sources import KEPT, remote_completions
from fairlead.completions.stage import CompletionsConfig, run
from fairlead.core.errors import EngineError
from fairlead.core.io import read_records, write_jsonl
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.core.records import Completion, Message, Prompt
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.text.chat import ChatText
from openai_server import chat, good, said, serving


@pytest.fixture
def serve():
    yield from serving()


@pytest.fixture
def world(tmp_path):
    """(prompts, services, inputs)"""
    prompts = [Prompt(messages=(Message(role="user", content=text),)) for text in ("a man", "yes", "the ball")]
    (tmp_path / "prompts").mkdir()
    write_jsonl(tmp_path / "prompts" / "prompts.jsonl", prompts)
    model = tiny_models.load("llama")
    services = Services(work=tmp_path / "work", extras={"text": TextSection(max_length=32)})
    return prompts, services, {"prompts": tmp_path / "prompts", "policy": tiny_models.Path(model.name)}


def config(server, **changes):
    engine = {"kind": "remote", "url": server.url, "model": "m", "max_tries": 1, "num_parallel": 1, **changes}
    return CompletionsConfig.model_validate({"num_samples": 2, "max_new_tokens": 6, "engine": engine})


def test_texts_become_completions_of_the_recipes_tokenizer(world, serve, tmp_path):
    prompts, services, inputs = world
    server = serve(lambda n, _path, _body: said(chat("a man", "length" if n == 0 else "stop")))
    (tmp_path / "out").mkdir()
    summary = run(config(server), inputs=inputs, out=tmp_path / "out", services=services)
    found = list(read_records(tmp_path / "out" / "completions.jsonl", Completion))
    assert [(c.prompt_id, c.sample_index) for c in found] == [(p.id, i) for p in prompts for i in range(2)]
    assert all(c.text == "a man" and c.model == f"m at {server.url}" for c in found)
    ids = ChatText(tiny_models.make_tokenizer()).encode_completion("a man").tolist()
    assert sorted(len(c.token_ids) for c in found) == [len(ids) - 1] + [len(ids)] * 5
    assert found[0].meta == {} and "6 completions" in summary.headline
    assert {body["messages"][0]["content"] for _, body, _ in server.requests} == {"a man", "yes", "the ball"}


def test_ids_come_with_their_logprobs(world, serve, tmp_path):
    _, services, inputs = world
    server = serve(lambda _n, _path, body: said(good(body)))
    (tmp_path / "out").mkdir()
    run(config(server, api="completions"), inputs=inputs, out=tmp_path / "out", services=services)
    found = list(read_records(tmp_path / "out" / "completions.jsonl", Completion))
    assert all(c.meta["sampling_logprob"] == -0.5 * len(c.token_ids) for c in found) and len(found) == 6


def test_a_run_that_was_cut_off_asks_for_the_rest_alone(world, serve):
    prompts, services, _ = world
    chat_text = ChatText(tiny_models.make_tokenizer())
    requests = [GenerateRequest(key=p.id, token_ids=(1, 2), num_samples=2) for p in prompts]
    sampling = Sampling(max_new_tokens=6)

    def collect(server, **changes):
        engine = config(server, **changes).engine.model_copy(update={"url": "http://127.0.0.1:1/v1"})
        engine = engine.model_copy(update={"url": server.url})
        return list(remote_completions(engine, prompts, requests, sampling, chat_text, services))

    server = serve(lambda n, _path, _body: said(chat(f"t{n}")) if n < 4 else said({}, 401))
    with pytest.raises(EngineError, match="401"):
        collect(server)
    path = services.work / KEPT
    assert len(path.read_text().splitlines()) == 4
    with path.open("a") as file:
        file.write('{"identity": "cut o')
    server.script = lambda _n, _path, _body: said(chat("new"))
    told = []
    services = replace(services, say=told.append)
    found = collect(server)
    assert sorted(c.text for c in found) == ["new", "new", "t0", "t1", "t2", "t3"]
    assert len({(c.prompt_id, c.sample_index) for c in found}) == 6 and len(server.requests) == 7
    assert "4 answers" in told[0] and all(json.loads(line) for line in path.read_text().splitlines())
    other = collect(server, body={"temperature": 0.5})
    assert [c.text for c in other] == ["new"] * 6, "another question has other answers"
