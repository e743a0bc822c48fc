"""Small problems for the training tests: trees of each kind on the tiny Llama, and learners for them."""

import numpy as np
import torch

import tiny_models
from fairlead.algos import ALGORITHMS, get_algorithm
from fairlead.models.heads import new_reward_head, new_value_head
from fairlead.text import Branch, Tree
from fairlead.train.forward import Models
from fairlead.train.loop import Learner
from fairlead.train.optim import OptimizerSettings

METHODS = ("sft", "dpo", "reward", "ppo", "grpo", "kto", "bco", "aot", "aot_unpaired")
ROLLOUTS = tuple(algo.name for algo in ALGORITHMS if algo.batch == "rollouts")
NO_PROMPT = np.zeros(0, dtype=np.int64)


def make_trees(method, *, num=7, seed=0):
    """Trees that `method` trains on, of unequal lengths."""
    rng = np.random.default_rng(seed)
    return [_tree(method, rng) for _ in range(num)]


def _tree(method, rng):
    def ids(low, high):
        return rng.integers(6, tiny_models.VOCABULARY, int(rng.integers(low, high)))

    if method == "sft":
        tokens = np.concatenate([[1], ids(4, 18), [5]])
        kept = np.arange(len(tokens)) > len(tokens) // 3
        return Tree(
            prompt_ids=NO_PROMPT, branches=(Branch(token_ids=tokens, kept=kept, weight=float(rng.integers(1, 3))),)
        )
    prompt, sides = np.concatenate([[1], ids(2, 6)]), [np.concatenate([ids(1, 9), [5]]) for _ in range(2)]
    if method == "ppo":
        return Tree(prompt_ids=prompt, branches=(_rollout(sides[0], rng),))
    if method in ROLLOUTS:
        return Tree(prompt_ids=prompt, branches=tuple(_rollout(side, rng) for side in sides))
    branches = tuple(_referenced(s, rng) for s in sides)
    if method in ("kto", "bco", "aot_unpaired"):
        others = (_referenced(np.concatenate([ids(1, 9), [5]]), rng),) if method == "kto" else ()
        rank, weight = int(rng.integers(0, 2)), float(rng.integers(1, 3))
        return Tree(
            prompt_ids=prompt, branches=branches[:1], ranks=(rank,), numbers={"weight": weight}, mismatched=others
        )
    return Tree(
        prompt_ids=prompt,
        branches=branches,
        ranks=(0, 1),
        numbers={"p_chosen": 0.9, "margin": 0.1, "weight": 1.5, "is_tie": 0.0},
    )


def _referenced(tokens, rng):
    return Branch(token_ids=tokens, arrays={"ref_logprobs": -3 + 0.1 * rng.normal(size=len(tokens)).astype(np.float32)})


def _rollout(tokens, rng):
    names = ("old_logprobs", "ref_logprobs", "advantages", "old_values", "returns")
    arrays = {name: rng.normal(size=len(tokens)).astype(np.float32) for name in names}
    return Branch(token_ids=tokens, arrays={**arrays, "old_logprobs": -4 + 0.1 * arrays["old_logprobs"]})


def make_learner(
    method,
    *,
    kind="llama",
    dtype=torch.float32,
    device="cpu",
    max_tokens=8192,
    num_steps=10,
    learning_rate=1e-3,
    config=None,
    **optim,
):
    """A learner of `method` on fresh models."""
    algo = get_algorithm(method)
    policy = tiny_models.load(kind, dtype=dtype, device=device)
    models = Models(policy=policy)
    if method == "reward":
        models = Models(reward=_in(new_reward_head(policy, seed=0), dtype))
    elif method == "ppo":
        models = Models(
            policy=policy, value=_in(new_value_head(tiny_models.load(kind, dtype=dtype, device=device)), dtype)
        )
    return Learner(models=models, algo=algo, algo_config=config or algo.config(), num_steps=num_steps, max_tokens=max_tokens,
                   optim=OptimizerSettings(learning_rate=learning_rate, **optim))  # fmt: skip


def _in(model, dtype):
    model.head.to(dtype)
    return model


def weights(learner):
    """Copies of everything that trains."""
    return [p.detach().clone() for p in learner.parameters]
