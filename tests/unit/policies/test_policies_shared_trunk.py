"""PPO with the value head on the policy's trunk: one forward and one loss do what two would, an adapter leaves the head to be trained in full,
memory is that of one model, and a run that stops anywhere ends with the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from online_example import make_loop, rows, run

import tiny_models
from fairlead.algos import PPO
from fairlead.algos.ppo import PPOConfig
from fairlead.core.errors import Interrupted
from fairlead.core.sections import TrainSection
from fairlead.core.services import Services
from fairlead.models.heads import ScalarModel, new_reward_head, new_value_head, save_head
from fairlead.policies.online_config import OnlineConfig
from fairlead.policies.rollout_models import load_rollout_models
from fairlead.text import Branch, Tree, pack_trees
from fairlead.train.batches import make_microbatches
from fairlead.train.forward import LogprobsAndValues, Models, PolicyLogprobs, StateValues, annotate, run_forward
from fairlead.train.setup import make_learner, training_need

NAMES = ("old_logprobs", "ref_logprobs", "advantages", "old_values", "returns")


def rollouts(num: int = 4) -> list[Tree]:
    rng = np.random.default_rng(0)
    return [
        Tree(prompt_ids=np.array([1, 9, 8]), branches=tuple(
            Branch(token_ids=ids, arrays={n: rng.normal(size=len(ids)).astype(np.float32) - 3 * (n == "old_logprobs") for n in NAMES})
            for ids in (np.array([7, 30, 5]), np.array([11, 12, 40, 41])[: 2 + i % 3])))
        for i in range(num)
    ]  # fmt: skip


def shared() -> Models:
    """With a head that says something."""
    policy = tiny_models.load("llama")
    value = new_value_head(policy)
    with torch.no_grad():
        value.head.weight.copy_(0.1 * torch.randn(value.head.weight.shape, generator=torch.Generator().manual_seed(0)))
    return Models(policy=policy, value=value)


def loss_of(models: Models, config: PPOConfig) -> torch.Tensor:
    (batch,) = make_microbatches(rollouts(), max_tokens=8192)
    return PPO.loss(run_forward(models, batch, PPO, config), config).total


def gradients(models: Models, total: torch.Tensor) -> list[torch.Tensor]:
    assert models.policy is not None and models.value is not None
    parameters = [*models.policy.module.parameters(), *models.value.head.parameters()]
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def test_the_gradient_is_that_of_two_losses_on_one_trunk() -> None:
    """The policy's loss from its own forward, plus value_coef times the value loss from another one, each by autograd."""
    models = shared()
    together = gradients(models, loss_of(models, PPOConfig(value_coef=0.7, value_clip=None)))
    alone = gradients(models, loss_of(models, PPOConfig(value_coef=0.0)))
    assert models.value is not None
    (batch,) = make_microbatches(rollouts(), max_tokens=8192)
    errors = models.value.values(batch.layout) - batch.per_token("returns")
    beside = gradients(models, 0.7 * 0.5 * errors.square().sum())
    for one, policy, value in zip(together, alone, beside, strict=True):
        torch.testing.assert_close(one, policy + value, rtol=1e-4, atol=1e-5)
    assert max(float(g.abs().max()) for g in alone[:-1]) > 0.01 < max(float(g.abs().max()) for g in beside[:-1])
    assert float(alone[-1].abs().max()) == 0.0 < float(beside[-1].abs().max()), "the head learns from the values alone"


def test_logprobs_and_values_come_from_one_forward_and_are_those_of_two() -> None:
    models = shared()
    policy, value = models.policy, models.value
    assert policy is not None and value is not None
    trees = rollouts()
    apart = annotate(trees, "a", PolicyLogprobs(policy, 0.7), max_tokens=20)
    apart = annotate(apart, "b", StateValues(value), max_tokens=20)
    calls = list[int]()
    policy.backbone.register_forward_hook(lambda *_: calls.append(1))
    loss_of(models, PPOConfig())
    assert len(calls) == 1
    one = annotate(trees, ("a", "b"), LogprobsAndValues(policy, value, 0.7), max_tokens=20)
    assert len(calls) == 1 + len(make_microbatches(trees, max_tokens=20))
    for left, right in zip(apart, one, strict=True):
        for name in ("a", "b"):
            for x, y in zip(left.branches, right.branches, strict=True):
                np.testing.assert_array_equal(x.arrays[name], y.arrays[name])


