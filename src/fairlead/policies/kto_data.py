"""What KTO, BCO and AOT train on: labelled replies from files, or the preferences with chosen as good and rejected as bad."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects, read_records
from fairlead.core.records import Label, Messages, Preference, Prompt, content_hash
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.formats import read_labels
from fairlead.policies.kto_config import KtoConfig
from fairlead.text import ChatText, Tree, encode_labels, encode_preferences

_HASH_RANGE = 16**13


@dataclass(slots=True, kw_only=True)
class BatchData:
    """Trees to train on and held-out ones, with what the reader of the report must know of them."""

    train: list[Tree]
    heldout: list[Tree]
    are_pairs: bool
    notes: list[str]
    num_dropped: int = 0
    """Rows to train on that do not fit."""

    @property
    def num_good(self) -> int:
        """Good replies to train on."""
        return sum(rank == 0 for tree in self.train for rank in tree.ranks)

    @property
    def num_bad(self) -> int:
        """Bad replies to train on."""
        return sum(rank != 0 for tree in self.train for rank in tree.ranks)

    @property
    def what(self) -> str:
        """The training data in words."""
        if self.are_pairs:
            return f"{len(self.train):,} pairs"
        return f"{self.num_good:,} good and {self.num_bad:,} bad replies"


def read_data(
    config: KtoConfig, chat: ChatText, text: TextSection, *, inputs: Mapping[str, Path], out: Path, services: Services
) -> BatchData:
    """Encode what is trained on.

    Raises:
        DataError: one side is missing, or nothing is left.
    """
    if config.data:
        labels, notes = _read_labels(config, inputs=inputs, out=out, services=services)
        parts = {s: [r for r in labels if r.split == s] for s in ("train", "heldout")}
        encoded = {s: encode_labels(chat, rows, max_length=text.max_length) for s, rows in parts.items() if rows}
        dropped, what = sum(e.num_dropped for e in encoded.values()), "replies dropped: with their prompt longer"
    else:
        pairs = [r for r in read_records(inputs["preferences"] / "preferences.jsonl", Preference) if not r.is_tie]
        of_split = {s: [r for r in pairs if r.split == s] for s in ("train", "heldout")}
        encoded = {
            s: encode_preferences(chat, rows, max_length=text.max_length) for s, rows in of_split.items() if rows
        }
        soft = sum(r.p_chosen < 1 for r in pairs)
        told = f"{config.algorithm} takes {soft:,} soft labels for certain: p_chosen and margins are not read."
        notes = [told] if soft else []
        dropped, what = sum(e.num_dropped for e in encoded.values()), "pairs dropped: a side is longer"
    notes += [f"{dropped:,} {what} than text.max_length."] if dropped else []
    trees = {split: part.trees for split, part in encoded.items()}
    data = BatchData(train=trees.get("train", []), heldout=trees.get("heldout", []), are_pairs=not config.data, notes=notes,
                     num_dropped=encoded["train"].num_dropped if "train" in encoded else 0)  # fmt: skip
    if not data.num_good or not data.num_bad:
        raise DataError(explain("replies to train on", f"{data.num_good} good and {data.num_bad} bad", "leave nothing to compare",
                                expected="some of both", remedy="Add the other side, hold out less, or imitate the good ones with sft"))  # fmt: skip
    return data


def _read_labels(
    config: KtoConfig, *, inputs: Mapping[str, Path], out: Path, services: Services
) -> tuple[list[Label], list[str]]:
    rows: list[Label] = []
    with Rejects(out / "rejects.jsonl") as rejects:
        for source in config.data:
            found = list(read_labels(services.extras["find_file"](source.path), format=source.format, rejects=rejects))
            rows += fixed_choice(found, source.take)
    prompts = read_records(inputs["prompts"] / "prompts.jsonl", Prompt) if "prompts" in inputs else ()
    notes = [f"{rejects.total:,} rows could not be read; see rejects.jsonl."] if rejects.total else []
    return split_labels(rows, heldout=config.heldout, prompts=prompts), notes


def fixed_choice(rows: list[Label], count: int | None) -> list[Label]:
    """A fixed choice of `count` rows by their ids, which are hashes of content, in the order of the file."""
    if count is None or count >= len(rows):
        return rows
    chosen = set(sorted(range(len(rows)), key=lambda i: (rows[i].id, i))[:count])
    return [row for i, row in enumerate(rows) if i in chosen]


def split_labels(rows: Sequence[Label], *, heldout: float, prompts: Iterable[Prompt]) -> list[Label]:
    """Hold out whole prompts: those that are held out among `prompts`, and of the others a share by the hash of their text.

    Splits that the rows bring themselves are kept in place of the share. A share above 0 holds out one prompt at least.
    """
    keys = [_key(row.prompt) for row in rows]
    chosen = {key for key, row in zip(keys, rows, strict=True) if row.split == "heldout"}
    if not chosen:
        place = {key: int(content_hash(["heldout", key], num_chars=13), 16) / _HASH_RANGE for key in keys}
        chosen = {key for key in place if place[key] < heldout} or set(
            sorted(place, key=place.__getitem__)[: heldout > 0]
        )
    chosen |= {_key(prompt.messages) for prompt in prompts if prompt.split == "heldout"}
    return [replace(r, split="heldout" if k in chosen else "train", id="") for k, r in zip(keys, rows, strict=True)]


def _key(messages: Messages) -> str:
    """Equal for prompts that differ in case and white space only."""
    return content_hash([[m.role, " ".join(m.content.casefold().split())] for m in messages])
