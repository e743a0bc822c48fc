"""The section of the on-policy methods: each method's own defaults, what is refused, and what reaches its loss."""

from typing import Any

import pytest

from fairlead.core.config import parse_config, resolved
from fairlead.core.errors import ConfigError
from fairlead.policies.online_config import OnlineConfig, settings_of
from fairlead.policies.online_methods import METHODS, ONLINE_METHODS

ESTIMATORS = {
    "ppo": "gae", "grpo": "group_normalised", "dr_grpo": "group_centered", "dapo": "group_normalised", "gspo": "group_normalised",
    "cispo": "group_normalised", "rloo": "leave_one_out", "remax": "greedy_baseline", "reinforce_pp": "whitened_returns",
    "reinforce_pp_baseline": "whitened_group_centered",
}  # fmt: skip


ESTIMATORS |= dict.fromkeys(
    ("online_dpo", "online_ipo", "best_of_n", "expert_iteration"), "gae"
)  # which nobody asks for


JUDGED = {"components": {"judge": {"type": "judge"}}}


def made(**given: Any) -> OnlineConfig:
    return parse_config(OnlineConfig, given)


@pytest.mark.parametrize("method", ONLINE_METHODS)
def test_every_method_has_defaults_that_load_back(method: str) -> None:
    config = made(algorithm=method)
    assert config.estimator == ESTIMATORS[method] and set(METHODS) == set(ONLINE_METHODS) == set(ESTIMATORS)
    assert parse_config(OnlineConfig, resolved(config)) == config
    settings = settings_of(config)
    in_loss = config.kl.kl_coef if config.kl.where == "loss" else 0.0
    assert getattr(settings, "kl_coef", 0.0) == in_loss
    assert (config.batch_size % config.minibatch_size == 0 and config.group_size > 1) or not config.needs_group


def test_values_of_the_papers() -> None:
    assert (made(algorithm="dapo").clip_high, made(algorithm="dapo").max_resamples) == (0.28, 10)
    assert (made(algorithm="gspo").clip_low, made(algorithm="gspo").clip_high) == (3e-4, 4e-4)
    grpo = made(algorithm="grpo")
    assert (grpo.kl.kl_coef, grpo.kl.where, grpo.kl.target, grpo.num_epochs, grpo.minibatch_size) == (
        0.04,
        "loss",
        None,
        1,
        64,
    )
    assert made(algorithm="rloo").kl.where == "reward"
    assert made(algorithm="remax").needs_greedy and not made(algorithm="rloo").needs_greedy


def test_a_value_that_is_given_stands_and_leaves_the_others_to_the_method() -> None:
    config = made(algorithm="grpo", kl={"kl_coef": 0.1}, group_size=4)
    assert (config.kl.kl_coef, config.kl.where, config.group_size, config.minibatch_size) == (0.1, "loss", 4, 64)
    assert settings_of(config).kl_coef == 0.1


@pytest.mark.parametrize(
    ("method", "given", "size"),
    [("ppo", {}, 16), ("ppo", {"batch_size": 6}, 1), ("grpo", {}, 64), ("grpo", {"batch_size": 24}, 24), ("dapo", {}, 16),
     ("gspo", {"batch_size": 24}, 8), ("gspo", {"batch_size": 64, "group_size": 32}, 32), ("rloo", {"minibatch_size": 4}, 4)],
)  # fmt: skip
def test_an_optimiser_step_follows_the_round_where_it_is_not_given(
    method: str, given: dict[str, Any], size: int
) -> None:
    assert made(algorithm=method, **given).minibatch_size == size


def test_dr_grpo_divides_by_the_longest_completion_and_rloo_does_not() -> None:
    assert settings_of(made(algorithm="dr_grpo", max_new_tokens=77)).constant_length == 77
    assert settings_of(made(algorithm="dr_grpo", options={"constant_length": 5})).constant_length == 5
    assert settings_of(made(algorithm="rloo", max_new_tokens=77)).constant_length == 1


