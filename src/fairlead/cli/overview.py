"""`fairlead` alone: the flow as a map, with where the newest run stands."""

from pathlib import Path

from fairlead.cli import terminal
from fairlead.pipeline.run_file import read_run

FLOW = (("prompts", "prompts"), ("sft", "SFT"), ("completions", "completions"), ("feedback", "feedback"), ("preferences", "preferences"),
        ("rewards", "reward model"), ("policies", "policies"), ("evals", "evaluation"), ("releases", "release"))  # fmt: skip


def show_overview(home: Path) -> None:
    """Print the map."""
    runs = sorted(home.glob("*/run.json"), key=lambda p: p.stat().st_mtime)
    if not runs:
        terminal.say(
            "prompts -> SFT -> completions -> feedback -> preferences -> reward model -> policies -> evaluation -> release"
        )
        terminal.say(
            "No run yet. Next: fairlead quickstart (whole loop, minutes, no network), or fairlead init for a recipe of your own."
        )
        return
    record = read_run(runs[-1])
    terminal.say(f"Newest run: {record['name']} (scope {record['scope']}, seed {record['seed']}) in {home}")
    width = max((len(row["artifact"] or "") for row in record["stages"].values()), default=0)
    for key, title in FLOW:
        rows = {name: row for name, row in record["stages"].items() if name == key or name.startswith(key + ".")}
        if not rows:
            terminal.say(f"  -     {title:<13} not part of this recipe, or not reached")
        for name, row in rows.items():
            terminal.say(
                f"  {_state(row):<5} {title if name == key else name:<13} {row['artifact'] or '':<{width}}  {_worst(row)}".rstrip()
            )
    if any(row["stopped_by"] for row in record["stages"].values()):
        terminal.say(f"Next: fairlead report {record['name']} says why it stopped; then {record['command']}")
    else:
        terminal.say(f"Next: fairlead report {record['name']}, fairlead lineage {record['name']}, or fairlead --help")


def _state(row: dict) -> str:  # pyright: ignore[reportMissingTypeArgument]
    return "STOP" if row["stopped_by"] else "done"


def _worst(row: dict) -> str:  # pyright: ignore[reportMissingTypeArgument]
    """The gates that did not pass."""
    return ", ".join(
        f"{v['outcome']} {v['gate']}{' (allowed)' if v['allowed'] else ''}"
        for v in row["verdicts"]
        if v["outcome"] != "PASS"
    )
