"""A reward model that goes on from an earlier one: new votes, and votes of the earlier one replayed so that it does not forget them.

No pair is on both sides: replayed pairs of prompts that are held out now are left out, and so are held-out pairs of prompts that the
earlier model was trained on, whose accuracy would say nothing.

Example:
    votes = Votes(new=folder / "preferences.jsonl", replay=earlier / "preferences.jsonl", share=0.5, seed=0)
    for row in votes.rows(): ...
    votes.notes()
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fairlead.core.errors import DataError, ModelError, explain
from fairlead.core.io import count_lines, read_records
from fairlead.core.records import Messages, Preference, content_hash
from fairlead.models.heads import ScalarModel, load_head
from fairlead.models.load import CausalModel

_HASH_RANGE = 16.0**13


@dataclass(slots=True, kw_only=True, eq=False)
class Votes:
    """Preferences of one training: the new ones, and of an update a share of the earlier ones. `rows` may be read once."""

    new: Path
    replay: Path | None = None
    """preferences.jsonl of the earlier model; None replays nothing."""
    share: float = 1.0
    """Of its training pairs, drawn by content, so that the same pairs come back whatever stands beside them."""
    seed: int = 0
    num_replayed: int = field(default=0, init=False)
    num_heldout_now: int = field(default=0, init=False)
    num_known: int = field(default=0, init=False)

    @property
    def num_rows(self) -> int:
        """Lines of both files."""
        return count_lines(self.new) + (count_lines(self.replay) if self.replay is not None else 0)

    def rows(self) -> Iterator[Preference]:
        """New rows, then replayed ones.

        Raises:
            DataError: nothing held out is left.
        """
        if self.replay is None:
            yield from read_records(self.new, Preference)
            return
        known = {_key(row.prompt) for row in read_records(self.replay, Preference) if row.split == "train"}
        heldout: set[str] = set()
        for row in read_records(self.new, Preference):
            if row.split == "train":
                yield row
            elif (key := _key(row.prompt)) in known:
                self.num_known += 1
            else:
                heldout.add(key)
                yield row
        if self.num_known and not heldout:
            raise DataError(explain("preferences", self.num_known, "held-out pairs are all of prompts that the earlier model was trained on",
                                    expected="some of new prompts", remedy="Hold out prompts that are new (preferences.heldout)"))  # fmt: skip
        for row in read_records(self.replay, Preference):
            if row.split != "train":
                continue
            if _key(row.prompt) in heldout:
                self.num_heldout_now += 1
            elif self._is_drawn(row):
                self.num_replayed += 1
                yield row

    def _is_drawn(self, row: Preference) -> bool:
        return int(content_hash([self.seed, "replay", row.id], num_chars=13), 16) / _HASH_RANGE < self.share

    def notes(self) -> tuple[str, ...]:
        """Sentences about what was replayed and left out."""
        if self.replay is None:
            return ()
        counts = (
            (self.num_heldout_now, "earlier pairs not replayed: their prompts are held out now."),
            (self.num_known, "held-out pairs left out: the earlier model was trained on their prompts."),
        )
        return (f"{self.num_replayed:,} earlier pairs replayed.", *(f"{n:,} {what}" for n, what in counts if n))


def _key(prompt: Messages) -> str:
    return content_hash([[m.role, m.content] for m in prompt])


def earlier_head(base: CausalModel, folder: Path, *, attributes: tuple[str, ...]) -> ScalarModel:
    """The earlier model's head on its own trunk, ready to train on; its normalisation is measured anew afterwards.

    Raises:
        ModelError: it is an ensemble, or has other outputs than this training.
    """
    model = load_head(base, folder)
    names = () if model.readout is None else model.readout.names
    if model.members or (model.readout is not None and model.readout.is_ensemble):
        raise ModelError(
            explain(
                "rewards.update.model",
                folder.name,
                "is an ensemble",
                expected="one model",
                remedy="Update one of its members",
            )
        )
    if names != attributes:
        raise ModelError(explain("rewards.update.model", folder.name, f"has {_listed(names)}", expected=_listed(attributes),
                                 remedy="Use the loss and attributes that it was trained with"))  # fmt: skip
    model.mean, model.std, model.facts = 0.0, 1.0, {}
    return model


def _listed(names: tuple[str, ...]) -> str:
    return "attributes " + ", ".join(names) if names else "one score"
