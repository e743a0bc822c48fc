"""A whole round of several turns, from sampling to what the loss reads, against the definition on every token of plain transformers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from fairlead.algos import get_algorithm
from fairlead.core.protocols import GenerateRequest, Observation, Sampling, Turn
from fairlead.core.records import Message, Prompt
from fairlead.engine.dialogues import Dialogues
from fairlead.engine.local import LocalEngine
from fairlead.engine.rollouts import Rollout
from fairlead.models.heads import new_reward_head
from fairlead.policies.buffer import Round
from fairlead.policies.collect import Collector
from fairlead.policies.online_config import OnlineConfig, loss_name, settings_of
from fairlead.policies.prompt_stream import PromptStream
from fairlead.policies.rewarding import Scores
from fairlead.policies.rollout_models import RolloutModels
from fairlead.policies.sampling import RoundSampler
from fairlead.text import ChatText
from fairlead.train.budget import PlainBudget
from fairlead.train.forward import Models
from fairlead.train.setup import make_learner
from naive.dialogues_naive import advantages_over_turns

CHAT = ChatText(tiny_models.make_tokenizer())
PROMPTS = {
    f"p{i}": Prompt(messages=(Message(role="user", content=text),), id=f"p{i}")
    for i, text in enumerate(["what", "a big ball", "once", "no"])
}
GAMMA, LAM, KL_COEF = 0.9, 0.8, 0.3
BASE: dict[str, Any] = {
    "batch_size": 32, "group_size": 8, "minibatch_size": 32, "max_new_tokens": 30, "missing_eos_penalty": 0.0, "score_clip": None, "length_coef": 0.0,
    "tools": {"environments": [{"kind": "calculator"}], "max_turns": 3, "max_observation_tokens": 10, "error_penalty": 0.125},
}  # fmt: skip


class Environment:
    """Answers, pays and complains by the length of the turn."""

    def step(self, turns: Sequence[Turn]) -> list[Observation]:
        return [
            Observation(text="yes or no", reward=0.5 * (len(t.text) % 3), num_calls=1, num_errors=len(t.text) % 2)
            for t in turns
        ]


class Lengths:
    """Pays a completion by its own tokens: whole ones, observations and all, would be paid more."""

    def __call__(self, rollouts: Sequence[Rollout], *, step: int) -> Scores:
        return Scores(values=torch.tensor([0.1 * len(s.token_ids) for r in rollouts for s in r.samples]))


def collect(algorithm: str, **settings: Any) -> tuple[Round, RolloutModels, OnlineConfig]:
    """One round whose reference and value model are other models than the policy."""
    config = OnlineConfig.model_validate({"algorithm": algorithm, **BASE, **settings})
    policy, reference, value = tiny_models.load("llama"), tiny_models.load("llama"), tiny_models.load("llama")
    with torch.no_grad():
        for parameter in reference.module.parameters():
            parameter.mul_(0.9)
    head = new_reward_head(value, seed=1) if config.method.has_values else None
    models = RolloutModels(policy=policy, reference=reference, reward=None, value=head)
    engine, sampling = (
        LocalEngine(policy, max_slots=8),
        Sampling(max_new_tokens=30, seed=5, stop_token_ids=CHAT.stop_token_ids),
    )
    assert config.tools is not None
    dialogues = Dialogues(
        section=config.tools, chat=CHAT, environment=Environment(), prompts=PROMPTS, max_new_tokens=30
    )
    sampler = RoundSampler(
        config=config, engine=engine, rewarder=Lengths(), sampling=sampling, length_coef=0.0, dialogues=dialogues
    )
    collector = Collector(
        config=config,
        models=models,
        sampler=sampler,
        estimator=config.estimator,
        budget=PlainBudget(512),
        heed=lambda: None,
    )
    requests = [
        GenerateRequest(key=k, token_ids=tuple(CHAT.encode_prompt(p.messages).tolist())) for k, p in PROMPTS.items()
    ]
    found = collector.collect(
        PromptStream(requests, seed=0), number=0, kl_coef=config.kl.kl_coef, step=0, policy_version=0
    )
    assert found.metrics["rl/turns"] > 1.15, "some go on"
    return found, models, config


def plain(ids: np.ndarray, *, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """[T, V] log-probabilities of what follows each token, and [T, H] hidden states, by plain transformers."""
    module = tiny_models.load_plain("llama")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
        out = module(input_ids=torch.from_numpy(ids)[None], output_hidden_states=True)
    return out.logits[0].float().log_softmax(-1), out.hidden_states[-1][0]


def logprobs_of(ids: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
    """[T - 1] log-probability of each token but the first."""
    return plain(ids, scale=scale)[0][:-1].gather(1, torch.from_numpy(ids[1:])[:, None])[:, 0].numpy()


def rows(found: Round):
    """(tree, branch, is_own [T]) of every completion."""
    for tree in found.trees:
        for branch in tree.branches:
            yield tree, branch, np.ones(len(branch.token_ids), dtype=bool) if branch.kept is None else branch.kept


def paid_by_turns(branch: Any, is_own: np.ndarray, num_written: int) -> np.ndarray:
    """[T] what the environment paid at the end of each turn that ended, and the score at the end."""
    paid, ids = np.zeros(len(is_own)), branch.token_ids
    ends = [t for t in range(len(ids)) if is_own[t] and (t + 1 == len(ids) or not is_own[t + 1])]
    starts = [0, *(t for t in range(1, len(ids)) if is_own[t] and not is_own[t - 1])]
    for start, end in zip(starts, ends, strict=True):
        if ids[end] == CHAT.terminator_id:
            length = len(CHAT.decode(ids[start : end + 1]))
            paid[end] += 0.5 * (length % 3) - 0.125 * (length % 2)
    paid[len(ids) - 1] += 0.1 * num_written
    return paid


def test_ppo_carries_values_and_rewards_across_observations() -> None:
    found, models, _ = collect("ppo", gamma=GAMMA, lam=LAM, kl={"kl_coef": KL_COEF, "target": None})
    assert models.value is not None
    num_own = num_seen = 0
    for tree, branch, is_own in rows(found):
        ids = np.concatenate([tree.prompt_ids, branch.token_ids])
        own, ref = (logprobs_of(ids, scale=scale)[len(tree.prompt_ids) - 1 :] for scale in (1.0, 0.9))
        with torch.no_grad():
            values = models.value.head(plain(ids)[1])[len(tree.prompt_ids) - 1 : -1, 0].numpy()
        paid = paid_by_turns(branch, is_own, int(is_own.sum())) - KL_COEF * np.where(is_own, own - ref, 0.0)
        pieces = np.split(np.arange(len(ids) - len(tree.prompt_ids)), np.flatnonzero(np.diff(is_own.astype(int))) + 1)
        naive = advantages_over_turns(
            [(bool(is_own[p[0]]), [(values[t], paid[t]) for t in p]) for p in pieces], gamma=GAMMA, lam=LAM
        )
        for name, expected in (
            ("old_logprobs", own),
            ("ref_logprobs", ref),
            ("old_values", values),
            ("returns", np.array(naive) + values),
        ):
            assert len(branch.arrays[name]) == is_own.sum()
            assert branch.arrays[name] == pytest.approx(expected[is_own], abs=2e-3), name
        num_own, num_seen = num_own + int(is_own.sum()), num_seen + len(is_own)
    assert num_own < num_seen
    assert found.metrics["rl/length_tokens"] == pytest.approx(num_own / found.num_completions)


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_group_methods_give_all_own_tokens_of_a_rollout_one_advantage(algorithm: str) -> None:
    found, _, _ = collect(algorithm, kl={"kl_coef": 0.0, "target": None})
    for tree in found.trees:
        totals = [
            paid_by_turns(b, own, int(own.sum())).sum()
            for _, b, own in rows(Round(trees=[tree], metrics={}, kl_per_sequence=0.0, policy_version=0))
        ]
        mean, std = np.mean(totals), np.std(totals, ddof=1)
        for branch, total in zip(tree.branches, totals, strict=True):
            others = (sum(totals) - total) / (len(totals) - 1)
            expected = (total - mean) / (std + 1e-4) if algorithm == "grpo" else total - others
            assert branch.arrays["advantages"] == pytest.approx(np.full(branch.num_kept, expected), abs=1e-4)


def test_the_loss_counts_own_tokens_alone() -> None:
    found, models, config = collect("grpo", kl={"kl_coef": 0.0, "target": None, "where": "loss"})
    learner = make_learner(Models(policy=models.policy, temperature=1.0), get_algorithm(loss_name("grpo")), settings_of(config), config.training,
                           num_steps=1, largest=64, say=lambda _text: None)  # fmt: skip
    entropies: list[torch.Tensor] = []
    for tree, branch, is_own in rows(found):
        logprobs, _ = plain(np.concatenate([tree.prompt_ids, branch.token_ids]))
        entropy = -(logprobs.exp() * logprobs).sum(-1)[len(tree.prompt_ids) - 1 : -1]
        entropies.append(entropy[torch.from_numpy(is_own)])
    assert learner.step(found.trees)["rl/entropy"] == pytest.approx(float(torch.cat(entropies).mean()), abs=1e-3)
