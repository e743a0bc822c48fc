"""Raters with chosen accuracies and side biases who judge pairs whose better completion is known."""

import numpy as np

from fairlead.core.io import write_jsonl
from fairlead.core.records import Completion, Judgment, Message, Prompt, Task
from fairlead.core.services import Services


def draw_judgments(accuracies, *, num_tasks, votes_per_task, seed, side_bias=None, tie_share=0.0, accuracy_late=None):
    """Judgments of tasks t0, t1, ...; the truth of each is drawn too.

    Args:
        accuracies: share of right votes of each rater at no side bias.
        side_bias: logits towards the left, by rater number.
        accuracy_late: accuracy at the end of a rater's work, by rater number; it falls linearly.
    """
    rng = np.random.default_rng(seed)
    side_bias, accuracy_late = side_bias or {}, accuracy_late or {}
    truth = {f"t{i}": "ab"[rng.integers(2)] for i in range(num_tasks)}
    expected = num_tasks * votes_per_task / len(accuracies)
    given = [0] * len(accuracies)
    judgments = []
    for task, better in truth.items():
        for r in rng.permutation(len(accuracies))[:votes_per_task]:
            swapped = bool(rng.integers(2))
            progress = min(1.0, given[r] / expected)
            p = accuracies[r] + (accuracy_late.get(r, accuracies[r]) - accuracies[r]) * progress
            toward_a = np.log(p / (1 - p)) * (1 if better == "a" else -1) + side_bias.get(r, 0.0) * (
                -1 if swapped else 1
            )
            verdict = "a" if rng.random() < 1 / (1 + np.exp(-toward_a)) else "b"
            verdict = "tie" if rng.random() < tie_share else verdict
            judgments.append(
                Judgment(
                    task_id=task,
                    rater=f"r{r:02d}",
                    rater_kind="simulated",
                    verdict=verdict,
                    swapped=swapped,
                    order=given[r],
                )
            )
            given[r] += 1
    return judgments, truth


def write_run(folder, judgments, *, texts=None, splits=None, gold=None):
    """Write prompts, completions, tasks and judgments for tasks t0, t1, ...; each has a prompt of its own.

    Args:
        texts: (a, b) by task, where they are not the default.
        splits: split by task.
    """
    names = sorted({j.task_id for j in judgments} | set(texts or {}), key=lambda name: int(name[1:]))
    prompts, completions, tasks = [], [], []
    for name in names:
        prompt = Prompt(
            messages=(Message(role="user", content=f"question {name}"),),
            slice="s",
            source="own",
            split=(splits or {}).get(name, "train"),
        )
        pair = [Completion(prompt_id=prompt.id, text=text, model="m", sample_index=i)
                for i, text in enumerate((texts or {}).get(name, (f"first of {name}", f"second of {name}")))]  # fmt: skip
        prompts.append(prompt)
        completions += pair
        tasks.append(Task(prompt_id=prompt.id, completion_a=pair[0].id, completion_b=pair[1].id, id=name))
    for file, rows in (("prompts", prompts), ("completions", completions), ("tasks", tasks), ("judgments", judgments)):
        write_jsonl(folder / f"{file}.jsonl", rows)
    if gold is not None:
        write_jsonl(
            folder / "gold.jsonl", ({"task_id": task, "scorer": "g", "difference": d} for task, d in gold.items())
        )
    return {"feedback": folder, "prompts": folder, "completions": folder}


def services(folder, *, scope="toy", seed=0):
    return Services(work=folder, seed=seed, extras={"scope": scope, "find_file": lambda path: folder / path})
