"""Write the problems of recipes/grpo_arithmetic.yaml, sums of two numbers below 20, and of recipes/grpo_calculator.yaml, products of two
numbers below 100: a few of them worked, the others only asked.

    python tools/arithmetic_data.py recipes/arithmetic
    python tools/arithmetic_data.py recipes/calculator --calculator

The same files every time.
"""

import argparse
from pathlib import Path

import numpy as np

from fairlead.core.io import write_jsonl

LIMIT, NUM_WORKED, NUM_HELDOUT = 20, 200, 40
PRODUCT_LIMIT, NUM_CALLED, NUM_GUESSED, NUM_ASKED = 100, 400, 400, 400


def problems(limit: int) -> list[tuple[int, int]]:
    """All of them in one fixed order that tells nothing."""
    pairs = [(a, b) for a in range(limit) for b in range(limit)]
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


def product(a: int, b: int, *, turns: list[tuple[str, str]]) -> dict[str, object]:
    """A product that is asked, and what is said to it."""
    said = [("user", f"{a} * {b} = ?"), *turns]
    return {
        "messages": [{"role": role, "content": text} for role, text in said],
        "slice": "product",
        "source": "calculator",
    }


def write_products(folder: Path) -> None:
    """Half of the worked ones by calling the calculator, half straight away; the policy finds out which pays."""
    order = iter(problems(PRODUCT_LIMIT))
    called, guessed = [next(order) for _ in range(NUM_CALLED)], [next(order) for _ in range(NUM_GUESSED)]
    rows = [
        product(
            a,
            b,
            turns=[
                ("assistant", f"<calculator>{a} * {b}</calculator>"),
                ("tool", str(a * b)),
                ("assistant", str(a * b)),
            ],
        )
        for a, b in called
    ] + [product(a, b, turns=[("assistant", str(a * b))]) for a, b in guessed]
    write_jsonl(folder / "demonstrations.jsonl", [rows[i] for i in np.random.default_rng(1).permutation(len(rows))])
    for name, split, num in (("prompts", "train", NUM_ASKED), ("heldout_prompts", "heldout", NUM_HELDOUT)):
        asked = [next(order) for _ in range(num)]
        write_jsonl(
            folder / f"{name}.jsonl",
            [{**product(a, b, turns=[]), "split": split, "meta": {"answer": a * b}} for a, b in asked],
        )


def main() -> None:
    """Write demonstrations.jsonl, prompts.jsonl and heldout_prompts.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calculator", action="store_true")
    args = parser.parse_args()
    folder: Path = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    if args.calculator:
        write_products(folder)
        return
    order = problems(LIMIT)
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
