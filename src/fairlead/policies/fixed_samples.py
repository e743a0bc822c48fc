"""The same few prompts answered by the reference and by the policy as it is: written to the run folder while training goes on.

Sampled with seeds of their own, so that they change no other sample; the reference's texts are part of the checkpoint.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairlead.core.io import write_jsonl
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.core.summary import SamplePair
from fairlead.engine.rollouts import Rollout
from fairlead.text import ChatText
from fairlead.train.hooks import Session

FILE = "samples.jsonl"
NUM_PROMPTS = 4
NUM_TIMES = 10
"""So often in a run, evenly spread, and at its end."""
_SEED = 20_240_229  # of these samples alone; any number that no round draws


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FixedSamples:
    """Writes `samples.jsonl` into the work folder: rows of `core.summary.SamplePair`. Holds no state; the session does."""

    requests: Sequence[GenerateRequest]
    write: Callable[[Sequence[GenerateRequest], Sampling], list[Rollout]]
    """Samples a reply to each, of several turns where the policy has tools."""
    chat: ChatText
    sampling: Sampling
    num_rounds: int

    def update(self, session: Session, number: int) -> None:
        """At the start of round `number`, when it is time; the first time the policy is still its reference."""
        every = max(1, self.num_rounds // NUM_TIMES)
        if "fixed_before" not in session.extra:
            session.extra["fixed_before"] = self._texts()
        elif number % every and number != self.num_rounds:
            return
        before: list[Any] = session.extra["fixed_before"]
        after = before if number == 0 else self._texts()
        rows = [
            {"prompt": self._text(request.token_ids), "before": a[0], "after": b[0], "before_tokens": a[1], "after_tokens": b[1],
             "after_label": f"round {number}"}
            for request, a, b in zip(self._chosen(), before, after, strict=True)
        ]  # fmt: skip
        write_jsonl(session.services.work / FILE, rows)

    def pairs(self, session: Session) -> tuple[SamplePair, ...]:
        """What was written last, for the summary of the stage."""
        lines = (session.services.work / FILE).read_text(encoding="utf-8").splitlines()
        return tuple(SamplePair(**json.loads(line)) for line in lines)

    def _chosen(self) -> list[GenerateRequest]:
        """The same prompts whatever their order in the file."""
        return [replace(request, num_samples=1) for request in sorted(self.requests, key=lambda r: r.key)[:NUM_PROMPTS]]

    def _texts(self) -> list[list[Any]]:
        """[text, tokens that the policy wrote] of each prompt's reply."""
        found = {r.samples[0].key: r for r in self.write(self._chosen(), replace(self.sampling, seed=_SEED))}
        rollouts = [found[request.key] for request in self._chosen()]
        return [[self._text(r.tree.branches[0].token_ids), len(r.samples[0].token_ids)] for r in rollouts]

    def _text(self, token_ids: Sequence[int] | Any) -> str:
        return str(self.chat.tokenizer.decode([int(i) for i in token_ids], skip_special_tokens=True))
