"""A prompt with what a policy wrote to it, as a tree that can be scored and trained on.

Example:
    rollouts = sample_rollouts(engine, requests, sampling, group_size=8)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import EngineError, explain
from fairlead.core.protocols import GenerateRequest, Sample, Sampler, Sampling
from fairlead.core.records import Completion
from fairlead.core.transcripts import written_meta
from fairlead.engine.transcripts import Transcript
from fairlead.text import ChatText
from fairlead.text.packing import Branch, Tree


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """A prompt with what the policy wrote to it."""

    tree: Tree
    """Branches are the samples, in order."""
    samples: tuple[Sample, ...]
    """Of several turns: the policy's own tokens, without the observations between them."""
    baseline: float | None = None
    """Reward of the greedy completion, for methods that compare with it."""
    transcripts: tuple[Transcript, ...] = ()
    """Of the samples, in order, where an environment answers; else empty."""

    def keep(self, mask: npt.NDArray[np.bool_]) -> "Rollout":
        """With those completions alone."""
        places = np.flatnonzero(mask).tolist()
        tree = replace(self.tree, branches=tuple(self.tree.branches[i] for i in places))
        transcripts = tuple(self.transcripts[i] for i in places) if self.transcripts else ()
        return replace(self, tree=tree, samples=tuple(self.samples[i] for i in places), transcripts=transcripts)


def sample_rollouts(
    engine: Sampler, requests: Sequence[GenerateRequest], sampling: Sampling, *, group_size: int
) -> list[Rollout]:
    """Sample, and gather the completions of each prompt into trees of `group_size`, ordered by key and sample index."""
    prompts = {request.key: np.asarray(request.token_ids, dtype=np.int64) for request in requests}
    samples = sorted(engine.generate(requests, sampling), key=lambda s: (s.key, s.sample_index))
    if sampling.wants_choices and sampling.is_cut and any(s.choices is None for s in samples):
        raise EngineError(explain("top_k", sampling.top_k, "leaves some tokens without a chance, and this engine does not say which",
                                  expected="engine.local, or the whole distribution", remedy="Set top_k: 0, top_p: 1 and min_p: 0"))  # fmt: skip
    rollouts: list[Rollout] = []
    for start in range(0, len(samples), group_size):
        group = tuple(samples[start : start + group_size])
        branches = tuple(
            Branch(
                token_ids=s.token_ids,
                choices=s.choices,
                arrays={"sampling_logprobs": s.sampling_logprobs, "old_logprobs": s.sampling_logprobs},
            )
            for s in group
        )
        assert len({s.key for s in group}) == 1, "the engine did not return the samples that it was asked for"
        rollouts.append(Rollout(tree=Tree(prompt_ids=prompts[group[0].key], branches=branches), samples=group))
    return rollouts


def as_completion(rollout: Rollout, i: int, chat: ChatText, *, model: str, seed: int = 0) -> Completion:
    """Sample i as a record; one of several turns is one completion: all of them and the observations between (core/transcripts.py)."""
    sample, ids = rollout.samples[i], rollout.tree.branches[i].token_ids
    text, meta = chat.decode(sample.token_ids), dict[str, Any]()
    if rollout.transcripts and len(rollout.transcripts[i].turns) > 1:
        transcript = rollout.transcripts[i]
        text, meta = transcript.text, written_meta(transcript.turns, num_tokens=len(sample.token_ids))
    return Completion(prompt_id=sample.key, text=text, model=model, token_ids=tuple(ids.tolist()), finish_reason=sample.finish_reason,
                      sample_index=sample.sample_index, seed=seed, meta=meta)  # fmt: skip
