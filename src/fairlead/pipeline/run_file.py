"""The record of a run on disk (run.json), read without the packages that made it: the overview and the rating side have no torch."""

from pathlib import Path
from typing import Any, cast

from fairlead.core.errors import DataError, explain
from fairlead.core.io import read_json

_RUN = {"name": str, "scope": str, "seed": int, "command": str, "stages": dict}
_STAGE = {"artifact": (str, type(None)), "seconds": (int, float), "cached": bool, "stopped_by": str, "verdicts": list}


def read_run(path: Path) -> dict[str, Any]:
    """What `Pipeline` wrote.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    data = read_json(path)
    if not _has(data, _RUN) or not all(_has(row, _STAGE) for row in data["stages"].values()):
        raise DataError(explain(path, None, "is not the record of a run", expected="what this version of fairlead wrote",
                                remedy="Run the recipe again; finished stages are reused"))  # fmt: skip
    return cast(dict[str, Any], data)


def _has(row: Any, kinds: dict[str, Any]) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(key, ...), kind) for key, kind in kinds.items())
