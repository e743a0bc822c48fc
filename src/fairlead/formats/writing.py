"""Write preferences for other programs. What a format cannot carry is left out and counted, never bent to fit."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fairlead.core.errors import ConfigError, DataError, explain
from fairlead.core.io import write_jsonl
from fairlead.core.records import Preference
from fairlead.formats.base import Unusable, WriteReport
from fairlead.formats.conversations import checked
from fairlead.formats.registry import FORMATS, find_format


def write_preferences(path: Path | str, preferences: Iterable[Preference], *, format: str) -> WriteReport:
    """Write preferences as JSONL (gzip when the name ends in .gz).

    Raises:
        ConfigError: the format is unknown or is only read.
        DataError: there was nothing, or nothing that the format can carry; no file is left behind.
    """
    write = find_format(format).write
    if write is None:
        raise ConfigError(explain("format", format, "can be read but not written", expected="one of " + ", ".join(f.name for f in FORMATS if f.write),
                                  remedy="Choose one of these"))  # fmt: skip
    left_out: dict[str, int] = {}

    def rows() -> Iterator[dict[str, Any]]:
        for preference in preferences:
            try:
                yield write(checked(preference))
            except Unusable as fault:
                left_out[str(fault)] = left_out.get(str(fault), 0) + 1

    found = rows()
    first = next(found, None)
    if first is None:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in left_out.items()) or "there were none"
        raise DataError(explain(path, None, f"would hold no preference: {reasons}", expected=f"preferences that {format} can carry",
                                remedy="Write format=fairlead, which carries everything"))  # fmt: skip
    return WriteReport(written=write_jsonl(path, itertools.chain([first], found)), left_out=left_out)
