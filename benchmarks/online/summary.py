"""From cells of online steps to rows of results."""

import statistics
from collections.abc import Sequence

from benchmarks.offline.cell_plan import Cell
from benchmarks.offline.summary import spread
from benchmarks.online.plan import Work, comparisons, difference

NAMES = {
    "default": "TRL's defaults (bf16, activation checkpointing)",
    "fp32": "TRL fp32", "bf16": "TRL bf16 autocast", "fp32_kl": "TRL fp32 with KL", "bf16_kl": "TRL bf16 autocast with KL",
}  # fmt: skip
OURS = {"default": "ours", "fp32": "ours", "no_kl": "ours without KL in the loss"}


def summarise(work: Work, cells: Sequence[Cell]) -> list[dict]:
    """Rows of a work: ratios repeat by repeat.

    Args:
        cells: of one device.
    """
    timed = [c for c in cells if c["work"] == work.name and "median_step_s" in c]
    found = {pair: {c["repeat"]: c for c in timed if (c["side"], c["setting"]) == pair} for pair in work.sides}
    medians = {s: statistics.median(map(rate, found["trl", s].values())) for s in work.peer if found["trl", s]}
    rows = []
    for our_setting, peer_setting, words in comparisons(work, medians):
        ours, peer = found.get(("ours", our_setting), {}), found["trl", peer_setting]
        both = sorted(ours.keys() & peer.keys())
        if both:
            rows.append(
                row_of(work, [ours[r] for r in both], [peer[r] for r in both], words, difference(work.method, cells))
            )
    return rows


def row_of(work: Work, ours: Sequence[Cell], peer: Sequence[Cell], words: str, differs: float | None) -> dict:
    """One comparison; cells are of the same repeats in the same order."""
    sides = {"ours": ours, "peer": peer}
    every = [*ours, *peer]
    return {
        "work": f"online {work.method} {work.size} {work.prompts}x8x{work.new}", "our_setting": ours[0]["setting"],
        "peer_setting": peer[0]["setting"],
        "setting": f"{OURS[ours[0]['setting']]} {ours[0]['precision']}; {NAMES[peer[0]['setting']]} ({words}); {every[0]['device']}",
        "device": every[0]["device"], "unit": "steps/s", **{side: spread([rate(c) for c in some]) for side, some in sides.items()},
        "peer_version": f"trl {peer[-1]['versions']['trl']}",
        "ratio": spread([rate(a) / rate(b) for a, b in zip(ours, peer, strict=True)]),
        "ratio_of_median_steps": spread([b["median_step_s"] / a["median_step_s"] for a, b in zip(ours, peer, strict=True)]),
        "steps": {side: {"warmup": some[0]["num_warmup"], "timed": sum(c["num_steps"] for c in some),
                         "median_s": round(statistics.median(s for c in some for s in c["steps_s"]), 3)} for side, some in sides.items()},
        "parts_s": {side: {name: round(statistics.median(c["parts_s"].get(name, 0.0) for c in some), 3) for name in some[0]["parts_s"]}
                    for side, some in sides.items()},
        "memory_mb": {side: round(max(c["memory_mb"] for c in some)) for side, some in sides.items()},
        "peak_gflops": {p: round(max(c["peak_gflops"][p] for c in every)) for p in ("fp32", "bf16")},
        **({} if differs is None else {"loss_difference": {"fp32": differs}}), "repeats": len(ours), "command": "python -m benchmarks.online.run",
        "commit": ", ".join(sorted({c["commit"] for c in every})),
        "date": " to ".join(sorted({min(c["date"] for c in every), max(c["date"] for c in every)})),
        "versions": {side: some[-1]["versions"] for side, some in sides.items()},
    }  # fmt: skip


def rate(cell: Cell) -> float:
    """Steps a second."""
    return cell["num_steps"] / cell["seconds"]
