"""Candidates and the book-keeping that proves none was lost: rows in = not taken + rejected + kept.

Example:
    with Rejects(out / "rejects.jsonl") as rejects:
        ledger = Ledger(rejects)
        ledger.reject(candidate, "exact duplicate", duplicate_of=kept.row.where)
        ledger.reconcile(kept)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairlead.core.io import Rejects, Row
from fairlead.core.records import Messages, Prompt, Split
from fairlead.prompts.words import normalise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A prompt on its way through the stage, with the row that it came from."""

    messages: Messages
    slice: str
    source: int
    """Position of the source in the recipe; held-out sources follow the others."""
    source_name: str
    is_heldout_source: bool
    where: str
    number: int
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    key: str = field(init=False)
    """Normal form with roles: equal keys are the same prompt."""
    plain: str = field(init=False)
    """Normal form without roles, for near-duplicates and overlaps."""

    def __post_init__(self) -> None:
        contents = [normalise(message.content) for message in self.messages]
        plain = " ".join(contents)
        turns = zip(self.messages, contents, strict=True)
        key = plain if len(contents) == 1 else "\n".join(f"{message.role}: {content}" for message, content in turns)
        object.__setattr__(self, "plain", plain)
        object.__setattr__(self, "key", key)

    @property
    def text(self) -> str:
        """The last turn, as it was written."""
        return self.messages[-1].content

    def to_prompt(self, split: Split) -> Prompt:
        """The record that is written."""
        return Prompt(messages=self.messages, slice=self.slice, source=self.source_name, split=split, meta=self.meta)


class Ledger:
    """Counts what enters and leaves, by source and reason, and writes what leaves through `Rejects`.

    Lifecycle: one per run of the stage (or per set of evaluation files). Not thread-safe.
    """

    def __init__(self, rejects: Rejects) -> None:
        self.rejects = rejects
        self.rows: Counter[int] = Counter()
        """Rows read, by source."""
        self.not_taken: Counter[int] = Counter()
        """Rows left in the file by `take`, by source."""
        self.rejected: Counter[int] = Counter()
        """Rows rejected, by source."""

    def reject_row(self, source: int, row: Row, reason: str) -> None:
        """Reject a row that is not a prompt."""
        self.rejected[source] += 1
        values = {key: _writable(value) for key, value in row.values.items()}
        self.rejects.add(Row(row.where, row.number, values), reason)

    def reject(self, candidate: Candidate, reason: str, **details: str) -> None:
        """Reject a prompt; `details` name the prompt or file that is to blame."""
        self.rejected[candidate.source] += 1
        values = {"prompt": candidate.text, "slice": candidate.slice, **details}
        self.rejects.add(Row(candidate.where, candidate.number, values), reason)

    def reconcile(self, kept: Sequence[Candidate]) -> None:
        """Assert for every source that each row read is accounted for exactly once."""
        num_kept = Counter(candidate.source for candidate in kept)
        for source, num_rows in self.rows.items():
            parts = (self.not_taken[source], self.rejected[source], num_kept[source])
            assert num_rows == sum(parts), f"source {source}: {num_rows} rows != {parts} not taken, rejected, kept"
        assert self.rejects.total == self.rejected.total(), f"{self.rejects.counts} against {self.rejected}"

    def reasons(self) -> str:
        """The counts of rejected rows in words, most frequent first."""
        counts = sorted(self.rejects.counts.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count:,} {reason}" for reason, count in counts)


def _writable(value: Any) -> Any:
    """A value of a damaged row in a form that JSON can hold (dates, NaN and nested columns become text)."""
    return value if value is None or isinstance(value, (str, bool, int)) else repr(value)
