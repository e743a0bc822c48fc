"""Write what was measured on the quickstart into docs/how-to-choose.md, between `<!-- measured:start -->` and `<!-- measured:end -->`.

    python tools/fill_measured.py           # write
    python tools/fill_measured.py --check   # exit with 1 when the page differs from the results

Reads benchmarks/results/quickstart.json, the rows that benchmarks/quickstart.py writes: of `quickstart` the seconds of each stage by
seed and the peak memory, of `quickstart: NAME against SFT, gold rule` the effect with its interval by seed.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairlead.core.errors import DataError, explain
from fairlead.core.gates import figure
from fairlead.core.io import read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to-choose.md"
RESULTS = ROOT / "benchmarks" / "results" / "quickstart.json"
START, END = "<!-- measured:start -->", "<!-- measured:end -->"
METHODS: Mapping[str, tuple[str, tuple[str, ...]]] = {  # policy -> title, stages that only this method needs
    "ppo": ("reward model + PPO", ("rewards", "policies.ppo")),
    "dpo": ("DPO", ("policies.dpo",)),
    "cai": ("constitutional AI", ("policies.cai",)),
}
_HEADER = (
    "| method | time, s | peak memory of the whole run, MB | gold score against SFT | stability: seeds whose 95 % interval is above 0 |",
    "|---|---|---|---|---|",
)
Rows = Sequence[Mapping[str, Any]]


def block(rows: Rows | None) -> str:
    """The lines between the markers; None is for results that are not there yet."""
    lines = [*_HEADER, *(_line(name, rows or ()) for name in METHODS), ""]
    run = _row(rows or (), "quickstart")
    if run is None:
        return "\n".join(
            [*lines, "Nothing has been measured yet: this table is filled from `benchmarks/results/quickstart.json`."]
        )
    caption = (
        f"Quickstart, {run['setting']}, {run['date']}, commit {run['commit']}. Median, lowest to highest over seeds."
    )
    return "\n".join(
        [*lines, caption, "Time is of the stages that only this method needs; memory is not told apart by method."]
    )


def _row(rows: Rows, work: str) -> Mapping[str, Any] | None:
    return next((row for row in rows if row["work"] == work), None)


def _line(name: str, rows: Rows) -> str:
    title, stages = METHODS[name]
    run, effect = _row(rows, "quickstart"), _row(rows, f"quickstart: {name} against SFT, gold rule")
    if run is None or effect is None:
        return f"| {title} | not measured | not measured | not measured | not measured |"
    seconds = [sum(float(seed[stage]) for stage in stages) for seed in run["stages"]]
    gained = sum(low > 0 for low, _ in effect["intervals"])
    time = _spread(statistics.median(seconds), min(seconds), max(seconds))
    score = _spread(effect["ours"]["median"], effect["ours"]["min"], effect["ours"]["max"])
    return f"| {title} | {time} | {figure(float(run['memory_mb']['ours']))} | {score} | {gained} of {len(effect['intervals'])} |"


def _spread(middle: float, low: float, high: float) -> str:
    return figure(middle) if low == high else f"{figure(middle)} ({figure(low)} to {figure(high)})"


def fill(text: str, content: str) -> str:
    """The page with `content` between its markers."""
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise DataError(
            explain(
                PAGE, None, "does not hold the markers once", expected=f"{START} before {END}", remedy="Put them back"
            )
        )
    before, _, rest = text.partition(START)
    return f"{before}{START}\n{content}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description="Fill the measured table of docs/how-to-choose.md.")
    parser.add_argument("--check", action="store_true", help="do not write; exit with 1 when the page differs")
    is_check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    filled = fill(text, block(read_json(RESULTS) if RESULTS.is_file() else None))
    if filled == text:
        return 0
    if is_check:
        print(f"{PAGE.relative_to(ROOT)} differs from the results. Run python tools/fill_measured.py.")
        return 1
    write_text(PAGE, filled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
