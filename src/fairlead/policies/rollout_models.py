"""The models that take part in on-policy training, as the recipe's artifacts hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead.core.errors import ModelError, explain
from fairlead.core.services import Services
from fairlead.models.heads import ScalarModel, load_head, new_value_head
from fairlead.models.load import CausalModel, load_policy, load_tokenizer
from fairlead.policies.online_config import OnlineConfig
from fairlead.train.setup import prepare_model


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutModels:
    """Who takes part in a round."""

    policy: CausalModel
    reference: CausalModel | None
    """None when the policy carries an adapter: switched off, it is the reference."""
    reward: ScalarModel | None
    """None where no reward model scores."""
    value: ScalarModel | None
    """None for methods without one; its base is the policy where it shares the policy's trunk."""
    base: CausalModel | None = None
    """The model before any training, where its perplexity is watched and it is not the reference itself."""


def load_rollout_models(config: OnlineConfig, inputs: Mapping[str, Path], services: Services) -> RolloutModels:
    """Those that take part; a composed reward brings its own."""
    folder, reward_folder = str(inputs["policy"]), inputs.get("rewards")
    seed = services.seed
    policy = prepare_model(load_policy(folder, device=services.device), config.training, seed=seed)
    reference = reward = value = None
    if config.training.lora is None:
        reference = load_policy(folder, device=services.device)
        reference.module.requires_grad_(False)
    if config.rewards is None:
        assert reward_folder is not None, "the recipe trains a reward model"
        reward = load_head(load_policy(str(reward_folder), device=services.device), reward_folder)
        reward.base.module.requires_grad_(False)
        reward.uncertainty_coef = config.uncertainty_coef
    if config.value_model == "shared":
        value = new_value_head(policy)
    elif config.method.has_values:  # it begins as the reward model, which already knows what will be scored
        start = load_policy(str(reward_folder or folder), device=services.device)
        value = new_value_head(prepare_model(start, config.training, seed=seed))
    base = _load_base(inputs, services) if config.perplexity_model == "base" else None
    return RolloutModels(policy=policy, reference=reference, reward=reward, value=value, base=base)


def _load_base(inputs: Mapping[str, Path], services: Services) -> CausalModel | None:
    """The base model, frozen; None when the policy starts from it, so that it is the reference.

    Raises:
        ModelError: it reads other tokens than the policy writes.
    """
    folder, start = inputs["base"], inputs["policy"]
    if folder == start:
        services.say("perplexity_model: the policy starts from the base model, which is its reference.")
        return None
    if load_tokenizer(str(folder)).get_vocab() != load_tokenizer(str(start)).get_vocab():
        raise ModelError(explain("perplexity_model", "base", "reads other tokens than the policy writes", expected="the tokenizer of the policy",
                                 remedy="Use perplexity_model: reference"))  # fmt: skip
    base = load_policy(str(folder), device=services.device)
    base.module.requires_grad_(False)
    return base
