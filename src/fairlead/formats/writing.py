"""Write preferences for other programs. What a format cannot carry is left out and counted, never bent to fit."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fairlead.core.annotations import INCLUSION, inclusion_in
from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.io import write_jsonl, write_parquet
from fairlead.core.records import Preference
from fairlead.formats.base import Unusable, WriteReport
from fairlead.formats.conversations import checked
from fairlead.formats.provenance import provenance_columns
from fairlead.formats.registry import FORMATS, find_format


def write_preferences(
    path: Path | str, preferences: Iterable[Preference], *, format: str, has_inclusion: bool | None = None
) -> WriteReport:
    """Write preferences as JSONL (gzip when the name ends in .gz), or as Parquet when it ends in .parquet.

    Votes, posterior, margin, weight and provenance stand in columns of their own (`provenance.py`), which other programs ignore and
    reading restores; where any pair was chosen actively, so do its arm, probability and weight of inclusion (null for the others).

    Args:
        has_inclusion: some were chosen actively. Where that is known, they are written as they are made; None goes through all of them first.
    Raises:
        ConfigError: the format is unknown or is only read.
        DataError: there was nothing, or nothing that the format can carry; no file is left behind.
    """
    known = find_format(format)
    write = known.write
    if write is None:
        raise ConfigError(explain("format", format, "can be read but not written", expected="one of " + ", ".join(f.name for f in FORMATS if f.write),
                                  remedy="Choose one of these"))  # fmt: skip
    left_out: dict[str, int] = {}
    if has_inclusion is None:
        preferences = list(preferences)
        has_inclusion = any(inclusion_in(preference.meta) for preference in preferences)
    unchosen = dict.fromkeys(INCLUSION) if has_inclusion else {}

    def rows() -> Iterator[dict[str, Any]]:
        for preference in preferences:
            try:
                row = write(checked(preference))
                yield row if known.is_own else {**row, **unchosen, **provenance_columns(preference)}
            except Unusable as fault:
                left_out[str(fault)] = left_out.get(str(fault), 0) + 1

    found = rows()
    first = next(found, None)
    if first is None:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.items()) or "there were none"
        raise DataError(explain(path, None, f"would hold no preference: {reasons}", expected=f"preferences that {format} can carry",
                                remedy="Write format=fairlead, which carries everything"))  # fmt: skip
    save = write_parquet if Path(path).suffix == ".parquet" else write_jsonl
    return WriteReport(written=save(path, itertools.chain([first], found)), left_out=left_out)