def test_composed_rewards_bring_their_own_penalties() -> None:
    rewards = {"components": {"short": {"type": "rule", "rule": {"kind": "length_penalty", "max_tokens": 9}}}}
    for method in ("ppo", "grpo"):
        config = made(algorithm=method, rewards=rewards)
        assert (config.missing_eos_penalty, config.score_clip, config.length_coef) == (0.0, None, 0.0)
        assert made(algorithm=method).missing_eos_penalty == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithm": "grpo", "group_size": 1}, "group_size=1 gives zero advantages with grpo; expected >= 2."),
        ({"algorithm": "grpo", "batch_size": 60}, "batch_size=60 cuts a group"),
        ({"algorithm": "grpo", "minibatch_size": 12}, "minibatch_size=12 cuts a group of completions of one prompt"),
        ({"algorithm": "grpo", "lam": 0.9}, "lam=0.9 is not read by grpo"),
        ({"algorithm": "remax", "rewards": JUDGED}, "compares completions of one prompt, and remax has a greedy baseline"),
        ({"algorithm": "ppo", "rewards": JUDGED}, "compares completions of one prompt, and ppo has one completion a prompt"),
        ({"algorithm": "rloo", "value_coef": 0.5}, "value_coef=0.5 is not read by rloo"),
        ({"algorithm": "ppo", "options": {"dual_clp": 3}}, "options.dual_clp=3.0 is not a setting of ppo (did you mean dual_clip?)"),
        ({"algorithm": "ppo", "options": {"dual_clip": 0.5}}, "options.dual_clip=0.5 cuts ordinary tokens"),
        ({"algorithm": "grpo", "options": {"kl_coef": 0.5}}, "options.kl_coef=0.5 is a key of its own; expected kl.kl_coef"),
        ({"algorithm": "grpo", "options": {"clip_high": 0.5}}, "options.clip_high=0.5 is a key of its own; expected clip_high beside algorithm"),
        ({"algorithm": "ppo", "kl": {"schedule": {"shape": "linear", "start": 0.1, "end": 0.0}}}, "kl: target=6.0 contradicts schedule"),
        ({"algorithm": "ppo", "kl": {"low": 0.5, "high": 0.1, "kl_coef": 0.3}}, "kl: low=0.5 is above high at the first step; expected <= 0.1"),
        ({"algorithm": "ppo", "kl": {"low": {"shape": "step", "start": 0.0, "end": 20.0}}}, "kl: low=20.0 is above high at the last step"),
        ({"algorithm": "ppo", "kl": {"kl_coef": 50.0}}, "kl: kl_coef=50.0 is outside its own bounds; expected 0 (low) to 10 (high)"),
        ({"algorithm": "ppo", "kl": {"low": 0.3}}, "kl: kl_coef=0.2 is outside its own bounds; expected 0.3 (low) to 10 (high)"),
        ({"algorithm": "grpo", "kl": {"high": 0.1}}, "kl: high=0.1 bounds the adaptive controller, and there is none; expected a target"),
        ({"algorithm": "ppo", "max_resamples": 3}, "max_resamples=3 would take every prompt for one that teaches nothing"),
        ({"algorithm": "remax", "max_resamples": 3}, "expected 0, or group_size >= 2"),
        ({"algorithm": "online_dpo", "kl": {"where": "loss"}}, "kl.where=loss is not read by online_dpo"),
        ({"algorithm": "ppo", "minibatch_size": 128}, "minibatch_size=128 is larger than a round"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_remedy(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**given)
    assert message in str(caught.value)


def test_what_a_group_and_a_discount_are_for_follows_the_estimator_and_not_the_name_of_the_method() -> None:
    with pytest.raises(ConfigError, match=r"group_size=1 gives zero advantages with reinforce_pp"):
        made(algorithm="reinforce_pp", options={"advantages": "group_normalised"})
    assert not made(algorithm="reinforce_pp").needs_group and made(algorithm="online_dpo").needs_group
    assert made(algorithm="reinforce_pp", gamma=0.9).gamma == 0.9 and made(algorithm="ppo", lam=0.9).lam == 0.9
    for changes in ({"algorithm": "reinforce_pp", "lam": 0.9}, {"algorithm": "grpo", "gamma": 0.9}):
        with pytest.raises(ConfigError, match="is not read by"):
            made(**changes)


def test_an_averaging_of_its_own_leaves_out_the_fixed_length() -> None:
    assert settings_of(made(algorithm="dr_grpo")).constant_length == made(algorithm="dr_grpo").max_new_tokens
    assert settings_of(made(algorithm="dr_grpo", options={"aggregation": "token_mean"})).aggregation == "token_mean"


def test_cut_completions_are_left_out_where_advantages_are_learned_from() -> None:
    assert not made(algorithm="grpo", learns_from_cut=False).learns_from_cut
    with pytest.raises(ConfigError, match=r"learns_from_cut=False is not read by best_of_n"):
        made(algorithm="best_of_n", learns_from_cut=False)


@pytest.mark.parametrize(
    ("method", "is_fine"), [("grpo", True), ("rloo", True), ("ppo", False), ("remax", False), ("reinforce_pp", False)]
)
def test_rewards_normalised_within_groups_are_for_methods_that_compare_groups(method: str, is_fine: bool) -> None:
    section = {
        "combine": "normalise_then_sum", "components": {"short": {"type": "rule", "rule": {"kind": "max_words", "max": 9}}},
    }  # fmt: skip
    if is_fine:
        assert made(algorithm=method, group_size=4, rewards=section).rewards is not None
    else:
        with pytest.raises(ConfigError, match=r"rewards\.combine=normalise_then_sum gives advantages"):
            made(algorithm=method, group_size=4, rewards=section)
