"""A folder of prompts and completions whose gold score is written in the text, and a scorer that reads it."""

import numpy as np

from fairlead.core.io import write_jsonl
from fairlead.core.records import Completion, Message, Prompt
from fairlead.core.services import Services


class NumberScorer:
    """The last word of a completion is its gold score; `none` has no score."""

    name = "number"

    def score(self, prompts, completions):
        words = [c.text.split()[-1] for c in completions]
        return np.array([np.nan if word == "none" else float(word) for word in words])


def write_inputs(folder, *, num_prompts=60, num_samples=2, seed=0, texts=None):
    """Write prompts.jsonl and completions.jsonl; `texts` gives the completions of further prompts."""
    rng = np.random.default_rng(seed)
    groups = [[f"reply {value:.3f}" for value in rng.normal(size=num_samples)] for _ in range(num_prompts)]
    groups += texts or []
    prompts = [Prompt(messages=(Message(role="user", content=f"question {i}"),)) for i in range(len(groups))]
    completions = [Completion(prompt_id=p.id, text=text, model="m", sample_index=k)
                   for p, group in zip(prompts, groups, strict=True) for k, text in enumerate(group)]  # fmt: skip
    write_jsonl(folder / "prompts.jsonl", prompts)
    write_jsonl(folder / "completions.jsonl", completions)
    return {"prompts": folder, "completions": folder}


def services(folder, *, seed=0, scorer=None, **changes):
    return Services(work=folder, seed=seed, extras={"gold_scorer": scorer or NumberScorer()}, **changes)
