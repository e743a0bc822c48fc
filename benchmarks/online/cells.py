"""What both sides of the comparison of online steps share: arguments, prompts, given completions, the reward, the clock of steps.

Standard library, torch and benchmarks.offline.cells only, for the peers' interpreters import it too.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.offline.work import read_rows

LEARNING_RATE = 1e-5
AGREE_RATE = 1e-4
"""Where losses are compared: fast enough that the ratio leaves 1 in the second pass over a round."""
AGREE_TOKENS = 64
AGREE_PROMPTS = 2
EPOCHS = {"grpo": 1, "ppo": 4}
AGREE_EPOCHS = {"grpo": 2, "ppo": 4}
KL_COEF = {"grpo": 0.04, "ppo": 0.05}
"""GRPO: Fairlead's default, in the loss; TRL's is 0. PPO: TRL's default, in the reward, fixed on both sides."""
GROUP = 8


def parse_args(doc: str | None, settings: tuple[str, ...]) -> argparse.Namespace:
    """The arguments of a cell."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of one size that benchmarks.offline.work made")
    parser.add_argument("--method", choices=("grpo", "ppo"), required=True)
    parser.add_argument("--setting", choices=settings, default=settings[0])
    parser.add_argument("--prompts", type=int, default=2, help="a step, with eight samples each")
    parser.add_argument("--new", type=int, default=64, help="tokens of a completion")
    parser.add_argument("--warmup", type=int, default=2, help="steps that are not measured")
    parser.add_argument("--steps", type=int, default=8, help="that are")
    parser.add_argument("--repeat", type=int, default=0, help="which prompts")
    parser.add_argument("--agree", type=int, default=0, help="instead of timing: losses of so many rounds")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def prompts_of(args: argparse.Namespace) -> list[list[int]]:
    """Prompts in the order of the steps, those of the largest step first, so that memory grows in the warm-up; other ones in each repeat."""
    if args.agree:
        return [row["prompt_ids"] for row in read_rows(args.work / "rankings.jsonl")[: args.agree * AGREE_PROMPTS]]
    num = (args.warmup + args.steps) * args.prompts
    rows = read_rows(args.work / "sft.jsonl")
    start = args.repeat * num % len(rows)
    found = [row["prompt_ids"] for row in (rows + rows)[start : start + num]]
    steps = [found[i : i + args.prompts] for i in range(0, num, args.prompts)]
    largest = max(steps, key=lambda prompts: max(map(len, prompts)))
    return [ids for step in [largest, *(s for s in steps if s is not largest)] for ids in step]


def given_completions(args: argparse.Namespace) -> list[list[list[int]]]:
    """Eight completions of each prompt, where losses are compared.

    For GRPO cut to `AGREE_TOKENS`. For PPO of just that length, the tokens repeated where they are fewer: after a completion that is shorter,
    TRL pays the score one place later and trains the value model there too.
    """
    rows = read_rows(args.work / "rankings.jsonl")[: args.agree * AGREE_PROMPTS]
    if args.method == "grpo":
        return [[ids[:AGREE_TOKENS] for ids in row["completions_ids"]] for row in rows]
    return [[(ids[:-1] * AGREE_TOKENS)[:AGREE_TOKENS] for ids in row["completions_ids"]] for row in rows]


def reward(token_ids: Sequence[int]) -> float:
    """Share of the tokens that are different ones: what GRPO's completions are paid, and PPO's where losses are compared."""
    return len(set(token_ids)) / len(token_ids)


class StepClock:
    """Seconds of whole steps, and of their parts, after a warm-up."""

    def __init__(self, *, warmup: int) -> None:
        self.warmup = warmup
        self.steps: list[float] = []
        self.parts: list[dict[str, float]] = []
        self._now: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        """The first step begins."""
        self._last, self._now = time.perf_counter(), {}

    def tick(self, parts: Mapping[str, float] | None = None) -> None:
        """A step has ended, and the next begins.

        Args:
            parts: seconds of its parts, besides those that were timed here.
        """
        now = time.perf_counter()
        self.steps.append(now - self._last)
        self.parts.append({**self._now, **(parts or {})})
        self._last, self._now = now, {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a part of the step that is running."""
        started = time.perf_counter()
        yield
        self._now[name] = self._now.get(name, 0.0) + time.perf_counter() - started

    def summary(self) -> dict[str, object]:
        """Of the steps after the warm-up; the time of a part is its mean a step."""
        steps, parts = self.steps[self.warmup :], self.parts[self.warmup :]
        names = dict.fromkeys(name for row in parts for name in row)
        return {
            "num_steps": len(steps), "num_warmup": self.warmup, "seconds": sum(steps), "median_step_s": statistics.median(steps),
            "steps_s": [round(s, 4) for s in steps],
            "parts_s": {name: round(statistics.mean(row.get(name, 0.0) for row in parts), 4) for name in names},
        }  # fmt: skip
