"""Rows of data files, read twice and never held: what only the whole file decides is decided from a few numbers a row.

    survey   every row -> a hash of its id, a hash of what it is split by, whether it says that it is held out
    choose   (the stage)  the part of every row: training, held out, left out
    routed   every row again, with its part, for text.encoding

Preferences bring their splits, so one pass is enough for them (`read_pairs`).

Example:
    rows = SourceRows(sources=config.data, read=read_demonstrations, find_file=find_file)
    survey = rows.survey(first_message, rejects=rejects, heed=heed)
    encoded = encode_parts(rows.routed(survey, is_heldout), encode_demonstrations, ...)
"""

import array
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fairlead.core.config import Config
from fairlead.core.errors import DataError, explain
from fairlead.core.io import Rejects, count_lines, read_records
from fairlead.core.records import Preference, Split
from fairlead.core.services import Services
from fairlead.text import ChatText, Encoded, encode_preferences
from fairlead.text.encoding import Storage, encode_parts

Flags = npt.NDArray[np.bool_]
_LOOK_EVERY = 4096  # rows between two looks at the keyboard


class DataSource(Config):
    """One file of data."""

    path: str
    """JSONL, JSON, CSV or Parquet; relative to the recipe's folder or FAIRLEAD_DATA."""
    format: str | None = None
    """Name of a known format; null detects it."""
    take: int | None = Field(default=None, ge=1)
    """At most this many rows, a fixed choice by hash (files are often sorted); null takes all."""


class _Row(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def split(self) -> Split: ...


Found = TypeVar("Found", bound=_Row)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """What is remembered of every row: 18 bytes."""

    ids: npt.NDArray[np.uint64]
    """Equal for equal ids, which are hashes of content."""
    keys: npt.NDArray[np.uint64]
    """Equal where rows must stay together."""
    is_marked: Flags
    """Rows that say that they are held out."""
    is_taken: Flags

    @property
    def num_taken(self) -> int:
        """Rows that are used."""
        return int(self.is_taken.sum())


def survey_rows(
    rows: Iterable[Found],
    key: Callable[[Found], int],
    *,
    take: int | None = None,
    heed: Callable[[], None] = lambda: None,
) -> Survey:
    """Look at all rows of one file.

    Args:
        key: 64 bits of a hash of what the row is split by.
        take: at most this many are taken, a fixed choice by their ids.
    """
    ids, keys, marks, names = array.array("Q"), array.array("Q"), bytearray(), list[str]()
    for number, row in enumerate(rows):
        if number % _LOOK_EVERY == 0:
            heed()
        ids.append(int.from_bytes(hashlib.blake2b(row.id.encode(), digest_size=8).digest(), "big"))
        keys.append(key(row))
        marks.append(row.split == "heldout")
        if take is not None:
            names.append(row.id)
    is_taken = np.ones(len(ids), dtype=bool)
    if take is not None and take < len(ids):
        is_taken[:] = False
        is_taken[fixed_choice(names, take)] = True
    return Survey(ids=np.array(ids, dtype=np.uint64), keys=np.array(keys, dtype=np.uint64), is_marked=np.array(marks, dtype=bool),
                  is_taken=is_taken)  # fmt: skip


def fixed_choice(ids: Sequence[str], count: int) -> list[int]:
    """Places of `count` rows, a fixed choice by their ids that grows with `count`."""
    return sorted(range(len(ids)), key=lambda i: (ids[i], i))[:count]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRows(Generic[Found]):
    """Rows of several files, one file after the other."""

    sources: Sequence[DataSource]
    read: Callable[..., Iterable[Found]]
    """(path, *, format, rejects) -> records"""
    find_file: Callable[[str], Path]

    def survey(self, key: Callable[[Found], int], *, rejects: Rejects, heed: Callable[[], None]) -> Survey:
        """Look at all rows; faulty ones go to `rejects`."""
        parts = [survey_rows(self._rows(source, rejects), key, take=source.take, heed=heed) for source in self.sources]
        return Survey(ids=np.concatenate([p.ids for p in parts]), keys=np.concatenate([p.keys for p in parts]),
                      is_marked=np.concatenate([p.is_marked for p in parts]), is_taken=np.concatenate([p.is_taken for p in parts]))  # fmt: skip

    def routed(self, survey: Survey, is_heldout: Flags) -> Iterator[tuple[Split | None, Found]]:
        """Every row again, with its part; None for those that are not taken.

        Raises:
            DataError: a file has other rows than the survey found.
        """
        number = 0
        for source in self.sources:
            for row in self._rows(source, Rejects(Path())):  # faulty rows are told by the survey
                if number == len(survey.ids):
                    raise _changed(source)
                yield (None if not survey.is_taken[number] else "heldout" if is_heldout[number] else "train"), row
                number += 1
        if number != len(survey.ids):
            raise _changed(self.sources[-1])

    def _rows(self, source: DataSource, rejects: Rejects) -> Iterable[Found]:
        return self.read(self.find_file(source.path), format=source.format, rejects=rejects)


def _changed(source: DataSource) -> DataError:
    return DataError(explain(source.path, None, "was changed while it was read", expected="a file that stays as it is",
                             remedy="Run the same command again"))  # fmt: skip


def read_pairs(
    folder: Path, chat: ChatText, *, max_length: int, services: Services, title: str
) -> tuple[dict[Split, Encoded], int]:
    """Preferences that are no ties, by split, and how many of them have a soft label."""
    path, num_soft = folder / "preferences.jsonl", 0

    def rows() -> Iterator[tuple[Split | None, Preference]]:
        nonlocal num_soft
        for row in read_records(path, Preference):
            num_soft += not row.is_tie and row.p_chosen < 1
            yield (None if row.is_tie else row.split), row

    found: Mapping[str, Any] = encode_parts(rows(), encode_preferences, chat=chat, max_length=max_length, what="preferences",
                                            storage=Storage.of(services, title), num_rows=count_lines(path))  # fmt: skip
    order: tuple[Split, ...] = ("train", "heldout")
    return {split: found[split] for split in order if split in found}, num_soft
