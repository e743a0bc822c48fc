"""Does GRPO on checked answers learn sums? Runs recipes/grpo_arithmetic.yaml with several seeds and writes benchmarks/results/arithmetic.json.

    python benchmarks/arithmetic.py --seeds 3

Accuracy is that of the most likely answer, on the sums that GRPO was trained on and on sums that nothing was trained on, of the policy
after SFT and after GRPO. There is no peer here: the question is whether it learns, not how fast.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from fairlead.core.io import read_json, read_records, write_json
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.core.records import Prompt
from fairlead.engine.local import LocalEngine
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.text import ChatText
from fairlead.text.prompts import encode_prompts

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "grpo_arithmetic.yaml"
RESULT = ROOT / "benchmarks" / "results" / "arithmetic.json"
NAME = "grpo-arithmetic"
MAX_NEW_TOKENS = 8


def folders(home: Path) -> dict[str, Path]:
    """Stage -> artifact folder of the run."""
    stages = read_json(home / NAME / "run.json")["stages"]
    return {
        name: home / "artifacts" / row["artifact"].rpartition("-")[0] / row["artifact"] for name, row in stages.items()
    }


def accuracy(folder: Path, prompts: list[Prompt]) -> float:
    """Share of the prompts whose most likely reply is the answer, to the character."""
    chat = ChatText(load_tokenizer(str(folder)), name=str(folder))
    encoded = encode_prompts(chat, prompts, max_length=64, max_new_tokens=MAX_NEW_TOKENS)
    requests = [
        GenerateRequest(key=p.id, token_ids=tuple(ids.tolist())) for p, ids in zip(prompts, encoded, strict=True)
    ]
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS, temperature=0.0, stop_token_ids=chat.stop_token_ids)
    engine = LocalEngine(load_policy(str(folder)))
    replies = {sample.key: chat.decode(sample.token_ids).strip() for sample in engine.generate(requests, sampling)}
    return sum(replies[p.id] == str(p.meta["answer"]) for p in prompts) / len(prompts)


def measure(home: Path, seed: int) -> dict[str, object]:
    """One seed from start to end."""
    command = [sys.executable, "-m", "fairlead.cli.main", "run", str(RECIPE), "--set", f"seed={seed}"]
    subprocess.run(command, env={**os.environ, "FAIRLEAD_HOME": str(home)}, check=True)
    found = folders(home)
    prompts = list(read_records(found["prompts"] / "prompts.jsonl", Prompt))
    row: dict[str, object] = {
        "seed": seed,
        "seconds": read_json(home / NAME / "run.json")["stages"]["policies.grpo"]["seconds"],
    }
    for split in ("train", "heldout"):
        part = [p for p in prompts if p.split == split]
        row[f"num_{split}"] = len(part)
        for stage in ("sft", "policies.grpo"):
            row[f"{stage.removeprefix('policies.')}_{split}"] = round(accuracy(found[stage], part), 4)
    return row


def main() -> None:
    """All seeds; a result is written when all of them are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--home", type=Path, default=Path("runs"))
    args = parser.parse_args()
    rows = [measure(args.home / f"seed-{seed}", seed) for seed in range(args.seeds)]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    setting = f"{os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} threads"
    write_json(
        RESULT,
        {
            "work": "recipes/grpo_arithmetic.yaml",
            "unit": "share of right answers, greedy",
            "setting": setting,
            "commit": commit,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
