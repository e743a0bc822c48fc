"""What a reward model is trained and measured on: preferences as trees, by the loss that reads them.

Held-out data is always pairs: every kind of reward model is measured by whether it orders them as the votes do.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fairlead.algos.ranking import MAX_TIED
from fairlead.core.errors import DataError, explain, nearest
from fairlead.core.io import read_records
from fairlead.core.records import Completion, Preference, Prompt
from fairlead.rewards.config import RANKED, RATED, RewardsConfig
from fairlead.rewards.update import Votes
from fairlead.text import Branch, ChatText, Encoded, Tree, encode_preferences
from fairlead.text.columns import TreeView
from fairlead.text.encoding import Storage, encode_parts
from fairlead.text.examples import require_some, row_notes
from fairlead.text.rankings import encode_rankings
from fairlead.text.ratings import encode_ratings, known_attributes


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of an attribute's ratings in training, and how many there are."""

    mean: float
    std: float
    num: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Trees to train on, pairs to measure on, samples to normalise on."""

    train: Encoded
    num_train_pairs: int
    heldout: Encoded
    heldout_rows: tuple[Preference, ...]
    """The preference of each held-out tree."""
    reference: tuple[Tree, ...]
    """One sampled completion each; empty without a completions stage."""
    reference_ids: tuple[str, ...]
    notes: tuple[str, ...] = ()
    scales: Mapping[str, Scale] = field(default_factory=dict[str, Scale])
    """By attribute, when completions are rated."""


def read_data(
    config: RewardsConfig,
    chat: ChatText,
    inputs: Mapping[str, Path],
    *,
    max_length: int,
    seed: int = 0,
    storage: Storage | None = None,
) -> Data:
    """Read and encode everything in one pass; pairs that are no part of a ranking are not held.

    Raises:
        DataError: nothing is held out, nothing fits, or what the loss asks for (votes, ratings) is not there.
    """
    rows, votes = _Rows(config), _votes(config, inputs, seed=seed)
    parts = encode_parts(rows.routed(votes.rows()), encode_preferences, chat=chat, max_length=max_length, what="preferences",
                         storage=storage, num_rows=votes.num_rows)  # fmt: skip
    if not rows.heldout:
        raise DataError(explain("preferences", rows.num, "rows hold none out", expected="pairs of held-out prompts to measure the reward model on",
                                remedy="Set preferences.heldout"))  # fmt: skip
    notes = (*votes.notes(), *rows.notes())
    heldout = parts["heldout"]
    if rows.is_whole:
        train, num_pairs, scales, more = _encode_whole(config, chat, rows.train, max_length=max_length, storage=storage)
    else:
        train = parts.get("train") or require_some(Encoded(), "preferences", max_length)
        num_pairs, scales, more = len(train.trees), {}, ()
    reference, ids = _reference(config, chat, inputs)
    return Data(
        train=train, num_train_pairs=num_pairs, heldout=heldout, heldout_rows=tuple(rows.heldout[i] for i in heldout.kept_rows),
        reference=reference, reference_ids=ids, notes=(*notes, *more, *_dropped(train, heldout, config)), scales=scales,
    )  # fmt: skip


def _votes(config: RewardsConfig, inputs: Mapping[str, Path], *, seed: int) -> Votes:
    """The preferences, and those that an update replays."""
    share = 0.0 if config.update is None else config.update.replay
    earlier = inputs["replay"] / "preferences.jsonl" if share else None
    return Votes(new=inputs["preferences"] / "preferences.jsonl", replay=earlier, share=share, seed=seed)


@dataclass(slots=True, eq=False)
class _Rows:
    """What is kept of the preferences while they pass: held-out ones without their texts, all of those that must be seen together."""

    config: RewardsConfig
    num: int = 0
    heldout: list[Preference] = field(default_factory=list[Preference])
    train: list[Preference] = field(default_factory=list[Preference])
    num_train: int = 0
    num_votes: int = 0
    num_unknown: int = 0

    @property
    def is_whole(self) -> bool:
        """Rankings and ratings are put together from all pairs of a prompt, wherever these stand."""
        return self.config.loss in RANKED or self.config.loss in RATED

    def routed(self, rows: Iterable[Preference]) -> Iterator[tuple[str | None, Preference]]:
        """Every row with its part; None for those that are left out or kept for later."""
        for row in rows:
            self.num += 1
            if row.split == "train":
                self._count(row)
                weighed = _weighed(row) if self.config.use_vote_weights else row
                if self.is_whole:
                    self.train.append(weighed)
                yield (None if self.is_whole else "train"), weighed
            elif row.is_tie:
                yield None, row
            else:
                self.heldout.append(dataclasses.replace(row, prompt=(), chosen="", rejected=""))
                yield "heldout", row

    def _count(self, row: Preference) -> None:
        self.num_train += 1
        self.num_unknown += row.num_votes == 0
        self.num_votes += max(1, row.num_votes)

    def notes(self) -> tuple[str, ...]:
        """Sentences about the weights of votes.

        Raises:
            DataError: weights were asked for and no pair says how many votes it has.
        """
        if not self.config.use_vote_weights:
            return ()
        if self.num_unknown == self.num_train:
            raise DataError(explain("rewards.use_vote_weights", True, "finds no votes: the preferences do not say how many there were",
                                    expected="pairs with num_votes", remedy="Set it to false"))  # fmt: skip
        notes = [f"Pairs are weighed by their {self.num_votes:,} votes ({self.num_votes / self.num_train:.1f} a pair)."]
        if self.num_unknown:
            notes.append(f"{self.num_unknown:,} pairs without a number of votes count as one vote each.")
        return tuple(notes)


def _weighed(row: Preference) -> Preference:
    """The weight multiplied by the votes; a pair whose source does not say counts as one vote."""
    return dataclasses.replace(row, weight=row.weight * max(1, row.num_votes))


def _encode_whole(
    config: RewardsConfig, chat: ChatText, rows: Sequence[Preference], *, max_length: int, storage: Storage | None
) -> tuple[Encoded, int, dict[str, Scale], tuple[str, ...]]:
    """Rankings or rated prompts as trees, how many pairs stand in them, scales of attributes, notes."""
    if config.loss in RANKED:
        train, counts = encode_rankings(chat, rows, max_length=max_length, storage=storage)
        _check_ties(train.trees, config.top)
        return train, counts.num_rows, {}, counts.notes()
    names = tuple(config.attributes)
    _check_names(names, rows)
    train, num_unrated = encode_ratings(chat, rows, names, max_length=max_length, storage=storage)
    num_alone = _drop_alone(train) if config.loss == "criteria" else 0
    scales = _scales(names, train.trees)
    if config.loss == "regression":
        standard = list(scales.values())
        train.trees = TreeView(train.trees, change=lambda tree, _: _standardised(tree, standard))
    counts = (
        (num_unrated, "completions left out: they have no rating."),
        (num_alone, "completions left out: no other completion of their prompt is rated."),
    )
    return train, len(rows), scales, tuple(f"{count:,} {what}" for count, what in counts if count)


def _check_ties(trees: Sequence[Tree], top: int | None) -> None:
    for tree in trees:
        for rank, num in Counter(tree.ranks).items():
            is_read = top is None or sum(other < rank for other in tree.ranks) < top
            if num > MAX_TIED and is_read:
                raise DataError(explain("preferences", num, "completions of one prompt have the same rank", expected=f"at most {MAX_TIED}",
                                        remedy="Set rewards.loss: all_pairs, or rewards.top to what is really ordered"))  # fmt: skip


def _check_names(names: Sequence[str], rows: Sequence[Preference]) -> None:
    known = known_attributes(rows)
    for name in names:
        if name not in known:
            raise DataError(explain(f"rewards.attributes.{name}", None, f"is rated in no pair{nearest(name, known)}",
                                    expected="one of " + (", ".join(known) or "none: these preferences carry no ratings"),
                                    remedy="Correct the name, or take preferences with ratings (HelpSteer2, UltraFeedback)"))  # fmt: skip


def _drop_alone(train: Encoded) -> int:
    """Take out prompts where no attribute is rated twice, which leaves nothing to compare; how many completions that were."""
    compared = np.zeros(len(train.trees), dtype=bool)
    num_alone = 0
    for i, tree in enumerate(train.trees):
        columns = zip(*tree.targets, strict=True)
        compared[i] = any(sum(not math.isnan(value) for value in column) > 1 for column in columns)
        num_alone += 0 if compared[i] else len(tree.branches)
    if not compared.any():
        raise DataError(explain("rewards.loss", "criteria", "finds no prompt with two rated completions", expected="ratings to compare",
                                remedy="Use loss: regression, which needs one"))  # fmt: skip
    train.trees = TreeView(train.trees, order=np.flatnonzero(compared))
    train.kept_rows = [row for row, is_kept in zip(train.kept_rows, compared, strict=True) if is_kept]
    return num_alone


def _scales(names: Sequence[str], trees: Sequence[Tree]) -> dict[str, Scale]:
    """Mean and spread of every attribute over the rated completions."""
    ratings = np.array([targets for tree in trees for targets in tree.targets], dtype=float)
    found: dict[str, Scale] = {}
    for name, column in zip(names, ratings.T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known) or known.std() == 0:
            raise DataError(explain(f"rewards.attributes.{name}", None, "has one rating only, so there is nothing to learn",
                                    expected="ratings that differ", remedy="Remove the attribute"))  # fmt: skip
        found[name] = Scale(float(known.mean()), float(known.std()), len(known))
    return found


def _standardised(tree: Tree, scales: Sequence[Scale]) -> Tree:
    """Ratings in standard deviations from their mean, so that attributes weigh alike whatever their scale."""
    targets = tuple(
        tuple(math.nan if math.isnan(value) else (value - s.mean) / s.std for value, s in zip(row, scales, strict=True))
        for row in tree.targets
    )
    return dataclasses.replace(tree, targets=targets)


def _dropped(train: Encoded, heldout: Encoded, config: RewardsConfig) -> tuple[str, ...]:
    """What did not fit or was left out, by kind."""
    other = row_notes([train, heldout], "pairs" if config.loss == "bradley_terry" else "prompts and pairs")
    if config.loss == "bradley_terry":
        total = train.num_dropped + heldout.num_dropped
        return (*([f"{total} pairs dropped: a side is longer than text.max_length."] if total else []), *other)
    counts = (
        (train.num_dropped, "prompts dropped: too few of their completions fit into text.max_length."),
        (train.num_truncated, "prompts trained on without the completions that are longer than text.max_length."),
        (heldout.num_dropped, "held-out pairs dropped: a side is longer than text.max_length."),
    )
    return (*(f"{count:,} {what}" for count, what in counts if count), *other)


def _reference(
    config: RewardsConfig, chat: ChatText, inputs: Mapping[str, Path]
) -> tuple[tuple[Tree, ...], tuple[str, ...]]:
    """Samples of the SFT policy with their ids."""
    if "completions" not in inputs:
        return (), ()
    prompts = {p.id: p for p in read_records(inputs["prompts"] / "prompts.jsonl", Prompt)}
    trees: list[Tree] = []
    ids: list[str] = []
    completions = list(read_records(inputs["completions"] / "completions.jsonl", Completion))
    for completion in completions[: config.max_reference_samples]:
        tokens = np.asarray(completion.token_ids, dtype=np.int64)
        if len(tokens):
            prompt = chat.encode_prompt(prompts[completion.prompt_id].messages)
            trees.append(Tree(prompt_ids=prompt, branches=(Branch(token_ids=tokens),)))
            ids.append(completion.id)
    return tuple(trees), tuple(ids)
