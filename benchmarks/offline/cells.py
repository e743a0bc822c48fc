"""What both sides of the comparison share: arguments, the clock, memory, and how a cell reports. Standard library and torch only."""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

LEARNING_RATE = 1e-5
WARMUP_STEPS = 3
NUM_REFERENCE = 256
"""Pairs over which the reference pass is timed; training then goes over these."""
METHODS = ("sft", "reward", "dpo", "long", "rank8")
"""long is dpo on prompts four times longer, rank8 a reward model on eight completions a prompt."""
PEAK_SHAPES = {"cpu": (2048, 768, 768), "cuda": (8192, 8192, 8192)}


def parse_args(doc: str | None, settings: tuple[str, ...]) -> argparse.Namespace:
    """The arguments of a cell."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of one size that benchmarks.offline.work made")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--setting", choices=settings, default=settings[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of measured steps")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agree", type=int, default=0, help="instead of timing: losses of so many steps in row order")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument(
        "--per-device", type=int, default=0, help="rows a forward of the peer, accumulated to the batch; 0: all of it"
    )
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--num-reference", type=int, default=NUM_REFERENCE, help="pairs that DPO goes over")
    return parser.parse_args()


class Clock:
    """Times optimiser steps after a warm-up, beside a GEMM of fixed size that shows how fast the machine is just then."""

    def __init__(self, seconds: float, *, device: str = "cpu") -> None:
        self.seconds, self.device = seconds, device
        self.steps: list[tuple[float, int, int, int]] = []
        self.gemm: list[float] = []
        self.seen = 0
        self._a, self._b = (torch.randn(shape, device=device) for shape in ((2048, 288), (288, 768)))
        self._c = torch.empty(2048, 768, device=device)
        self.last = now(device)

    def tick(self, *, rows: int, tokens: int, computed: int) -> bool:
        """Enter one finished step; True when there are enough.

        Args:
            tokens: useful ones as a padded trainer counts them, a prompt once a completion; computed: those that went through the model,
                padding apart.
        """
        spent = now(self.device) - self.last
        self.seen += 1
        if self.seen > WARMUP_STEPS:
            self.steps.append((spent, rows, tokens, computed))
        self.gemm.append(self._gemm_flops())
        self.last = now(self.device)
        return sum(s[0] for s in self.steps) >= self.seconds

    def _gemm_flops(self) -> float:
        best = 0.0
        for _ in range(2):
            started = now(self.device)
            torch.mm(self._a, self._b, out=self._c)
            best = max(best, 2 * 2048 * 288 * 768 / (now(self.device) - started))
        return best

    def summary(self) -> dict[str, float]:
        """Totals, and the median step's rates."""
        seconds = sum(s[0] for s in self.steps)
        return {
            "num_steps": len(self.steps), "seconds": seconds, "rows_per_s": sum(s[1] for s in self.steps) / seconds,
            "tokens_per_s": sum(s[2] for s in self.steps) / seconds, "computed_per_s": sum(s[3] for s in self.steps) / seconds,
            "median_tokens_per_s": statistics.median(s[2] / s[0] for s in self.steps),
            "gemm_gflops": statistics.median(self.gemm) / 1e9, "gemm_gflops_max": max(self.gemm) / 1e9,
        }  # fmt: skip


def now(device: str) -> float:
    """Seconds, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gflops(precision: str, *, device: str = "cpu") -> float:
    """The fastest product of this machine in a precision, GFLOP/s: what utilisation is a share of, on both sides."""
    rows, inner, columns = PEAK_SHAPES[device]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(n, inner, dtype=dtype, device=device) for n in (rows, columns))
    calls = [lambda: torch.nn.functional.linear(a, b)]
    if device == "cpu" and torch.backends.mkldnn.is_available():
        calls.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    best = 0.0
    for call in calls * 20:
        started = now(device)
        call()
        best = max(best, 2 * rows * inner * columns / (now(device) - started) / 1e9)
    return best


def peak_memory_mb(device: str = "cpu") -> float:
    """Peak memory so far, MB of 2^20 bytes: resident memory of this process, or what tensors took on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def report(**values: object) -> None:
    """Print the cell."""
    print(json.dumps(values), flush=True)
