"""What both sides of the comparison share: arguments, the clock, the order of batches, memory, and how a cell reports.

Standard library and torch only, for the peer's interpreter imports it too.
"""

import argparse
import importlib.metadata
import json
import math
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

LEARNING_RATE = 1e-5
NUM_REFERENCE = 128
"""Rows over which the reference pass is timed."""
NUM_REFERENCE_WARMUP = 16
"""Further rows that it goes over first, untimed."""
METHODS = ("sft", "reward", "dpo", "long", "rank8")
"""long is dpo on prompts four times longer, rank8 a reward model on eight completions a prompt."""
PEAK_SHAPES = {"cpu": (2048, 768, 768), "cuda": (8192, 8192, 8192)}
PACKAGES = ("torch", "transformers", "trl", "accelerate", "tokenizers", "numpy")
GOLDEN_SECTION = 0.6180339887498949


def parse_args(doc: str | None, settings: tuple[str, ...]) -> argparse.Namespace:
    """The arguments of a cell."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of one size that benchmarks.offline.work made")
    parser.add_argument("--method", choices=METHODS, required=True)
    parser.add_argument("--setting", choices=settings, default=settings[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="of measured steps, at least")
    parser.add_argument("--min-steps", type=int, default=5, help="measured, at least")
    parser.add_argument("--warmup", type=int, default=16, help="steps that are not measured")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=8192, help="of our forward")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--agree", type=int, default=0, help="instead of timing: losses of so many steps in row order")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the weights")
    parser.add_argument(
        "--per-device", type=int, default=0, help="rows a forward of the peer, accumulated to the batch; 0: all of it"
    )
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument(
        "--num-reference", type=int, default=NUM_REFERENCE, help="pairs over which the reference pass is timed"
    )
    return parser.parse_args()


def fair_order(sizes: Sequence[int], *, seed: int) -> list[int]:
    """Indices of batches: the largest, then all of them in an order of which any stretch is a fair sample of their sizes.

    Sorted by size, they are visited in strides of the golden section, from a start that the seed shifts. A trainer that groups by length begins
    with its longest batches, and a handful of random ones is long or short by chance; neither says what an epoch costs. The largest comes
    once more at the beginning, for the warm-up: steps that need more memory than those before wait for the kernel to give it, up to 0.8 s each
    on the fixed work, where kernels compiled for a new shape cost nothing that shows.
    """
    num, by_size = len(sizes), sorted(range(len(sizes)), key=sizes.__getitem__)
    stride = next(s for s in range(max(1, round(num * GOLDEN_SECTION)), 2 * num + 1) if math.gcd(s, num) == 1)
    start = int(num * (seed * GOLDEN_SECTION % 1.0))
    return [by_size[-1], *(by_size[(start + i * stride) % num] for i in range(num))]


def placeholder_logprob(vocab_size: int) -> float:
    """Of a token in nats, under a model that knows nothing, as the random weights of the fixed work do."""
    return -math.log(vocab_size)


class Clock:
    """Times optimiser steps after a warm-up, beside a GEMM of fixed size that shows how fast the machine is just then."""

    def __init__(self, seconds: float, *, warmup: int = 3, min_steps: int = 1, device: str = "cpu") -> None:
        self.seconds, self.warmup, self.min_steps, self.device = seconds, warmup, min_steps, device
        self.steps: list[tuple[float, int, int]] = []
        self.gemm: list[float] = []
        self.seen = 0
        self._a, self._b = (torch.randn(shape, device=device) for shape in ((2048, 288), (288, 768)))
        self._c = torch.empty(2048, 768, device=device)
        self.last = now(device)

    def tick(self, *, rows: int, tokens: int) -> bool:
        """Enter one finished step; True when there are enough.

        Args:
            tokens: useful ones as a padded trainer counts them, a prompt once a completion.
        """
        spent = now(self.device) - self.last
        self.seen += 1
        if self.seen > self.warmup:
            self.steps.append((spent, rows, tokens))
        self.gemm.append(self._gemm_flops())
        self.last = now(self.device)
        return sum(s[0] for s in self.steps) >= self.seconds and len(self.steps) >= self.min_steps

    def _gemm_flops(self) -> float:
        best = 0.0
        for _ in range(2):
            started = now(self.device)
            torch.mm(self._a, self._b, out=self._c)
            best = max(best, 2 * 2048 * 288 * 768 / (now(self.device) - started))
        return best

    def summary(self) -> dict[str, float]:
        """Totals, and the median step: seconds, and its seconds a token."""
        seconds, tokens = sum(s[0] for s in self.steps), sum(s[2] for s in self.steps)
        return {
            "num_steps": len(self.steps), "num_warmup": self.warmup, "seconds": seconds, "rows": sum(s[1] for s in self.steps), "tokens": tokens,
            "tokens_per_s": tokens / seconds, "median_step_s": statistics.median(s[0] for s in self.steps),
            "median_s_per_token": statistics.median(s[0] / s[2] for s in self.steps),
            "gemm_gflops": statistics.median(self.gemm) / 1e9, "gemm_gflops_max": max(self.gemm) / 1e9,
        }  # fmt: skip


def now(device: str) -> float:
    """Seconds, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peaks_gflops(device: str = "cpu") -> dict[str, float]:
    """The fastest product of this machine in each precision, GFLOP/s: what utilisation is a share of."""
    return {precision: _peak(dtype, device) for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}


def _peak(dtype: torch.dtype, device: str) -> float:
    rows, inner, columns = PEAK_SHAPES[device]
    a, b = (torch.randn(n, inner, dtype=dtype, device=device) for n in (rows, columns))
    calls = [lambda: torch.nn.functional.linear(a, b)]
    if device == "cpu" and _has_mkldnn(dtype):
        calls.append(lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], ""))
    best = 0.0
    for call in calls * 20:
        started = now(device)
        call()
        best = max(best, 2 * rows * inner * columns / (now(device) - started) / 1e9)
    return best


def _has_mkldnn(dtype: torch.dtype) -> bool:
    """Whether the library's product is there in this precision: bf16 needs instructions that older processors lack."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def peak_memory_mb(device: str = "cpu") -> float:
    """Peak memory so far, MB of 2^20 bytes: resident memory of this process, or what tensors took on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def device_name(device: str = "cpu") -> str:
    """What the machine calls itself: model, family and number of a CPU with its cores, or the name of the card."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if path.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    kind = f", family {found['cpu family']} model {found['model']}" if "cpu family" in found else ""
    return f"{found.get('model name', 'CPU')}{kind}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Of the packages that decide how fast a side is, as far as this environment has them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def report(**values: object) -> None:
    """Print the cell."""
    print(json.dumps(values), flush=True)
