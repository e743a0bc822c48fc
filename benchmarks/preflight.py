"""What each preflight check costs on the bundled model, and write benchmarks/results/preflight.json.

    python -m benchmarks.preflight [--repeats 5]

A row a check a kind of stage: seconds, median of the repeats, against the limit of one second. The rows that are looked at are 10,000,
the most that preflight ever looks at: the bundled demonstrations again and again, as pairs, or sampled from the model. Every check is
timed where the stage's own list calls it; one that reports two results has both names.
"""

import argparse
import datetime
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

LIMIT_S = 1.0
NUM_ROWS = 10_000
RESULTS = Path(__file__).parent / "results" / "preflight.json"


def main() -> None:
    """Time the checks and write their rows; exit with 1 when one is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    from fairlead.core.io import write_json

    machine = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rows": NUM_ROWS,
        "repeats": args.repeats,
    }
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    rows = []
    for kind, checks in stage_kinds().items():
        for name, seconds in measure(checks, repeats=args.repeats).items():
            rows.append(
                {
                    "stage": kind,
                    "check": name,
                    "seconds": round(seconds, 4),
                    "limit_s": LIMIT_S,
                    "date": date,
                    **machine,
                }
            )
            print(f"{kind:10} {name:60} {seconds:8.4f} s", flush=True)
    write_json(RESULTS, rows)
    slowest = max(rows, key=lambda row: row["seconds"])
    print(f"slowest: {slowest['check']} of {slowest['stage']}, {slowest['seconds']} s (limit {LIMIT_S:g} s)")
    if slowest["seconds"] > LIMIT_S:
        raise SystemExit(1)


def measure(checks: Callable[[], Sequence], *, repeats: int) -> dict[str, float]:
    """Name of each check, or of those that are made together -> median seconds. The first round warms up and is not counted."""
    from fairlead.train import preflight_model, preflight_stage

    found: dict[str, list[float]] = {}
    made = {
        (module, name)
        for module in (preflight_stage, preflight_model)
        for name in vars(module)
        if name.startswith("check_")
    }
    made -= {(module, "check_model") for module in (preflight_stage, preflight_model)}  # its parts are timed
    originals = {(module, name): getattr(module, name) for module, name in made}
    try:
        for (module, name), original in originals.items():
            setattr(module, name, timed(original, found))
        for _ in range(repeats + 1):
            failed = [check.name for check in checks() if check.result == "failed"]
            assert not failed, failed
    finally:
        for (module, name), original in originals.items():
            setattr(module, name, original)
    return {name: statistics.median(seconds[1:]) for name, seconds in found.items()}


def timed(check: Callable, found: dict[str, list[float]]) -> Callable:
    """`check` with its seconds noted under the names that it reports."""

    def call(*args, **kwargs):
        start = time.perf_counter()
        result = check(*args, **kwargs)
        seconds = time.perf_counter() - start
        names = ", ".join(c.name for c in result) if isinstance(result, list) else result.name
        found.setdefault(names, []).append(seconds)
        return result

    return call


def stage_kinds() -> dict[str, Callable[[], Sequence]]:
    """Kind of stage -> its checks on the bundled model."""
    import fairlead
    from fairlead.core.io import Rejects
    from fairlead.formats import read_demonstrations
    from fairlead.models.adapters import LoraSettings, add_lora
    from fairlead.models.heads import new_reward_head
    from fairlead.models.load import load_policy, load_tokenizer
    from fairlead.text import ChatText, encode_demonstrations
    from fairlead.train.preflight_stage import Start, comparison_checks, imitation_checks, reward_checks, rollout_checks

    bundled = Path(fairlead.__file__).parent / "bundled"
    tokenizer = load_tokenizer(str(bundled / "model"))
    chat = ChatText(tokenizer, template=None, name="bundled")
    with Rejects(Path(tempfile.gettempdir()) / "fairlead_preflight_rejects.jsonl") as rejects:
        rows = list(read_demonstrations(bundled / "quickstart" / "demonstrations.jsonl", rejects=rejects))
    encoded = encode_demonstrations(chat, rows, max_length=256)
    model, adapted, scorer = (load_policy(str(bundled / "model"), device="cpu") for _ in range(3))
    adapted = add_lora(adapted, LoraSettings(rank=8), seed=0)
    reward = new_reward_head(scorer, seed=0)

    def start(stage, trained, trees, num_looked=64):
        rows = type(encoded)(trees=many(trees), num_looked=num_looked)
        return Start(stage=stage, model=trained, rows=rows, bos_token_id=tokenizer.bos_token_id, stop_token_ids=chat.stop_token_ids,
                     max_length=256, max_tokens=8192)  # fmt: skip

    pairs, sampled = make_pairs(encoded.trees, model), sample(encoded.trees, model, chat)
    return {
        "sft": lambda: imitation_checks(start("sft", model, encoded.trees)),
        "sft, LoRA": lambda: imitation_checks(start("sft", adapted, encoded.trees)),
        "dpo": lambda: comparison_checks(start("dpo", model, pairs), pairs),
        "rewards": lambda: reward_checks(start("rewards", reward.base, pairs), reward),
        "ppo": lambda: rollout_checks(start("ppo", model, sampled, 0), reward, temperature=1.0, is_first=True),
    }


def many(trees: Sequence) -> list:
    """`NUM_ROWS` trees."""
    return [trees[i % len(trees)] for i in range(NUM_ROWS)]


def make_pairs(trees: Sequence, model) -> list:
    """Each demonstration's reply as chosen, its neighbour's as rejected, with the start's logprobs."""
    from fairlead.text import Branch, Tree
    from fairlead.train.forward import PolicyLogprobs, annotate

    halves = [split(tree) for tree in trees[:256]]
    pairs = [
        Tree(prompt_ids=prompt, branches=(Branch(token_ids=reply), Branch(token_ids=halves[i - 1][1])), ranks=(0, 1),
             numbers={"p_chosen": 1.0, "margin": 0.0, "weight": 1.0, "is_tie": 0.0})
        for i, (prompt, reply) in enumerate(halves)
    ]  # fmt: skip
    return annotate(pairs, "ref_logprobs", PolicyLogprobs(model), max_tokens=8192)


def split(tree):
    """A demonstration as (prompt, last reply)."""
    branch = tree.branches[0]
    at = len(branch.kept) - int(branch.kept[::-1].argmin())
    return branch.token_ids[:at], branch.token_ids[at:]


def sample(trees: Sequence, model, chat) -> list:
    """Completions of the model, with what the engine and the reference say of them."""
    from fairlead.core.protocols import GenerateRequest, Sampling
    from fairlead.engine.local import LocalEngine
    from fairlead.text import Branch, Tree
    from fairlead.train.forward import PolicyLogprobs, annotate

    prompts = [split(tree)[0] for tree in trees[:64]]
    requests = [
        GenerateRequest(key=str(i), token_ids=tuple(int(t) for t in ids), num_samples=1)
        for i, ids in enumerate(prompts)
    ]
    found = LocalEngine(model).generate(
        requests, Sampling(max_new_tokens=32, stop_token_ids=tuple(chat.stop_token_ids))
    )
    sampled = [
        Tree(
            prompt_ids=prompts[int(s.key)],
            branches=(Branch(token_ids=s.token_ids, arrays={"sampling_logprobs": s.sampling_logprobs}),),
        )
        for s in found
    ]
    return annotate(sampled, "ref_logprobs", PolicyLogprobs(model), max_tokens=8192)


if __name__ == "__main__":
    main()
