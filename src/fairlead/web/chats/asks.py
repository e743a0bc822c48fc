"""What is asked of the policy, wherever it is asked: two replies to a turn, or a draft for somebody who writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fairlead.core.records import Completion, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One conversation that waits for the policy."""

    name: str
    """Of what asks, as it stands now: asked again it has another name. Two draws of it have this and their number."""
    event_number: int
    """Asks are answered in this order."""
    prompt: Prompt
    seed: int
    num_samples: int
    place: tuple[str, int]
    """Where the answer belongs: for the source to know."""
    tries: int = 0


class Source(Protocol):
    """Where asks come from and answers go. Its methods open their own transactions; an answer to what no longer waits is dropped."""

    hint: str
    """What a person can do when there is no answer."""

    def waiting(self, *, limit: int) -> list[Ask]:
        """Those that have waited longest."""
        ...

    def store(self, ask: Ask, completions: Sequence[Completion], *, policy: str) -> None:
        """Keep the answer."""
        ...

    def fail(self, ask: Ask, failure: str, cause: str) -> None:
        """Keep why there is none: `failure` for the person who waits, `cause` for the lead."""
        ...
