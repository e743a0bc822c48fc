"""With LoRA, PPO trains adapters and the value head and nothing else, on the policy's side and on the value model's."""

import numpy as np
import pytest
import torch

import tiny_models
from fairlead.algos import get_algorithm
from fairlead.core.services import Services
from fairlead.models.heads import new_reward_head, save_head
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.rollout_models import load_rollout_models
from fairlead.text import Branch, Tree, pack_trees
from fairlead.train.forward import Models
from fairlead.train.setup import make_learner


@pytest.fixture
def models(tmp_path):
    """Policy and value model as the stage loads them, and the tensors by name."""
    model = tiny_models.load("llama")
    model.module.save_pretrained(tmp_path)
    tiny_models.make_tokenizer().save_pretrained(tmp_path)
    save_head(new_reward_head(model, seed=0), tmp_path)
    config = OnlineConfig.model_validate({"training": {"lora": {"rank": 2}, "learning_rate": 0.01}})
    inputs = {"policy": tmp_path, "rewards": tmp_path}
    return config, load_rollout_models(config, inputs, Services(work=tmp_path))


def tensors(models):
    """Name -> tensor of everything that could train."""
    named = {f"policy.{n}": p for n, p in models.policy.module.named_parameters()}
    named |= {f"value.{n}": p for n, p in models.value.base.module.named_parameters()}
    return named | {f"head.{n}": p for n, p in models.value.head.named_parameters()}


def rollouts():
    rng = np.random.default_rng(0)
    names = ("old_logprobs", "ref_logprobs", "advantages", "old_values", "returns")
    return [
        Tree(prompt_ids=np.array([1, 9, 8]), branches=(Branch(token_ids=np.array([7, 30, 5]), arrays={n: rng.normal(size=3) for n in names}),))
        for _ in range(2)
    ]  # fmt: skip


def test_only_adapters_and_the_head_train(models):
    config, loaded = models
    learner = make_learner(Models(policy=loaded.policy, value=loaded.value), get_algorithm("ppo"), get_algorithm("ppo").config(),
                           config.training, num_steps=3, largest=1, say=print)  # fmt: skip
    before = {name: p.detach().clone() for name, p in tensors(loaded).items()}
    for _ in range(
        3
    ):  # the head starts at zero, then the outer half of an adapter does: each keeps the next still for a step
        learner.step(rollouts())
    moved = {name for name, p in tensors(loaded).items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if "lora_" in name or name.startswith("head.")}
    for part in ("policy", "value", "head"):
        assert any(name.startswith(part) for name in moved)
    assert len(learner.parameters) == len(moved)


def test_the_value_model_starts_as_the_reward_model(models):
    _, loaded = models
    layout = pack_trees(rollouts())
    with torch.no_grad():
        assert torch.equal(loaded.value.base.hidden(layout), loaded.reward.base.hidden(layout))
        assert (loaded.value.values(layout) == 0).all()
