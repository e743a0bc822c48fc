"""From cells to rows of results, and the table that is printed."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.offline.cell_plan import Cell, Work, differences
from benchmarks.offline.flops import flops_per_token, lengths_of
from benchmarks.offline.work import SHAPES, read_rows
from fairlead.core.io import read_json, write_json

NAMES = {
    "default": "TRL's defaults (bf16, padded, activation checkpointing)",
    "grouped": "TRL fp32, grouped by length, reference beforehand",
    "grouped_bf16": "TRL bf16, grouped by length, reference beforehand",
    "packing_bf16": "TRL bf16, best-fit packing",
}
DATA = {"sft": "sft", "reward": "pairs", "dpo": "pairs", "long": "long", "rank8": "rankings"}
"""File of rows of each method."""


def summarise(work: Work, cells: Sequence[Cell], *, place: Path) -> list[dict]:
    """Rows of each of our precisions against settings of the peer: its fastest by measurement in this run, and its defaults.

    Args:
        cells: of one device.
    """
    timed = [c for c in cells if (c["size"], c["method"]) == (work.size, work.method) and "tokens_per_s" in c]
    found = {pair: {c["repeat"]: c for c in timed if (c["side"], c["setting"]) == pair} for pair in work.sides}
    found = {pair: by_repeat for pair, by_repeat in found.items() if by_repeat}
    theirs = {setting: median_s_per_token(by.values()) for (side, setting), by in found.items() if side == "trl"}
    peaks = {p: max((c["peak_gflops"][p] for c in cells if "peak_gflops" in c), default=0.0) for p in ("fp32", "bf16")}
    useful = flops_of(work, place)
    rows = []
    for precision, setting, is_best in wanted(theirs):
        ours, peer = found.get(("ours", precision)), found[("trl", setting)]
        if not ours or not (both := sorted(ours.keys() & peer.keys())):
            continue
        pairs = {"ours": [ours[r] for r in both], "peer": [peer[r] for r in both]}
        peer_precision = "fp32" if setting == "grouped" else "bf16"
        rates = {side: [1 / seconds_per_token(c) for c in some] for side, some in pairs.items()}
        both_cells = [*pairs["ours"], *pairs["peer"]]
        rows.append({
            "work": f"offline {work.method} {work.size}",
            "setting": f"ours {precision}; {NAMES[setting]}{', its fastest' if is_best else ''}; {both_cells[0]['device']}",
            "precision": precision, "peer_setting": setting, "is_peer_best": is_best,
            "unit": "useful tokens/s", **{side: spread(some) for side, some in rates.items()},
            "peer_version": f"trl {pairs['peer'][-1]['versions']['trl']}",
            "ratio": spread([a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]),
            "ratio_of_median_steps": spread([seconds_per_token(b, is_median=True) / seconds_per_token(a, is_median=True)
                                             for a, b in zip(pairs["ours"], pairs["peer"], strict=True)]),
            "steps": {side: {"warmup": some[0]["num_warmup"], "timed": sum(c["num_steps"] for c in some),
                             "median_s": round(statistics.median(c["median_step_s"] for c in some), 3),
                             "tokens_per_row": round(sum(c["tokens"] for c in some) / sum(c["rows"] for c in some))}
                      for side, some in pairs.items()},
            "memory_mb": {side: round(max(c["memory_mb"] for c in some)) for side, some in pairs.items()},
            "mfu": {side: round(statistics.median(rates[side]) * useful[side] / (peaks[p] * 1e9), 3)
                    for side, p in (("ours", precision), ("peer", peer_precision))},
            "peak_gflops": {p: round(peak) for p, peak in peaks.items()},
            **({"loss_difference": d} if (d := differences(work, cells)) else {}), "repeats": len(both),
            "command": "python -m benchmarks.offline.run", "commit": ", ".join(sorted({c["commit"] for c in both_cells})),
            "date": " to ".join(sorted({min(c["date"] for c in both_cells), max(c["date"] for c in both_cells)})),
            "versions": {side: some[-1]["versions"] for side, some in pairs.items()},
        })  # fmt: skip
    return rows


def wanted(theirs: dict[str, float]) -> list[tuple[str, str, bool]]:
    """Our precision, setting of the peer, and whether that is its fastest; from the peer's seconds a token by setting."""
    if not theirs:
        return []
    best = min(theirs, key=theirs.__getitem__)
    pairs = [("bf16", best, True)]
    pairs += [("bf16", setting, False) for setting in theirs if setting not in (best, "grouped")]
    return pairs + ([("fp32", "grouped", False)] if "grouped" in theirs else [])


def seconds_per_token(cell: Cell, *, is_median: bool = False) -> float:
    """Of one epoch's useful tokens: training, and the reference pass by the tokens of the rows that it went over."""
    prepared = cell["prepared"]
    trained = cell["median_s_per_token"] if is_median else 1 / cell["tokens_per_s"]
    return trained + (prepared["seconds"] / prepared["tokens"] if prepared else 0.0)


def median_s_per_token(cells: Iterable[Cell]) -> float:
    """Of some repeats."""
    return statistics.median(map(seconds_per_token, cells))


def flops_of(work: Work, place: Path) -> dict[str, float]:
    """Model FLOPs a useful token on either side: ours computes a shared prompt once, so that it needs fewer for the same work."""
    rows = [lengths_of(row) for row in read_rows(place / work.size / f"{DATA[work.method]}.jsonl")]
    return {
        side: flops_per_token(SHAPES[work.size], rows, has_head=work.method not in ("reward", "rank8"),
                              has_reference=work.method in ("dpo", "long"), is_shared=side == "ours")
        for side in ("ours", "peer")
    }  # fmt: skip


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and extremes."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def keep_results(path: Path, rows: list[dict]) -> None:
    """Write a file of results; rows of other work stay, and those of another device where rows name theirs."""
    new = {(row["work"], row.get("device")) for row in rows}
    others = [r for r in (read_json(path) if path.exists() else []) if (r["work"], r.get("device")) not in new]
    write_json(path, [*others, *rows])
