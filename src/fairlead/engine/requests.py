"""What every engine refuses before it samples."""

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