def test_with_an_adapter_the_head_is_trained_in_full_and_the_reference_does_not_see_it(tmp_path: Path) -> None:
    model = tiny_models.load("llama")
    model.module.save_pretrained(tmp_path)  # pyright: ignore[reportCallIssue]
    tiny_models.make_tokenizer().save_pretrained(tmp_path)
    save_head(new_reward_head(model, seed=0), tmp_path)
    section = {"value_model": "shared", "training": {"lora": {"rank": 2}, "learning_rate": 0.01}}
    config = OnlineConfig.model_validate(section)
    loaded = load_rollout_models(config, {"policy": tmp_path, "rewards": tmp_path}, Services(work=tmp_path))
    assert loaded.value is not None and loaded.value.base is loaded.policy
    learner = make_learner(
        Models(policy=loaded.policy, value=loaded.value),
        PPO,
        PPO.config(),
        config.training,
        num_steps=3,
        largest=1,
        say=print,
    )
    before = {name: p.detach().clone() for name, p in named(loaded.policy.module, loaded.value).items()}
    for _ in range(3):
        learner.step(rollouts())
    after = named(loaded.policy.module, loaded.value)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_" in name or name == "head"} == set_of_names(learner.trainable)
    layout = pack_trees(rollouts())
    with torch.no_grad(), loaded.policy.module.disable_adapter():  # pyright: ignore[reportCallIssue]
        np.testing.assert_array_equal(
            loaded.policy.logprobs(layout).logprobs, tiny_models.load("llama").logprobs(layout).logprobs
        )


def named(module: torch.nn.Module, value: ScalarModel) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), "head": value.head.weight}


def set_of_names(trainable: dict[str, torch.nn.Parameter]) -> set[str]:
    return {"head" if name == "value.head.weight" else name.removeprefix("policy.") for name in trainable}


def test_memory_is_that_of_the_policy_and_a_head() -> None:
    section = TrainSection()
    policy = tiny_models.load("llama")
    alone = training_need(Models(policy=policy), section, largest=64)
    one = training_need(Models(policy=policy, value=new_value_head(policy)), section, largest=64)
    two = training_need(Models(policy=policy, value=new_value_head(tiny_models.load("llama"))), section, largest=64)
    head = policy.hidden_size
    assert one.per_token == alone.per_token < two.per_token and one.chunk == alone.chunk
    assert one.weights - alone.weights == 4 * head and one.states - alone.states == 24 * head
    assert two.weights == 2 * alone.weights + 4 * head and two.states == 2 * alone.states + 24 * head


def stop(folder: Path, step: int, **changes: Any) -> None:
    loop = make_loop(folder, "ppo", services={"should_stop": lambda: loop.learner.step_number >= step}, **changes)
    with pytest.raises(Interrupted):
        run(loop)


@pytest.mark.parametrize("old", ["engine", "trainer"])
def test_a_run_that_stops_anywhere_ends_with_the_same_bits(old: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"value_model": "shared", "old_logprobs": old}
    whole = run(make_loop(tmp_path / "whole", "ppo", **changes))
    head = whole.learner.trainable["value.head.weight"]
    assert float(head.detach().abs().max()) > 0 and not any(n.startswith("value.base") for n in whole.learner.trainable)
    for stop_at in (1, whole.steps_per_round, 2 * whole.steps_per_round + 1):
        folder = tmp_path / str(stop_at)
        stop(folder, stop_at, **changes)
        again = run(make_loop(folder, "ppo", **changes))
        assert again.session.resumed_from == stop_at
        for name, parameter in whole.learner.trainable.items():
            assert torch.equal(parameter, again.learner.trainable[name]), name
        assert rows(folder) == rows(tmp_path / "whole")


def test_a_checkpoint_of_one_kind_is_not_gone_on_with_by_the_other(tmp_path: Path) -> None:
    kinds = [
        make_loop(tmp_path / kind, "ppo", value_model=kind).learner.identity(data="") for kind in ("separate", "shared")
    ]
    assert kinds[0] != kinds[1]


def test_its_first_ratio_is_one_and_its_values_are_learned(tmp_path: Path) -> None:
    run(make_loop(tmp_path, "ppo", value_model="shared", num_iterations=6, value_coef=1.0))
    found = rows(tmp_path)
    assert found[0]["rl/first_ratio_gap"] < 1e-3
    assert found[0]["rl/values_mean"] != found[-1]["rl/values_mean"]


def test_methods_without_values_refuse_the_key() -> None:
    with pytest.raises(ValueError, match="value_model=shared is not read by grpo"):
        OnlineConfig.model_validate({"algorithm": "grpo", "value_model": "shared"})
