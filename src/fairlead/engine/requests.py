"""What engines share before they sample: what is refused, and seeds. No torch."""

import hashlib
from collections.abc import Sequence

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import GenerateRequest, Sampling


def check_requests(
    requests: Sequence[GenerateRequest], sampling: Sampling, *, max_positions: int, has_decoder: bool
) -> None:
    """Refuse what cannot be sampled, before anything is."""
    if sampling.stop and not has_decoder:
        raise EngineError(explain("sampling.stop", sampling.stop, "cannot be found without a decoder", expected="an engine with one",
                                  remedy="Make the engine with decode=, or stop by token ids"))  # fmt: skip
    seen: set[str] = set()
    for request in requests:
        room, limit = max_positions - len(request.token_ids), request.limit(sampling)
        if not request.token_ids:
            raise EngineError(explain(f"prompt {request.key}", None, "has no tokens", expected="at least one",
                                      remedy="Use a tokenizer with BOS"))  # fmt: skip
        if room < limit:
            raise EngineError(explain(f"prompt {request.key}: num_tokens", len(request.token_ids), f"leaves room for {max(0, room)} new tokens",
                                      expected=f"<= {max_positions - limit} (context {max_positions} "
                                      f"less max_new_tokens {limit})",
                                      remedy="Shorten the prompt or lower max_new_tokens"))  # fmt: skip
        if request.key in seen:
            raise EngineError(explain("prompt", request.key, "is asked for twice", expected="a name of its own for each request",
                                      remedy="Ask once and raise num_samples"))  # fmt: skip
        seen.add(request.key)


def refuse_choices(sampling: Sampling, *, engine: str) -> None:
    """For engines that cannot say which tokens one was drawn from: refuse to sample what they could not record."""
    if sampling.wants_choices and sampling.is_cut and sampling.temperature > 0:
        raise EngineError(explain("sampling.top_k", sampling.top_k, f"leaves tokens without a chance, and {engine} does not say which",
                                  expected="the whole distribution, or engine.kind: local",
                                  remedy="Set top_k: 0, top_p: 1 and min_p: 0, or change the engine"))  # fmt: skip


def sample_seed(seed: int, key: str, sample_index: int) -> int:
    """Of one sample, below 2 ** 62, for engines that draw by themselves."""
    digest = hashlib.sha256(f"{seed}\x00{key}\x00{sample_index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 2
