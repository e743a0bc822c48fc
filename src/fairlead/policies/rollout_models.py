"""The models that take part in on-policy training, as the recipe's artifacts hold them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairlead.core.errors import ConfigError, ModelError, explain
from fairlead.core.services import Services
from fairlead.engine.local import why_not_sampled
from fairlead.models.arithmetic import Precision
from fairlead.models.frozen import load_frozen
from fairlead.models.heads import ScalarModel, new_value_head
from fairlead.models.load import CausalModel, load_policy, load_tokenizer
from fairlead.models.precision import choose_precision
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
    plain = load_policy(folder, device=services.device)
    plain.set_precision(choose_rollout_precision(config, plain, services))
    if (precision := plain.arithmetic.precision) != "fp32":
        services.say(f"Products are computed in {precision}, weights are kept in fp32 (training.precision).")
    policy = prepare_model(plain, config.training, seed=seed)
    reference = reward = value = None
    if config.training.lora is None:
        reference = load_policy(folder, device=services.device, precision=precision)
        reference.module.requires_grad_(False)
    if config.rewards is None:
        assert reward_folder is not None, "the recipe trains a reward model"
        reward = load_frozen(
            reward_folder, device=services.device, policy=precision, machine_file=services.extras.get("machine_file")
        )
        reward.uncertainty_coef = config.uncertainty_coef
    if config.value_model == "shared":
        value = new_value_head(policy)
    elif config.method.has_values:  # it begins as the reward model, which already knows what will be scored
        start = load_policy(str(reward_folder or folder), device=services.device, precision=precision)
        value = new_value_head(prepare_model(start, config.training, seed=seed))
    base = _load_base(inputs, services, precision) if config.perplexity_model == "base" else None
    return RolloutModels(policy=policy, reference=reference, reward=reward, value=value, base=base)


def choose_rollout_precision(config: OnlineConfig, policy: CausalModel, services: Services) -> Precision:
    """What policy, reference and value model compute in: as `choose_precision` says, where the engine follows.

    Raises:
        ConfigError: bf16 was asked for, and this machine, this model's engine, or a GPU has none.
    """
    wanted = config.training.precision
    on_cpu = policy.device.type == "cpu"
    if wanted == "auto" and (config.old_logprobs == "engine" or not on_cpu):
        return "fp32"
    if wanted == "bf16" and not on_cpu:
        raise _no_bf16("is computed on CPUs alone by on-policy methods")
    found = choose_precision(wanted, policy, machine_file=services.extras.get("machine_file"))
    if found == "fp32" or config.engine.kind != "local":
        return found
    why = why_not_sampled(policy, "fp32" if config.engine.precision == "fp32" else "bf16")
    if why is not None and wanted == "bf16":
        raise _no_bf16(f"needs an engine that follows ({why})")
    return found if why is None else "fp32"


def _no_bf16(wrong: str) -> ConfigError:
    return ConfigError(explain("training.precision", "bf16", wrong, expected="fp32 or auto", remedy="Change training.precision"))  # fmt: skip


def _load_base(inputs: Mapping[str, Path], services: Services, precision: Precision) -> CausalModel | None:
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
    base = load_policy(str(folder), device=services.device, precision=precision)
    base.module.requires_grad_(False)
    return base
