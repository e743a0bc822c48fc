"""With LoRA, PPO trains adapters and the value head and nothing else, on the policy's side and on the value model's."""

from typing import Any, cast

import numpy as np
import pytest
import torch

import tiny_models
from fairlead.algos import get_algorithm
from fairlead.core.errors import ModelError
from fairlead.core.services import Services
from fairlead.models.heads import new_reward_head, save_head
from fairlead.policies.collect import Collector
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.rollout_models import RolloutModels, load_rollout_models
from fairlead.text import Branch, Tree, pack_trees
from fairlead.train.budget import PlainBudget
from fairlead.train.forward import Models, PolicyLogprobs, annotate
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


@pytest.mark.parametrize("old", ["engine", "trainer"])
def test_the_engine_is_compared_on_one_completion_a_prompt_or_on_all_where_they_are_computed(old):
    """The engine is 0.1 off in first completions and 0.4 in second ones: 0.1, or (0.1 + 0.4) / 2 where the trainer's are at hand."""
    model = tiny_models.load("llama")
    config = OnlineConfig.model_validate({"algorithm": "grpo", "old_logprobs": old, "group_size": 2})
    collector = Collector(config=config, models=RolloutModels(policy=model, reference=None, reward=None, value=None), sampler=cast(Any, None),
                          estimator="group_normalised", budget=PlainBudget(64), heed=lambda: None)  # fmt: skip
    trees = [Tree(prompt_ids=np.array([1, 9, p]), branches=(Branch(token_ids=np.array([7, 30, 5])), Branch(token_ids=np.array([8, 5]))))
             for p in (3, 4)]  # fmt: skip
    trees = annotate(trees, "old_logprobs", PolicyLogprobs(model, 1.0), max_tokens=64)
    off = [0.1] * 3 + [0.4] * 2
    for tree in trees:
        for branch, gaps in zip(tree.branches, (off[:3], off[3:]), strict=True):
            branch.arrays["sampling_logprobs"] = branch.arrays["old_logprobs"] + np.array(gaps, dtype=np.float32)
    found = collector._sampling_signals(trees)
    assert found["rl/sampling_gap"] == pytest.approx(0.1 if old == "engine" else sum(off) / 5, abs=1e-5)


def test_a_base_model_is_loaded_where_it_is_another_and_refused_where_it_reads_other_tokens(tmp_path):
    start, said = tiny_models.folder("llama"), []
    config = OnlineConfig.model_validate({"algorithm": "grpo", "perplexity_model": "base"})
    head = tmp_path / "reward"
    tiny_models.load("llama").module.save_pretrained(head)
    tiny_models.make_tokenizer().save_pretrained(head)
    save_head(new_reward_head(tiny_models.load("llama"), seed=0), head)
    services = Services(work=tmp_path, say=said.append)

    def base(folder):
        return load_rollout_models(config, {"policy": start, "rewards": head, "base": folder}, services).base

    found = base(tiny_models.folder("qwen2"))
    assert found is not None and not any(p.requires_grad for p in found.module.parameters()) and said == []
    assert base(start) is None and "is its reference" in said[0]
    tokenizer = tiny_models.make_tokenizer()
    tokenizer.add_tokens(["<other>"])
    tiny_models.load("llama").module.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="perplexity_model=base reads other tokens than the policy writes"):
        base(tmp_path / "other")
