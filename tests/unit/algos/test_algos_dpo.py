"""The DPO family."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos import CDPO, DPO, IPO, ROBUST
from fairlead.algos.dpo import DPOConfig, FlipConfig, IPOConfig, robust_link, sigmoid_link, smoothed_link, squared_link
from fairlead.algos.random_batches import random_batch
from fairlead.algos.spec import GroupBatch
from fairlead.core.errors import ConfigError
from naive import dpo_naive as naive

_MARGINS = st.floats(-30, 30)
_LABELS = st.floats(0, 1)


def _pair(chosen, rejected, **optional):
    """One pair from two lists of token log-ratios; the reference is 0 everywhere."""
    ratios = torch.tensor([*chosen, *rejected], dtype=torch.float64)
    return GroupBatch(
        sequence_index=torch.tensor([0] * len(chosen) + [1] * len(rejected)),
        group_index=torch.tensor([0, 0]),
        ranks=torch.tensor([0, 1]),
        num_groups=1,
        logprobs=ratios,
        ref_logprobs=torch.zeros_like(ratios),
        **optional,
    )


def _value(algorithm, batch, config):
    return float(algorithm.loss(batch, config).total / algorithm.count(batch, config))


def _link(link, h, p, config):
    return float(link(torch.tensor([h], dtype=torch.float64), torch.tensor([p], dtype=torch.float64), config))


def test_a_pair_by_hand():
    """Chosen log-ratios 1 + 2, rejected 1: h = 2; -log sigma(0.1 * 2) = log(1 + e^-0.2) = 0.598139."""
    assert _value(DPO, _pair([1.0, 2.0], [1.0]), DPOConfig(beta=0.1)) == pytest.approx(0.598139, abs=1e-6)


def test_ipo_averages_over_tokens_unless_told_otherwise():
    """Goal 1 / (2 * 0.5) = 1. Means 1.5 and 1: (0.5 - 1)^2 = 0.25. Sums 3 and 1: (2 - 1)^2 = 1."""
    batch = _pair([1.0, 2.0], [1.0])
    assert _value(IPO, batch, IPOConfig(beta=0.5)) == pytest.approx(0.25)
    assert _value(IPO, batch, IPOConfig(beta=0.5, ipo_average=False)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("algorithm", "config", "expected"),
    [
        (DPO, DPOConfig(beta=0.3), math.log(2)),
        (CDPO, FlipConfig(flip_rate=0.2), math.log(2)),
        (ROBUST, FlipConfig(flip_rate=0.2), math.log(2)),
        (IPO, IPOConfig(beta=0.1), 25.0),
    ],
)
def test_the_loss_at_the_reference(algorithm, config, expected):
    """log 2 whatever the labels; IPO 1 / (4 * 0.1^2) = 25. Any other number at step 0 means policy and reference differ."""
    batch = random_batch("groups", seed=3)
    fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    at_reference = GroupBatch(**fields | {"ref_logprobs": batch.logprobs})
    assert _value(algorithm, at_reference, config) == pytest.approx(expected, abs=1e-5)


@given(seed=st.integers(0, 2**31), beta=st.floats(0.01, 2), flip_rate=st.floats(0, 0.4), average=st.booleans())
def test_the_losses_agree_with_the_loops_over_padded_rows(seed, beta, flip_rate, average):
    batch = random_batch("groups", seed=seed)
    expected = {"dpo": 0.0, "cdpo": 0.0, "robust": 0.0, "ipo": 0.0}
    for pair in range(batch.num_groups):
        p = 0.5 if batch.is_tie[pair] else float(batch.p_chosen[pair])
        weight = float(batch.weights[pair])
        h = _naive_h(batch, pair)
        expected["dpo"] += weight * naive.dpo_loss(h, p, beta=beta)
        expected["cdpo"] += weight * naive.cdpo_loss(h, p, beta=beta, flip_rate=flip_rate)
        expected["robust"] += weight * naive.robust_loss(h, p, beta=beta, flip_rate=flip_rate)
        expected["ipo"] += weight * naive.ipo_loss(_naive_h(batch, pair, average=average), p, beta=beta)
    configs = {
        "dpo": DPOConfig(beta=beta),
        "cdpo": FlipConfig(beta=beta, flip_rate=flip_rate),
        "robust": FlipConfig(beta=beta, flip_rate=flip_rate),
        "ipo": IPOConfig(beta=beta, ipo_average=average),
    }
    for algorithm in (DPO, CDPO, ROBUST, IPO):
        total = expected[algorithm.name] / float(batch.weights.sum())
        assert _value(algorithm, batch, configs[algorithm.name]) == pytest.approx(total)


def _naive_h(batch, pair, *, average=False):
    """Chosen minus rejected log-ratio from rows with junk after their end."""
    ratios = {}
    for b in range(2 * batch.num_groups):
        mine = batch.sequence_index == b
        rows = [[*x[mine].tolist(), math.nan, math.inf] for x in (batch.logprobs, batch.ref_logprobs)]
        mask = [True] * int(mine.sum()) + [False, False]
        ratios[int(batch.group_index[b]), int(batch.ranks[b])] = naive.log_ratio(*rows, mask, average=average)
    return ratios[pair, 0] - ratios[pair, 1]


@given(h=_MARGINS, p=_LABELS)
def test_without_flips_every_sigmoid_variant_is_dpo(h, p):
    expected = _link(sigmoid_link, h, p, DPOConfig(beta=0.3))
    for link in (smoothed_link, robust_link):
        assert _link(link, h, p, FlipConfig(beta=0.3, flip_rate=0.0)) == pytest.approx(expected)


@given(h=_MARGINS, p=_LABELS, flip_rate=st.floats(0, 0.45))
def test_robust_dpo_is_unbiased_under_flips(h, p, flip_rate):
    """Its expectation over flipped labels is the DPO loss of the clean label; cDPO's is not."""
    config = FlipConfig(beta=0.3, flip_rate=flip_rate)
    clean, flipped = (_link(robust_link, h, label, config) for label in (p, 1 - p))
    expected = _link(sigmoid_link, h, p, DPOConfig(beta=0.3))
    assert (1 - flip_rate) * clean + flip_rate * flipped == pytest.approx(expected, abs=1e-10)


