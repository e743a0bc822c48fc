"""The policy that people talk to in `fairlead annotate serve --policy`: the one place where the rating application meets an engine."""

from collections.abc import Sequence
from pathlib import Path

from fairlead.core.protocols import GenerateRequest, ReplyRequest, Sampler, Sampling
from fairlead.core.records import Completion
from fairlead.engine.fallback import open_engine
from fairlead.models.checkpoint import weights_name
from fairlead.models.load import load_policy, load_tokenizer, locate_model
from fairlead.text.chat import ChatText
from fairlead.text.prompts import encode_prompts


class PolicyReplies:
    """Implements ReplySampler on any Sampler.

    Args:
        engine: samples by token ids.
        chat: text to ids and back.
        name: of the weights.
        sampling: limits and temperature; the seed comes with each request.
        max_length: longest conversation plus reply, tokens.
    """

    def __init__(self, engine: Sampler, chat: ChatText, *, name: str, sampling: Sampling, max_length: int) -> None:
        self.name = name
        self._engine, self._chat, self._sampling, self._max_length = engine, chat, sampling, max_length

    def reply(self, request: ReplyRequest) -> Sequence[Completion]:
        """See ReplySampler. Raises DataError: the conversation leaves no room for a reply."""
        limit = self._sampling.max_new_tokens
        (ids,) = encode_prompts(self._chat, [request.prompt], max_length=self._max_length, max_new_tokens=limit)
        asked = GenerateRequest(key=request.key, token_ids=tuple(int(t) for t in ids), num_samples=request.num_samples)
        sampling = Sampling(max_new_tokens=limit, temperature=self._sampling.temperature, seed=request.seed,
                            stop_token_ids=self._chat.stop_token_ids)  # fmt: skip
        found = [
            Completion(prompt_id=request.prompt.id, text=self._chat.decode(sample.token_ids), model=self.name, seed=request.seed,
                       token_ids=tuple(int(t) for t in sample.token_ids), finish_reason=sample.finish_reason, sample_index=sample.sample_index,
                       meta={"key": request.key, "temperature": sampling.temperature, "max_new_tokens": limit})
            for sample in self._engine.generate([asked], sampling)
        ]  # fmt: skip
        return sorted(found, key=lambda completion: completion.sample_index)


def open_policy(folder: Path, *, template: str | None, temperature: float, max_new_tokens: int) -> PolicyReplies:
    """Load a policy for this process.

    Raises:
        ModelError: it is not there, or its tokenizer has no chat template and none is named.
    """
    source = str(locate_model(str(folder)))
    chat = ChatText(load_tokenizer(source), template=template, name=source)
    model = load_policy(source)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
    return PolicyReplies(open_engine(model, max_slots=2), chat, name=weights_name(Path(source)), sampling=sampling,
                         max_length=model.max_positions)  # fmt: skip
