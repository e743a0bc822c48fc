"""Write the problems of recipes/grpo_arithmetic.yaml: sums of two numbers below 20, a few of them worked, the others only asked.

    python tools/arithmetic_data.py recipes/arithmetic

The same files every time.
"""

import argparse
from pathlib import Path

import numpy as np

from fairlead.core.io import write_jsonl

LIMIT, NUM_WORKED, NUM_HELDOUT = 20, 200, 40


def problems() -> list[tuple[int, int]]:
    """All of them in one fixed order that tells nothing."""
    pairs = [(a, b) for a in range(LIMIT) for b in range(LIMIT)]
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def question(a: int, b: int) -> str:
    """As the model is asked."""
    return f"{a} + {b} = ?"


def demonstration(a: int, b: int) -> dict[str, object]:
    """A worked problem."""
    messages = [{"role": "user", "content": question(a, b)}, {"role": "assistant", "content": str(a + b)}]
    return {"messages": messages, "slice": "sum", "source": "arithmetic"}


def prompt(a: int, b: int, *, split: str) -> dict[str, object]:
    """A problem with its answer for the verifier alone."""
    messages = [{"role": "user", "content": question(a, b)}]
    return {"messages": messages, "slice": "sum", "source": "arithmetic", "split": split, "meta": {"answer": a + b}}


def main() -> None:
    """Write demonstrations.jsonl, prompts.jsonl and heldout_prompts.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    order = problems()
    worked, heldout, train = (
        order[:NUM_WORKED],
        order[NUM_WORKED : NUM_WORKED + NUM_HELDOUT],
        order[NUM_WORKED + NUM_HELDOUT :],
    )
    write_jsonl(folder / "demonstrations.jsonl", [demonstration(a, b) for a, b in worked])
    write_jsonl(folder / "prompts.jsonl", [prompt(a, b, split="train") for a, b in train])
    write_jsonl(folder / "heldout_prompts.jsonl", [prompt(a, b, split="heldout") for a, b in heldout])


if __name__ == "__main__":
    main()
