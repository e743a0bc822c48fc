"""The models that take part in on-policy training, as the recipe's artifacts hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead.core.services import Services
from fairlead.models.heads import ScalarModel, load_head, new_value_head
from fairlead.models.load import CausalModel, load_policy
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
    """None for methods without one."""


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
    if config.method.has_values:  # it begins as the reward model, which already knows what will be scored
        start = load_policy(str(reward_folder or folder), device=services.device)
        value = new_value_head(prepare_model(start, config.training, seed=seed))
    return RolloutModels(policy=policy, reference=reference, reward=reward, value=value)
