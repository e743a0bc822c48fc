"""`fairlead preflight`: the checks that a training stage makes on its real first batch, without training."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from fairlead.cli import terminal
from fairlead.cli.running import as_data, as_typed, loading, parse_allow
from fairlead.core.gates import figure
from fairlead.core.services import silent_progress

_STYLES = {"passed": "green", "warned": "yellow", "failed": "red"}


def show_preflight(
    recipe: Path, *, sets: Sequence[str] | None, allow: Sequence[str] | None, stage: str | None, home: Path, as_json: bool,
    allow_unsandboxed: bool = False,
) -> None:  # fmt: skip
    """Check one stage and print what was found; fails as the stage would."""
    allowed = parse_allow(allow)
    with loading():
        from fairlead.models.memory import keep_freed_memory, keep_imports
        from fairlead.pipeline.recipe import load
        from fairlead.pipeline.run import Interface, Pipeline
    keep_freed_memory()
    keep_imports()
    interruption = terminal.Interruption()
    interface = Interface(
        progress=silent_progress if as_json else terminal.progress, say=_unsaid, should_stop=interruption
    )
    loaded = load(recipe, sets=tuple(sets or ()), allow_unsandboxed=allow_unsandboxed)
    pipeline = Pipeline(loaded, home, recipe.resolve().parent, interface, allowed)
    with interruption.watching():
        found = pipeline.preflight(stage)
    checks: list[dict[str, Any]] = [dict(zip(found.table.columns, row, strict=True)) for row in found.table.rows]
    if as_json:
        plain = [
            {**row, "found": row["found"] if math.isfinite(row["found"]) else None} for row in checks
        ]  # JSON has no NaN
        terminal.say(as_data({"stage": found.node.name, "is_passed": found.error is None, "checks": plain}))
    else:
        _print(found.node.name, found.node.title, checks)
    if found.error is not None:
        terminal.fail(str(found.error), found.error.exit_code)
    if not as_json:
        terminal.say(
            f"{found.node.name} would train. Next: {as_typed(f'fairlead run {recipe}', sets=sets, allow=allow, allow_unsandboxed=allow_unsandboxed)}"
        )


def _unsaid(_text: str) -> None:
    """What a stage says of its checks stands in the table."""


def _print(stage: str, title: str, checks: Sequence[dict[str, Any]]) -> None:
    table = Table(
        title=f"Preflight of {stage}: {title}, nothing is trained", title_justify="left", title_style="", box=None
    )
    for column in ("check", "result", "found", "limit"):
        table.add_column(column, justify="right" if column == "found" else "left")
    for row in checks:
        result = Text(row["result"], style=_STYLES[row["result"]])
        table.add_row(row["check"], result, figure(row["found"]), row["limit"])
    terminal.show_table(table)
    for row in checks:
        if row["result"] == "warned":
            terminal.say(f"warned: {row['check']}. {row['what to do']}.", hang=2)
