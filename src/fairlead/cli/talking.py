"""The policy that people talk to in `fairlead annotate serve --policy`: the one place where the rating application meets an engine."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from fairlead.core.errors import DataError
from fairlead.core.protocols import GenerateRequest, Reply, ReplyRequest, Sample, Sampler, Sampling
from fairlead.core.records import Completion
from fairlead.engine.fallback import open_engine
from fairlead.models.checkpoint import weights_name
from fairlead.models.load import load_policy, load_tokenizer, locate_model
from fairlead.text.chat import ChatText
from fairlead.text.prompts import encode_prompts

MAX_SLOTS = 16
"""Samples written together: two replies to eight people."""


class PolicyReplies:
    """Implements ReplySampler on any Sampler.

    Args:
        engine: samples by token ids.
        chat: text to ids and back.
        name: of the weights.
        sampling: limits and temperature; seeds come with the requests.
        max_length: longest conversation plus reply, tokens.
    """

    def __init__(self, engine: Sampler, chat: ChatText, *, name: str, sampling: Sampling, max_length: int) -> None:
        self.name = name
        self._engine, self._chat, self._max_length = engine, chat, max_length
        self._sampling = dataclasses.replace(sampling, seed=0, stop_token_ids=chat.stop_token_ids)

    def reply(self, requests: Sequence[ReplyRequest]) -> Iterator[Reply]:
        """See ReplySampler. A conversation that leaves no room for a reply is a fault of its own and keeps nobody else waiting."""
        asked: list[GenerateRequest] = []
        by_key: dict[str, ReplyRequest] = {}
        for request in requests:
            try:
                ids = self._encoded(request)
            except DataError as error:
                yield Reply(key=request.key, fault=str(error))
                continue
            by_key[_key(request)] = request
            asked.append(GenerateRequest(key=_key(request), token_ids=ids, num_samples=request.num_samples))
        found: dict[str, list[Completion]] = {}
        for sample in self._engine.generate(asked, self._sampling) if asked else ():
            request = by_key[sample.key]
            found.setdefault(sample.key, []).append(self._completion(request, sample))
            if len(found[sample.key]) == request.num_samples:
                yield Reply(
                    key=request.key, completions=sorted(found.pop(sample.key), key=lambda each: each.sample_index)
                )

    def _encoded(self, request: ReplyRequest) -> tuple[int, ...]:
        limit = self._sampling.max_new_tokens
        (ids,) = encode_prompts(self._chat, [request.prompt], max_length=self._max_length, max_new_tokens=limit)
        return tuple(int(token) for token in ids)

    def _completion(self, request: ReplyRequest, sample: Sample) -> Completion:
        sampling = self._sampling
        return Completion(
            prompt_id=request.prompt.id, text=self._chat.decode(sample.token_ids), model=self.name, seed=request.seed,
            token_ids=tuple(int(t) for t in sample.token_ids), finish_reason=sample.finish_reason, sample_index=sample.sample_index,
            meta={"key": request.key, "temperature": sampling.temperature, "max_new_tokens": sampling.max_new_tokens},
        )  # fmt: skip


def _key(request: ReplyRequest) -> str:
    """Requests of several seeds are sampled in one call: the seed is a part of the engine's key."""
    return f"{request.seed}:{request.key}"


def open_policy(folder: Path, *, template: str | None, temperature: float, max_new_tokens: int) -> PolicyReplies:
    """Load a policy for this process.

    Raises:
        ModelError: it is not there, or its tokenizer has no chat template and none is named.
    """
    source = str(locate_model(str(folder)))
    chat = ChatText(load_tokenizer(source), template=template, name=source)
    model = load_policy(source)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
    return PolicyReplies(open_engine(model, max_slots=MAX_SLOTS), chat, name=weights_name(Path(source)), sampling=sampling,
                         max_length=model.max_positions)  # fmt: skip
