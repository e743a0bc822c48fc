"""The shared properties hold for every registered method, and each of them can fail."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import ALGORITHMS, AOT, BCO, CISPO, DPO, PPO, REWARD, SFT
from fairlead.algos.checks import check_algorithm
from fairlead.algos.cispo import CISPOConfig
from fairlead.algos.dpo import IPOConfig
from fairlead.algos.grpo import GRPOConfig
from fairlead.algos.gspo import GSPOConfig
from fairlead.algos.ppo import PPOConfig
from fairlead.algos.reward import RewardConfig
from fairlead.algos.sft import SFTConfig
from fairlead.algos.spec import Loss, pair_rows, sum_by_sequence

_VARIANTS = {
    "sft": [
        SFTConfig(average="sequence"),
        SFTConfig(label_smoothing=0.1),
        SFTConfig(average="sequence", label_smoothing=0.2),
    ],
    "reward": [RewardConfig(ties="davidson"), RewardConfig(ties="rao_kupper", center_coef=0.0)],
    "ipo": [IPOConfig(average=False)],
    "ppo": [
        PPOConfig(entropy_coef=0.01, dual_clip=1.5, clip_high=0.28),
        PPOConfig(value_clip=None, value_coef=1.0),
        PPOConfig(value_coef=0.0),
        PPOConfig(kl_coef=0.1, aggregation="sequence_mean"),
    ],
    "grpo": [
        GRPOConfig(kl_coef=0.0),
        GRPOConfig(kl_coef=1.0, aggregation="token_mean", entropy_coef=0.1),
        GRPOConfig(aggregation="constant_length", constant_length=7, dual_clip=3.0),
    ],
    "gspo": [GSPOConfig(clip_low=0.2, clip_high=0.2, kl_coef=0.1)],
    "cispo": [CISPOConfig(clip_low=0.2, clip_high=0.28, kl_coef=0.1)],
}
_SUITE = [
    pytest.param(check, id=f"{algorithm.name}-{number}-{name}")
    for algorithm in ALGORITHMS
    for number, config in enumerate([algorithm.config(), *_VARIANTS.get(algorithm.name, [])])
    for name, check in check_algorithm(algorithm, config)
]


@pytest.mark.parametrize("check", _SUITE)
def test_registered_methods_have_the_shared_properties(check):
    check()


@given(seed=st.integers(0, 2**31), algorithm=st.sampled_from(ALGORITHMS))
def test_shared_properties_hold_for_any_batch(seed, algorithm):
    for name, check in check_algorithm(algorithm, seed=seed):
        if name != "gradient_is_that_of_the_loss":  # a random point may lie on a clip's edge
            check()


def _mean(batch, config):
    result = DPO.loss(batch, config)
    return Loss(total=result.total / DPO.count(batch, config), metrics={})


def _masked_by_multiplication(batch, config):
    ratios = sum_by_sequence(batch.logprobs - batch.ref_logprobs, batch.sequence_index, batch.group_index.numel())
    chosen, rejected = pair_rows(batch)
    losses = -torch.nn.functional.logsigmoid(config.beta * (ratios[chosen] - ratios[rejected]))
    return Loss(total=(losses * batch.weights).sum())


def _metric_with_graph(batch, config):
    total = DPO.loss(batch, config).total
    return Loss(total=total, metrics={"dpo/loss": (total, total)})


def _wrong_gradient(batch, config):
    result = DPO.loss(batch, config)
    return Loss(total=result.total.detach() + 2 * (result.total - result.total.detach()))


def _reads_row_order(batch, config):
    return Loss(total=DPO.loss(batch, config).total + batch.logprobs[0])


def _overflows(batch, config):
    return Loss(total=(batch.logprobs - batch.ref_logprobs).exp().sum())


def _writes(batch, config):
    result = DPO.loss(batch, config)
    batch.weights.mul_(1.5)
    return result


def _ranks_by_place(batch, config):
    return {"at": torch.arange(batch.num_groups).double()}


def _sorts_the_microbatch(batch, config):
    return AOT.loss(replace(batch, statistics=AOT.statistics(batch, config)), config)


def _multiplies_by_the_correction(batch, config):
    ratios = (batch.logprobs - batch.old_logprobs).exp()
    return Loss(total=-(batch.weights[batch.sequence_index] * batch.correction * ratios * batch.advantages).sum())


def _doubles_the_gradient(batch, config):
    result = PPO.loss(batch, config)
    return Loss(total=result.total.detach() + 2 * (result.total - result.total.detach()))


def _reads_scores(batch, config):
    return Loss(total=DPO.loss(batch, config).total + (0.0 if batch.scores is None else batch.scores.sum()))


@pytest.mark.parametrize(
    ("property_name", "broken"),
    [
        ("microbatches_sum_to_the_whole", replace(DPO, loss=_mean)),
        ("absent_units_are_inert", replace(DPO, loss=_masked_by_multiplication)),
        ("metrics_carry_no_gradient", replace(DPO, loss=_metric_with_graph)),
        ("gradient_is_that_of_the_loss", replace(DPO, loss=_wrong_gradient)),
        ("order_of_tokens_is_inert", replace(DPO, loss=_reads_row_order)),
        ("order_of_units_is_inert", replace(DPO, loss=_reads_row_order)),
        ("extremes_stay_finite", replace(DPO, loss=_overflows)),
        ("inputs_are_left_alone", replace(DPO, loss=_writes)),
        ("unread_tensors_are_inert", replace(DPO, loss=_reads_scores)),
        (
            "statistics_are_of_the_whole_batch",
            replace(BCO, statistics=lambda batch, config: {"delta": batch.logprobs.mean()}),
        ),
        ("statistics_are_of_the_whole_batch", replace(AOT, statistics=_ranks_by_place)),
        ("microbatches_sum_to_the_whole", replace(AOT, loss=_sorts_the_microbatch)),
        ("masked_tokens_are_inert", replace(CISPO, loss=_multiplies_by_the_correction)),
        ("gradient_is_that_of_the_loss", replace(PPO, loss=_doubles_the_gradient)),
        ("gradient_is_that_of_the_loss", replace(CISPO, holds_fixed=None)),
        ("count_ignores_the_model", replace(DPO, count=lambda batch, config: batch.logprobs.detach().abs().sum())),
    ],
)
def test_each_property_catches_the_fault_it_is_for(property_name, broken):
    check = dict(check_algorithm(broken))[property_name]
    with pytest.raises((AssertionError, RuntimeError)):
        check()


def test_settings_switch_needs_on():
    assert SFT.needs_for(SFTConfig()) == frozenset()
    assert SFT.needs_for(SFTConfig(label_smoothing=0.1)) == {"mean_logprobs"}
    assert REWARD.needs_for(RewardConfig()) == {"scores"}
    assert PPO.needs_for(PPOConfig()) == {"values", "entropy"}
