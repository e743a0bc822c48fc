"""Print how long files and functions of the package are, and fail beyond the hard limits of the style guide.

python tools/check_sizes.py
"""

import ast
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A file or a function with its length."""

    name: str
    lines: int


def measure(folder: Path) -> tuple[list[Piece], list[Piece]]:
    """Files and functions (methods and inner functions included) below `folder`; decorators do not count."""
    files: list[Piece] = []
    functions: list[Piece] = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(folder))
        files.append(Piece(name=name, lines=len(text.splitlines())))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append(Piece(name=f"{name}:{node.lineno} {node.name}", lines=length))
    return files, functions


def describe(kind: str, pieces: Sequence[Piece], *, limit: int) -> str:
    """One line: how many, median, 90th percentile, longest."""
    lengths = sorted(p.lines for p in pieces)
    p90 = lengths[min(len(lengths) - 1, round(0.9 * (len(lengths) - 1)))]
    longest = max(pieces, key=lambda p: p.lines)
    return (
        f"{len(pieces)} {kind}: median {statistics.median(lengths):g} lines, p90 {p90}, longest {longest.lines} ({longest.name}), "
        f"limit {limit}"
    )


def faults(kind: str, pieces: Sequence[Piece], *, limit: int) -> list[str]:
    """A line for each piece beyond the limit."""
    return [f"{p.name}: {p.lines} lines; expected <= {limit} for {kind}. Split it." for p in pieces if p.lines > limit]


def main(folder: Path = ROOT / "src" / "fairlead") -> int:
    """Print statistics and faults; 1 when there is a fault."""
    files, functions = measure(folder)
    found: list[str] = []
    for kind, pieces, limit in (("files", files, MAX_FILE_LINES), ("functions", functions, MAX_FUNCTION_LINES)):
        print(describe(kind, pieces, limit=limit))
        found += faults(kind, pieces, limit=limit)
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
