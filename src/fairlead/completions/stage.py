"""Stage: k completions for each prompt from one policy, and the readiness of that policy for RL.

Reads prompts.jsonl and a policy folder; writes completions.jsonl. The readiness gate looks at the held-out prompts only, and
runs whether or not an SFT stage came before.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from fairlead.completions.readiness import READINESS, readiness
from fairlead.completions.sources import remote_completions
from fairlead.core.config import Config
from fairlead.core.engine_section import EngineSection
from fairlead.core.errors import Interrupted
from fairlead.core.gates import Gate, percent
from fairlead.core.io import read_records, write_jsonl
from fairlead.core.protocols import GenerateRequest, Sampler, Sampling
from fairlead.core.records import Completion, Prompt
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary, Table
from fairlead.engine.fallback import open_engine
from fairlead.engine.opening import VllmSettings, open_vllm
from fairlead.models.checkpoint import weights_name
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.text.chat import ChatText
from fairlead.text.prompts import encode_prompts

GATES: tuple[Gate, ...] = (READINESS,)


class CompletionsConfig(Config):
    """How completions are sampled."""

    num_samples: int = Field(default=4, ge=1)
    """Completions a prompt."""
    max_new_tokens: int = Field(default=128, ge=1)
    """Longest completion, tokens."""
    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus: smallest set of tokens with this probability; 1 is off."""
    top_k: int = Field(default=0, ge=0)
    """Keep the k most likely tokens; 0 is off."""
    max_slots: int = Field(default=128, ge=1)
    """Sequences decoded together; more is faster a token and takes more memory."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Use only the first prompts; null uses all."""
    engine: EngineSection = EngineSection()
    """What writes them."""
    must_finish: bool = True
    """Whether a reply that reaches max_new_tokens is a fault; false for continuations of longer texts."""


def run(config: CompletionsConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Sample and write completions.jsonl."""
    text: TextSection = services.extras["text"]
    prompts = list(read_records(inputs["prompts"] / "prompts.jsonl", Prompt))[: config.max_prompts]
    folder = str(inputs["policy"])
    chat = ChatText(load_tokenizer(folder), template=text.template, name=folder)
    writer = _open(config, folder, chat, services)
    max_length = min(text.max_length, writer.max_positions)
    encoded = encode_prompts(chat, prompts, max_length=max_length, max_new_tokens=config.max_new_tokens)
    requests = [
        GenerateRequest(key=p.id, token_ids=tuple(int(t) for t in ids), num_samples=config.num_samples)
        for p, ids in zip(prompts, encoded, strict=True)
    ]
    sampling = Sampling(max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p, top_k=config.top_k,
                        seed=services.seed, stop_token_ids=chat.stop_token_ids)  # fmt: skip
    try:
        completions = _collect(writer.write(prompts, requests, sampling), requests, services)
    finally:
        writer.close()
    write_jsonl(out / "completions.jsonl", completions)
    heldout = {p.id for p in prompts if p.split == "heldout"}
    return _summary(completions, heldout, must_finish=config.must_finish)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """What the stage needs of an engine, wherever it is."""

    max_positions: int
    write: Callable[[list[Prompt], list[GenerateRequest], Sampling], Iterator[Completion]]
    close: Callable[[], None] = lambda: None


def _open(config: CompletionsConfig, folder: str, chat: ChatText, services: Services) -> _Writer:
    engine = config.engine
    if engine.kind == "remote":
        ask = partial(remote_completions, engine, chat=chat, services=services)
        return _Writer(max_positions=1 << 30, write=ask)
    name = weights_name(Path(folder))  # not the artifact: raters draw from ids, and a code edit is a new artifact
    if engine.kind == "vllm":
        settings = VllmSettings(precision=engine.precision, memory_share=engine.memory_share, cache_gb=engine.cache_gb,
                                max_length=services.extras["text"].max_length)  # fmt: skip
        found = open_vllm(folder, settings, max_slots=config.max_slots)
        return _Writer(max_positions=found.max_positions, write=partial(_write, found, chat, name), close=found.close)
    model = load_policy(folder, device=services.device)
    local = open_engine(model, max_slots=config.max_slots, precision="bf16" if engine.precision == "bf16" else "fp32",
                        say=services.say)  # fmt: skip
    return _Writer(max_positions=model.max_positions, write=partial(_write, local, chat, name))


def _write(
    engine: Sampler, chat: ChatText, name: str, _prompts: list[Prompt], requests: list[GenerateRequest], sampling: Sampling
) -> Iterator[Completion]:  # fmt: skip
    for sample in engine.generate(requests, sampling):
        yield Completion(prompt_id=sample.key, text=chat.decode(sample.token_ids), model=name, seed=sampling.seed,
                         token_ids=tuple(int(t) for t in sample.token_ids), finish_reason=sample.finish_reason,
                         sample_index=sample.sample_index, meta={"sampling_logprob": float(sample.sampling_logprobs.sum())})  # fmt: skip


def _collect(
    written: Iterator[Completion], requests: list[GenerateRequest], services: Services
) -> list[Completion]:  # fmt: skip
    """All of them, in the order of the prompts."""
    order = {request.key: i for i, request in enumerate(requests)}
    found: list[Completion] = []
    with services.progress("completions", sum(r.num_samples for r in requests)) as bar:
        for completion in written:
            if services.should_stop():
                raise Interrupted(
                    "completions were interrupted and start again with the same command; finished stages are kept."
                )
            found.append(completion)
            bar.advance()
    return sorted(found, key=lambda c: (order[c.prompt_id], c.sample_index))


def _summary(completions: list[Completion], heldout: set[str], *, must_finish: bool) -> StageSummary:
    lengths = np.array([len(c.token_ids) for c in completions])
    finished = np.array([c.finish_reason == "stop" for c in completions])
    verdict, table = readiness(
        [c for c in completions if c.prompt_id in heldout] or completions,
        is_heldout=bool(heldout),
        must_finish=must_finish,
    )
    facts: dict[str, Any] = {"mean_length_tokens": float(lengths.mean()), "finished_share": float(finished.mean())}
    quantiles = tuple((f"{100 * q:.0f} %", float(np.quantile(lengths, q))) for q in (0.05, 0.25, 0.5, 0.75, 0.95))
    return StageSummary(
        stage="completions",
        headline=f"{len(completions):,} completions for {len({c.prompt_id for c in completions}):,} prompts, "
        f"{lengths.mean():.1f} tokens on average, {percent(finished.mean())} finished by themselves.",
        figures=(
            Figure(name="completions", value=len(completions)),
            Figure(name="mean length", value=float(lengths.mean()), unit="tokens"),
        ),
        verdicts=(verdict,),
        tables=(table, Table(title="Length of completions", columns=("quantile", "tokens"), rows=quantiles)),
        facts=facts,
    )