def test_cdpo_stops_at_the_odds_of_a_right_label():
    """One flip in ten: the loss is least where sigma(beta h) = 0.9, at h = log(9) / beta = 21.97; plain DPO never stops."""
    h = torch.linspace(0, 60, 60001, dtype=torch.float64)
    ones = torch.ones_like(h)
    smoothed = smoothed_link(h, ones, FlipConfig(beta=0.1, flip_rate=0.1))
    assert float(h[smoothed.argmin()]) == pytest.approx(math.log(9) / 0.1, abs=1e-3)
    assert int(sigmoid_link(h, ones, DPOConfig(beta=0.1)).argmin()) == len(h) - 1


@given(p=_LABELS, tau=st.floats(0.05, 2))
def test_ipo_stops_at_its_goal(p, tau):
    """(2p - 1) / (2 tau): the vertex of the parabola, also for labels that are certain."""
    goal = torch.tensor([(2 * p - 1) / (2 * tau)], dtype=torch.float64, requires_grad=True)
    squared_link(goal, torch.tensor([p], dtype=torch.float64), IPOConfig(beta=tau)).sum().backward()
    assert abs(float(goal.grad)) < 1e-9


def test_votes_are_as_good_as_repeated_pairs():
    """3 of 4 votes at weight 4 equal three pairs one way round and one the other."""
    soft = _pair([1.0, 2.0], [1.0], p_chosen=torch.tensor([0.75]), weights=torch.tensor([4.0]))
    for algorithm in (DPO, CDPO, ROBUST, IPO):
        config = algorithm.config()
        repeated = 3 * _value(algorithm, _pair([1.0, 2.0], [1.0]), config) + _value(
            algorithm, _pair([1.0], [1.0, 2.0]), config
        )
        assert 4 * _value(algorithm, soft, config) == pytest.approx(repeated)


def test_a_tie_is_a_label_of_one_half():
    tie = _pair([1.0], [0.0], is_tie=torch.tensor([True]), p_chosen=torch.tensor([0.9]))
    half = _pair([1.0], [0.0], p_chosen=torch.tensor([0.5]))
    assert _value(DPO, tie, DPOConfig()) == _value(DPO, half, DPOConfig())


def test_the_gradient_raises_the_chosen_and_lowers_the_rejected():
    """d loss / d h = -beta sigma(-beta h) = -0.1 / 2 at the reference, on every token alike."""
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    batch = GroupBatch(
        sequence_index=torch.tensor([0, 0, 1]),
        group_index=torch.tensor([0, 0]),
        ranks=torch.tensor([0, 1]),
        num_groups=1,
        logprobs=logprobs,
        ref_logprobs=logprobs.detach(),
    )
    DPO.loss(batch, DPOConfig(beta=0.1)).total.backward()
    assert logprobs.grad.tolist() == pytest.approx([-0.05, -0.05, 0.05])


def test_metrics_by_hand():
    """Log-ratios (1, 2) chosen and (1) rejected at beta 0.1: rewards 0.3 and 0.1; mean chosen token 1.5."""
    metrics = DPO.loss(_pair([1.0, 2.0], [1.0]), DPOConfig(beta=0.1)).metrics
    means = {name: float(total / count) for name, (total, count) in metrics.items()}
    assert means == pytest.approx(
        {
            "dpo/loss": 0.598139,
            "dpo/chosen_logprobs": 3.0,
            "dpo/rejected_logprobs": 1.0,
            "dpo/chosen_reward": 0.3,
            "dpo/rejected_reward": 0.1,
            "dpo/margin": 0.2,
            "dpo/accuracy": 1.0,
            "dpo/kl_k1": 1.5,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize(
    ("config", "settings"),
    [(DPOConfig, {"beta": 0.0}), (FlipConfig, {"flip_rate": 0.5}), (IPOConfig, {"beta": -1.0})],
)
def test_settings_out_of_range_are_refused(config, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        config(**settings)
