"""What items say of themselves, a column of numbers for each field: parts of a project for which figures are shown on their own.

Example:
    found = extended({}, 0, [{"source": "hh"}, {"source": "web"}])
    found["source"].is_value("web")        # [False, True]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fairlead.stats.arrays import BoolArray, IntArray

MAX_VALUES = 12
"""Different values of a field of the items beyond which it is no slice."""
NOT_GIVEN = "not given"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """One field of I items."""

    values: tuple[str, ...]
    """In the order of their first items."""
    numbers: IntArray
    """[I] of `values`."""

    def is_value(self, value: str) -> BoolArray:
        """[I]"""
        return self.numbers == (self.values.index(value) if value in self.values else -1)


Fields = Mapping[str, Slice | None]
"""By name; None for one of more than `MAX_VALUES` values, of which nothing is kept."""


def extended(before: Fields, size: int, new: Sequence[Mapping[str, str]]) -> dict[str, Slice | None]:
    """Fields with further items behind the `size` that they have."""
    names = dict.fromkeys([*before, *(name for fields in new for name in fields)])
    return {name: _extended(before, name, size, new) for name in names}


def _extended(before: Fields, name: str, size: int, new: Sequence[Mapping[str, str]]) -> Slice | None:
    unknown = Slice(values=(NOT_GIVEN,) if size else (), numbers=np.zeros(size, dtype=np.int64))
    known = before.get(name, unknown)
    if known is None:
        return None
    places = {value: number for number, value in enumerate(known.values)}
    numbers = [places.setdefault(fields.get(name, NOT_GIVEN), len(places)) for fields in new]
    if len(places) > MAX_VALUES:
        return None
    return Slice(values=tuple(places), numbers=np.concatenate([known.numbers, np.array(numbers, dtype=np.int64)]))


def parts(fields: Fields, size: int) -> dict[str, Slice]:
    """Fields with two values or more, fewer than items: a number of its own for each names no slice."""
    return {name: found for name, found in fields.items() if found is not None and 2 <= len(found.values) < size}
