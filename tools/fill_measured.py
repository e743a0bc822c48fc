"""Write what was measured on the quickstart into docs/how-to-choose.md, between `<!-- measured:start -->` and `<!-- measured:end -->`.

    python tools/fill_measured.py           # write
    python tools/fill_measured.py --check   # exit with 1 when the page differs from the results

Reads benchmarks/results/quickstart.json:

    {"machine": "2 CPU cores", "date": "2026-11-21",
     "rows": [{"method": "dpo", "seed": 0, "seconds": 61.2, "peak_memory_mb": 640, "win_rate": 0.71, "is_releasable": true}, ...]}

One row a method and seed. seconds: of everything that this method needs after SFT and preferences (PPO: its reward model too).
peak_memory_mb: of a process that ran only these stages. win_rate: against the SFT policy, on the evaluation's prompts. is_releasable:
no gate of the evaluation stopped it. Without the file the block says that nothing was measured yet.
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
METHODS = (("ppo", "reward model + PPO"), ("dpo", "DPO"), ("cai", "constitutional AI"))
_HEADER = (
    "| method | time, s | peak memory, MB | win rate over SFT | stability: seeds whose gates allow a release |",
    "|---|---|---|---|---|",
)


def block(results: Mapping[str, Any] | None) -> str:
    """The lines between the markers."""
    rows: Sequence[Mapping[str, Any]] = results["rows"] if results else ()
    by_method = {name: [row for row in rows if row["method"] == name] for name, _ in METHODS}
    unknown = sorted({row["method"] for row in rows} - set(by_method))
    if unknown:
        raise DataError(
            explain(
                RESULTS,
                unknown[0],
                "is not a method of the table",
                expected=", ".join(by_method),
                remedy="Rename it or add it to METHODS",
            )
        )
    lines = [*_HEADER, *(_line(title, by_method[name]) for name, title in METHODS), ""]
    if results is None:
        return "\n".join(
            [*lines, "Nothing has been measured yet: this table is filled from `benchmarks/results/quickstart.json`."]
        )
    seeds = len({row["seed"] for row in rows})
    return "\n".join(
        [
            *lines,
            f"Quickstart, {seeds} seed{'s' if seeds != 1 else ''}, {results['machine']}, {results['date']}. Median, lowest to highest.",
        ]
    )


def _line(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return f"| {title} | not measured | not measured | not measured | not measured |"
    cells = [_spread([float(row[key]) for row in rows]) for key in ("seconds", "peak_memory_mb", "win_rate")]
    num_good = sum(bool(row["is_releasable"]) for row in rows)
    return f"| {title} | {' | '.join(cells)} | {num_good} of {len(rows)} |"


def _spread(values: Sequence[float]) -> str:
    middle = figure(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({figure(min(values))} to {figure(max(values))})"


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
