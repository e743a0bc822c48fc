"""What KTO, BCO and AOT train on: labelled replies from files, or the preferences with chosen as good and rejected as bad."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects, read_records
from fairlead.core.records import Label, Messages, Prompt, content_hash
from fairlead.core.sections import TextSection
from fairlead.core.services import Services
from fairlead.formats import read_labels
from fairlead.policies.kto_config import KtoConfig
from fairlead.policies.rows import Flags, SourceRows, Survey, read_pairs
from fairlead.text import ChatText, Encoded, Tree, encode_labels
from fairlead.text.columns import all_ranks
from fairlead.text.encoding import Storage, encode_parts
from fairlead.text.examples import row_notes

_HASH_RANGE = 16**13


@dataclass(slots=True, kw_only=True)
class BatchData:
    """Trees to train on and held-out ones, with what the reader of the report must know of them."""

    train: Sequence[Tree]
    heldout: Sequence[Tree]
    are_pairs: bool
    notes: list[str]
    rows: Encoded = field(default_factory=Encoded)
    """Counts of the rows to train on."""

    num_good: int = field(init=False)
    """Good replies to train on."""
    num_bad: int = field(init=False)
    """Bad replies to train on."""

    def __post_init__(self) -> None:
        ranks = all_ranks(self.train)
        self.num_good, self.num_bad = int((ranks == 0).sum()), int((ranks != 0).sum())

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
        encoded, notes = _read_labels(config, chat, text, inputs=inputs, out=out, services=services)
        dropped, what = sum(e.num_dropped for e in encoded.values()), "replies dropped: with their prompt longer"
    else:
        title = f"{config.algorithm}: tokens"
        encoded, soft = read_pairs(
            inputs["preferences"], chat, max_length=text.max_length, services=services, title=title
        )
        told = f"{config.algorithm} takes {soft:,} soft labels for certain: p_chosen and margins are not read."
        notes = [told] if soft else []
        dropped, what = sum(e.num_dropped for e in encoded.values()), "pairs dropped: a side is longer"
    notes += [f"{dropped:,} {what} than text.max_length."] if dropped else []
    notes += row_notes(encoded.values(), "replies" if config.data else "pairs")
    trees: dict[str, Sequence[Tree]] = {split: part.trees for split, part in encoded.items()}
    data = BatchData(train=trees.get("train", []), heldout=trees.get("heldout", []), are_pairs=not config.data, notes=notes,
                     rows=encoded.get("train", Encoded()))  # fmt: skip
    if not data.num_good or not data.num_bad:
        raise DataError(explain("replies to train on", f"{data.num_good} good and {data.num_bad} bad", "leave nothing to compare",
                                expected="some of both", remedy="Add the other side, hold out less, or imitate the good ones with sft"))  # fmt: skip
    return data


def _read_labels(
    config: KtoConfig, chat: ChatText, text: TextSection, *, inputs: Mapping[str, Path], out: Path, services: Services
) -> tuple[Mapping[str, Encoded], list[str]]:
    rows = SourceRows(sources=config.data, read=read_labels, find_file=services.extras["find_file"])
    with Rejects(out / "rejects.jsonl") as rejects:
        survey = rows.survey(prompt_key, rejects=rejects, heed=lambda: services.heed(f"{config.algorithm}: reading"))
    prompts = read_records(inputs["prompts"] / "prompts.jsonl", Prompt) if "prompts" in inputs else ()
    notes = [f"{rejects.total:,} rows could not be read; see rejects.jsonl."] if rejects.total else []
    is_heldout = hold_out(survey, share=config.heldout, prompts=prompts)
    encoded = encode_parts(rows.routed(survey, is_heldout), encode_labels, chat=chat, max_length=text.max_length, what="labels",
                           storage=Storage.of(services, f"{config.algorithm}: tokens"), num_rows=len(survey.ids))  # fmt: skip
    return encoded, notes


def hold_out(survey: Survey, *, share: float, prompts: Iterable[Prompt]) -> Flags:
    """Hold out whole prompts: those that are held out among `prompts`, and of the others a share by the hash of their text.

    Splits that the rows bring themselves are kept in place of the share. A share above 0 holds out one prompt at least.
    """
    keys = np.unique(survey.keys[survey.is_taken])
    chosen = np.unique(survey.keys[survey.is_taken & survey.is_marked])
    if not len(chosen):
        places = np.array(
            [int(content_hash(["heldout", f"{key:016x}"], num_chars=13), 16) / _HASH_RANGE for key in keys.tolist()]
        )
        chosen = keys[places < share] if (places < share).any() else keys[np.argsort(places)[: int(share > 0)]]
    evaluated = [_key(prompt.messages) for prompt in prompts if prompt.split == "heldout"]
    return np.isin(survey.keys, np.concatenate([chosen, np.array(evaluated, dtype=np.uint64)]))


def prompt_key(row: Label) -> int:
    """Equal for prompts that differ in case and white space only."""
    return _key(row.prompt)


def _key(messages: Messages) -> int:
    return int(content_hash([[m.role, " ".join(m.content.casefold().split())] for m in messages]), 16)
