"""Alerts as a table: when, which rule, the value against its range, what was done and what came of it. Of a run that goes on and of one that
is over alike.

Example:
    tables += kept_alerts(out)          # a table for each log of alerts that training left in a stage's folder
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlead.core.gates import measure
from fairlead.core.summary import Table
from fairlead.telemetry.metrics import describe

ALERTS = "alerts.jsonl"
STOPPED = "stopped here"
"""The result of an alert that ended the run."""
COLUMNS = ("step", "verdict", "rule", "value", "range", "action", "what came of it", "what to do")


def alert_table(rows: Sequence[Mapping[str, Any]], *, title: str = "Alerts", is_over: bool) -> Table:
    """The newest first.

    Args:
        rows: as `Alert.to_dict` gives them and `Watch` keeps them.
        is_over: the run has ended.
    """
    return Table(title=title, columns=COLUMNS, rows=tuple(_row(row, is_over=is_over) for row in reversed(rows)),
                 caption="Rules and limits: docs/troubleshooting.md.",
                 empty="No alert." if is_over else "No alert so far.")  # fmt: skip


def kept_alerts(folder: Path) -> tuple[Table, ...]:
    """Tables of the alerts that a finished stage left in its folder, one a training (members of an ensemble have one each); none of a calm one."""
    found: list[Table] = []
    for path in sorted(folder.glob("alerts*.jsonl")):
        member = path.stem.removeprefix("alerts").removeprefix("-")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found.append(alert_table(rows, title=f"Alerts, member {member}" if member else "Alerts", is_over=True))
    return tuple(found)


def _row(row: Mapping[str, Any], *, is_over: bool) -> tuple[str | int, ...]:
    seen: list[dict[str, Any]] = row["seen"]
    action = "; ".join(row["done"]) or (
        "only said" if not row["proposed"] else "proposed: " + "; ".join(row["proposed"])
    )
    return (
        row["step"], row["level"], row["rule"], "; ".join(f"{s['metric']} {_measure(s['metric'], s['value'])}" for s in seen),
        "; ".join(_range(s) for s in seen), action, _outcome(row, is_over=is_over), row["remedy"],
    )  # fmt: skip


def _measure(name: str, value: float | str) -> str:
    if isinstance(value, str):  # JSON has no NaN
        return value
    return measure(value, describe(name).unit)


def _range(seen: Mapping[str, Any]) -> str:
    if seen["limit"] is None:
        return "a finite number"
    side = "at most" if seen["side"] == "above" else "at least"
    return f"{side} {_measure(seen['metric'], seen['limit'])}"


def _outcome(row: Mapping[str, Any], *, is_over: bool) -> str:
    done = "; ".join(row["results"]) or "nothing was changed"
    if row["over_at"] is not None:
        return f"{done}; back in range at step {row['over_at']}"
    return f"{done}; {'out of range to the end' if is_over else 'still out of range'}"
