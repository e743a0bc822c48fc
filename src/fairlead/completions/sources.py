"""Who writes the completions of a stage: an engine in this process by token ids, or a server by messages or ids.

What a server has answered is kept in the stage's work folder as it comes, so that a run that was cut off asks for the rest alone.

    completions of this run = kept answers to the same questions + new ones
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fairlead.core.engine_section import EngineSection
from fairlead.core.io import dump_json
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.core.records import Completion, Prompt, from_dict, to_dict
from fairlead.core.services import Services
from fairlead.engine.remote import Question, RemoteEngine, RemoteSettings
from fairlead.text.chat import ChatText

KEPT = "remote_answers.jsonl"


def remote_name(engine: EngineSection) -> str:
    """Name of the writer in records."""
    return f"{engine.model} at {engine.url}"


def remote_completions(
    engine: EngineSection, prompts: Sequence[Prompt], requests: Sequence[GenerateRequest], sampling: Sampling, chat: ChatText,
    services: Services,
) -> Iterator[Completion]:  # fmt: skip
    """Completions in no order: those of an earlier try of the same questions first, then new ones as they come.

    Raises:
        EngineError: the server refuses or fails; what came is kept.
    """
    path = services.work / KEPT
    identity = _identity(engine, requests, sampling)
    kept = _read_kept(path, identity)
    if kept:
        services.say(f"{len(kept):,} answers of {remote_name(engine)} are there from before; the rest is asked for.")
    yield from kept.values()
    settings = RemoteSettings(url=str(engine.url), model=str(engine.model), key_env=engine.key_env, timeout_s=engine.timeout_s,
                              max_tries=engine.max_tries, num_parallel=engine.num_parallel, body=engine.body)  # fmt: skip
    remote = RemoteEngine(settings, needs_logprobs=False, heed=lambda: services.heed("sampling"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for completion in _ask(remote, engine, prompts, requests, sampling, chat, set(kept)):
            file.write(dump_json({"identity": identity, "completion": to_dict(completion)}) + "\n")
            file.flush()
            yield completion


def _ask(
    remote: RemoteEngine, engine: EngineSection, prompts: Sequence[Prompt], requests: Sequence[GenerateRequest], sampling: Sampling,
    chat: ChatText, kept: set[tuple[str, int]],
) -> Iterator[Completion]:  # fmt: skip
    name = remote_name(engine)
    if engine.api == "chat":
        messages = {p.id: tuple({"role": m.role, "content": m.content} for m in p.messages) for p in prompts}
        questions = [Question(key=r.key, messages=messages[r.key], num_samples=r.num_samples) for r in requests]
        for reply in remote.ask(questions, sampling, skip=kept):
            ids = chat.encode_completion(reply.text, finished=reply.finish_reason == "stop")
            yield Completion(prompt_id=reply.key, text=reply.text, model=name, seed=sampling.seed, token_ids=tuple(ids.tolist()),
                             finish_reason=reply.finish_reason, sample_index=reply.sample_index)  # fmt: skip
        return
    for sample in remote.generate(requests, sampling, skip=kept):
        total = float(sample.sampling_logprobs.sum())
        yield Completion(prompt_id=sample.key, text=chat.decode(sample.token_ids), model=name, seed=sampling.seed,
                         token_ids=tuple(sample.token_ids.tolist()), finish_reason=sample.finish_reason, sample_index=sample.sample_index,
                         meta={"sampling_logprob": total} if np.isfinite(total) else {})  # fmt: skip


def _identity(engine: EngineSection, requests: Sequence[GenerateRequest], sampling: Sampling) -> str:
    """What an answer belongs to: everything that was asked but how patiently."""
    asked = (
        engine.url,
        engine.model,
        engine.api,
        engine.body,
        sampling,
        sorted((r.key, r.token_ids) for r in requests),
    )
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:32]


def _read_kept(path: Path, identity: str) -> dict[tuple[str, int], Completion]:
    """Answers of an earlier try. A last line that was cut off by a kill is no answer, and is cut away so that the next begins a line."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    found: dict[tuple[str, int], Completion] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        row = json.loads(line)
        if row["identity"] == identity:
            completion = from_dict(Completion, row["completion"], where=f"{path.name}:{number}")
            found[completion.prompt_id, completion.sample_index] = completion
    return found
