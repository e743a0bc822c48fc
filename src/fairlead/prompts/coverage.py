"""What the prompts cover: figures, tables and the length curve for the report, the same as plain data for `coverage.json`.

Example:
    counts = Coverage(kept=kept, is_heldout=mask, mix=config.mix, near_share=0.1, ...)
    tables = counts.tables()
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairlead.core.summary import Chart, Figure, Series, Table
from fairlead.prompts.ledger import Candidate, Ledger
from fairlead.prompts.words import num_words

OPENING_WORDS = 3
NUM_OPENINGS = 10
PRESENT_SHARE_OF_TARGET = 0.25  # a slice below a quarter of its target is as good as missing
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_CURVE_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """What one evaluation file found."""

    name: str
    num_prompts: int
    """Evaluation prompts that could be read."""
    num_unreadable: int
    rule: str
    num_exact: int
    num_ngram: int
    """Prompts that share a run of words without being equal."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coverage:
    """The prompts that are left, beside what was declared and what was read."""

    kept: Sequence[Candidate]
    is_heldout: npt.NDArray[np.bool_]
    mix: Mapping[str, float]
    source_names: Sequence[str]
    ledger: Ledger
    near_share: float
    """Share of the prompts read (exact repeats apart) that have a near-duplicate among them."""
    num_compared: int
    """Prompts behind `near_share`."""
    contamination: Sequence[Contamination] = ()

    def __post_init__(self) -> None:
        assert len(self.kept) == len(self.is_heldout), f"{len(self.kept)} prompts, {len(self.is_heldout)} sides"

    @property
    def num_train(self) -> int:
        """Prompts to train on."""
        return len(self.kept) - self.num_heldout

    @property
    def num_heldout(self) -> int:
        """Prompts kept back."""
        return int(self.is_heldout.sum())

    def train_shares(self) -> dict[str, float]:
        """Share of each slice in the train split."""
        counts = Counter(c.slice for c, held in zip(self.kept, self.is_heldout, strict=True) if not held)
        return {name: count / max(1, self.num_train) for name, count in counts.items()}

    def missing_slices(self) -> list[str]:
        """Declared slices with less than a quarter of their target in the train split."""
        shares = self.train_shares()
        return [s for s, target in self.mix.items() if shares.get(s, 0.0) < PRESENT_SHARE_OF_TARGET * target]

    def figures(self) -> tuple[Figure, ...]:
        """The three numbers at the top."""
        exact = "counted over all prompts, so there is no interval"
        return (
            Figure(name="train prompts", value=self.num_train, unit="prompts", note=exact),
            Figure(name="held-out prompts", value=self.num_heldout, unit="prompts", note=exact),
            Figure(name="near-neighbour share", value=self.near_share, n=self.num_compared, unit="share", note=exact),
        )

    def tables(self) -> dict[str, Table]:
        """Every table by its key in coverage.json."""
        tables = {
            "slices": self._slices(), "sources": self._sources(), "rejected": self._rejected(),
            "words": self._words(), "openings": self._openings(),
        }  # fmt: skip
        return tables | ({"contamination": self._contamination()} if self.contamination else {})

    def _slices(self) -> Table:
        sides = zip(self.kept, self.is_heldout, strict=True)
        counts = Counter((c.slice, bool(held)) for c, held in sides)
        shares = self.train_shares()
        names = [*self.mix, *sorted({c.slice for c in self.kept} - set(self.mix))]
        rows = tuple(
            (name, self.mix.get(name), shares.get(name, 0.0), counts[name, False], counts[name, True]) for name in names
        )
        return Table(title="Prompts by slice", columns=("slice", "target share", "train share", "train", "held-out"), rows=rows,
                     caption="Targets are shares of the train split" if self.mix else "No mix was declared")  # fmt: skip

    def _sources(self) -> Table:
        counts = Counter((c.source, bool(held)) for c, held in zip(self.kept, self.is_heldout, strict=True))
        ledger = self.ledger
        rows = tuple(
            (name, ledger.rows[i], ledger.not_taken[i], ledger.rejected[i], counts[i, False], counts[i, True])
            for i, name in enumerate(self.source_names)
        )
        return Table(title="Prompts by source", columns=("source", "rows", "not taken", "rejected", "train", "held-out"), rows=rows,
                     caption="rows = not taken + rejected + train + held-out")  # fmt: skip

    def _rejected(self) -> Table:
        counts = sorted(self.ledger.rejects.counts.items(), key=lambda item: (-item[1], item[0]))
        return Table(
            title="Rejected rows",
            columns=("reason", "rows"),
            rows=tuple(counts),
            caption="Each one is in rejects.jsonl",
        )

    def _words(self) -> Table:
        rows = tuple(
            (name, len(lengths), *(float(v) for v in np.quantile(lengths, _QUANTILES)))
            for name, lengths in self._lengths()
        )
        columns = ("split", "prompts", "shortest", "10 %", "25 %", "median", "75 %", "90 %", "99 %", "longest")
        return Table(
            title="Length of prompts in words", columns=columns, rows=rows, caption="All turns of a prompt together"
        )

    def _lengths(self) -> list[tuple[str, npt.NDArray[np.int64]]]:
        lengths = np.fromiter((num_words(c.plain) for c in self.kept), np.int64, count=len(self.kept))
        sides = (("train", lengths[~self.is_heldout]), ("held-out", lengths[self.is_heldout]))
        return [(name, values) for name, values in sides if len(values)]

    def _openings(self) -> Table:
        counts = Counter(" ".join(c.plain.split(maxsplit=OPENING_WORDS)[:OPENING_WORDS]) for c in self.kept)
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:NUM_OPENINGS]
        rows = tuple((opening, count, count / len(self.kept)) for opening, count in common)
        return Table(title="Most frequent openings", columns=("opening", "prompts", "share"), rows=rows,
                     caption=f"First {OPENING_WORDS} words, {len(counts):,} different ones")  # fmt: skip

    def _contamination(self) -> Table:
        rows = tuple(
            (c.name, c.num_prompts, c.num_unreadable, c.rule, c.num_exact, c.num_ngram) for c in self.contamination
        )
        columns = ("evaluation file", "prompts", "unreadable", "compared by", "equal", "sharing a run")
        return Table(title="Contamination", columns=columns, rows=rows, caption="Exact repeats apart; all were dropped")

    def length_chart(self) -> Chart:
        """Cumulative share of prompts by length, one line a split."""
        steps = np.linspace(0.0, 1.0, _CURVE_STEPS + 1)
        series = tuple(
            Series(label=name, role="neutral" if name == "train" else "reference",
                   points=tuple((float(x), float(y)) for x, y in zip(np.quantile(lengths, steps), steps, strict=True)))
            for name, lengths in self._lengths()
        )  # fmt: skip
        return Chart(question="How long are the prompts?", x_label="words", y_label="share of prompts at most this long",
                     series=series, x_zero=True, y_zero=True)  # fmt: skip

    def to_data(self, tables: Mapping[str, Table]) -> dict[str, object]:
        """Plain data for coverage.json: the figures, and each of `tables` as a list of named rows."""
        figures = {"num_train": self.num_train, "num_heldout": self.num_heldout, "near_share": self.near_share}
        rows = {
            key: [dict(zip(table.columns, row, strict=True)) for row in table.rows] for key, table in tables.items()
        }
        return {**figures, "missing_slices": self.missing_slices(), **rows}
