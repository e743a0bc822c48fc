"""The comparison of online steps as a picture for the documentation: a pair of bars for each row of results, sampling and the rest.

python -m benchmarks.online.chart                     # benchmarks/results/online.json -> docs/screens/online.svg
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.charts import STYLE
from benchmarks.offline.cell_plan import ROOT
from fairlead.core.io import read_json

RESULTS = ROOT / "benchmarks" / "results" / "online.json"
CHART = ROOT / "docs" / "screens" / "online.svg"
WIDTH, LEFT, RIGHT, TOP = 880, 330, 150, 72
BAR, BETWEEN, GROUP, HEADING = 17, 3, 76, 40
MORE = """
.ours { fill: #0072b2; } .ours.rest { opacity: 0.55; } .peer { fill: #444b53; } .peer.rest { opacity: 0.45; }
.what { fill: #1a1d21; font-weight: 600; }
"""
KINDS = {"grpo": "GRPO", "ppo": "PPO, four passes"}
SETTINGS = {"default": "", "no_kl": ", no KL in the loss", "fp32": ""}
PEERS = {"default": "at its defaults", "bf16": "bf16", "bf16_kl": "bf16", "fp32": "fp32", "fp32_kl": "fp32"}


def main() -> None:
    """Draw."""
    draw(read_json(RESULTS), CHART)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds of a step on a common axis from 0, the ratio of the rates beside them."""
    longest = max(max(row["steps"][side]["median_s"] for side in ("ours", "peer")) for row in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    devices = list(dict.fromkeys(row["device"] for row in rows))
    height = TOP + GROUP * len(rows) + HEADING * len(devices)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
             f'<style>{STYLE}{MORE}</style><rect class="ground" width="{WIDTH}" height="{height}"/>',
             '<text class="question" x="24" y="28">Seconds of an online step beside TRL, 2 cores</text>',
             text(24, 46, "dark: sampling, light: the rest; shorter is better")]  # fmt: skip
    y = TOP
    for device in devices:
        own = [row for row in rows if row["device"] == device]
        peak = max(row["peak_gflops"]["bf16"] for row in own)
        parts.append(text(24, y + HEADING / 2, f"{device}: {peak:,} GFLOP/s in bf16", kind="question"))
        for i, row in enumerate(own):
            parts += drawn(row, y + HEADING + GROUP * i, scale)
        y += HEADING + GROUP * len(own)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts) + "\n</svg>\n", encoding="utf-8")


def drawn(row: dict[str, Any], y: float, scale: float) -> list[str]:
    """Two bars with their words."""
    _, method, size, shape = row["work"].split()
    prompts, group, new = shape.split("x")
    ratio = row["ratio"]
    found = [text(24, y + BAR - 4, f"{KINDS[method]}{SETTINGS[row['our_setting']]}", kind="what"),
             text(24, y + 2 * BAR - 1, f"model {size}, {prompts} prompts x {group} samples x {new} tokens")]  # fmt: skip
    precision = row["setting"].split(";")[0].split()[-1]
    for place, (side, words) in enumerate(
        (("ours", f"ours {precision}"), ("peer", f"TRL {PEERS[row['peer_setting']]}"))
    ):
        top, whole = y + place * (BAR + BETWEEN), row["steps"][side]["median_s"]
        sampling = min(whole, row["parts_s"][side].get("generate", 0.0))
        middle = LEFT + sampling * scale
        found.append(f'<rect class="{side}" x="{LEFT}" y="{top}" width="{sampling * scale:.1f}" height="{BAR}"/>')
        found.append(
            f'<rect class="{side} rest" x="{middle:.1f}" y="{top}" width="{(whole - sampling) * scale:.1f}" height="{BAR}"/>'
        )
        found.append(text(LEFT + whole * scale + 6, top + BAR - 4, f"{whole:.2f} s {words}"))
    spread = f"{ratio['min']:.1f} to {ratio['max']:.1f}, n={row['repeats']}" if row["repeats"] > 1 else "n=1"
    found.append(text(24, y + 3 * BAR + 3, f"{ratio['median']:.1f} times the steps a second ({spread})"))
    return found


def text(x: float, y: float, words: str, *, kind: str = "") -> str:
    """A line of text."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


if __name__ == "__main__":
    main()
