"""Where metrics go: a JSONL file that survives a kill, and several places at once.

One row a step: `{"step": 12, "loss": 0.693, "dpo/margin": 0.0}`. Each row reaches the operating system before `log` returns. JSON
has no NaN, so numbers that are not finite are written as the strings "NaN", "Infinity" and "-Infinity" and read back as numbers: the
step at which a loss became NaN is worth knowing. A row that a kill cut in half is dropped when the file is opened again.

Example:
    with contextlib.closing(JsonlSink(out / "metrics.jsonl")) as sink:
        sink.log(1, {"loss": 0.693})
    read_metrics(out / "metrics.jsonl")["loss"]    # [(1, 0.693)]
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, explain
from fairlead.core.io import atomic_path, parse_json, require_file
from fairlead.core.protocols import MetricSink

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JsonlSink:
    """Appends metric rows to a file. One process writes one file; not thread-safe; closed once, at the end."""

    def __init__(self, path: Path | str) -> None:
        """Open for append, after dropping a row that a kill cut in half."""
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_row(self.path)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row and hand it to the operating system."""
        row = {"step": int(step), **{name: _to_json(float(value)) for name, value in metrics.items()}}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def resume(self, step: int) -> int:
        """Drop rows after `step` (training restarts from a checkpoint of that step); return how many were dropped."""
        self._file.close()
        lines = [(row["step"], line) for row, line in _rows(self.path)]
        with atomic_path(self.path) as temporary:
            temporary.write_text("".join(line for at, line in lines if at <= step), encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        return sum(at > step for at, _ in lines)

    def close(self) -> None:
        """Flush and release the file."""
        self._file.close()


class FanOut:
    """Hands every row to several sinks, in order. All are closed even if one of them fails to."""

    def __init__(self, *sinks: MetricSink) -> None:
        """Take the sinks; this object closes them."""
        self.sinks = sinks

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log to each sink."""
        for sink in self.sinks:
            sink.log(step, metrics)

    def close(self) -> None:
        """Close each sink; raise the first error after all were tried."""
        errors: list[Exception] = []
        for sink in self.sinks:
            try:
                sink.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


def read_metrics(path: Path | str) -> dict[str, list[tuple[int, float]]]:
    """Read a metrics file as name -> [(step, value)] in the order logged.

    A torn last row (the run is being written, or was killed) is left out.

    Raises:
        DataError: the file is missing, or a whole row is damaged; the line is named.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    path = Path(path)
    require_file(path)
    for row, _ in _rows(path):
        for name, value in row.items():
            if name != "step":
                curves.setdefault(name, []).append((row["step"], value))
    return curves


def _rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield (row with numbers, its line) of every complete line."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n"):
                yield _parse_row(line, f"{path}:{number}"), line


def _parse_row(line: str, where: str) -> dict[str, Any]:
    row = parse_json(line, where)
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        raise DataError(explain(where, line.strip(), "is not a row of metrics", expected='an object with an integer "step"',
                                remedy="Remove the line or point at another file"))  # fmt: skip
    try:
        return {name: value if name == "step" else _from_json(value) for name, value in row.items()}
    except (TypeError, ValueError) as error:
        raise DataError(explain(where, line.strip(), "has a metric that is not a number", expected="numbers",
                                remedy="Remove the line or point at another file")) from error  # fmt: skip


def _to_json(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _from_json(value: Any) -> float:
    if isinstance(value, str):
        if value not in _NOT_FINITE:
            raise ValueError(value)
        return _NOT_FINITE[value]
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)


def _drop_torn_row(path: Path) -> None:
    """Cut what follows the last newline."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        complete = content.rfind(b"\n") + 1
        if complete != len(content):
            file.truncate(complete)
