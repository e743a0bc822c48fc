"""CPO."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pair_examples import mean_loss, metric_means, padded_pairs, pair, turned

from fairlead.algos import CPO, DPO
from fairlead.algos.cpo import CPOConfig
from fairlead.algos.dpo import DPOConfig
from fairlead.algos.random_batches import random_batch
from fairlead.core.errors import ConfigError
from naive.cpo_naive import cpo_loss


def test_a_pair_by_hand():
    """Sums -2 and -3, beta 0.5: log(1 + e^-0.5) = 0.474077; the likelihood costs 1 nat a token or 2 a sequence."""
    batch = pair([-0.5, -1.5], [-3.0])
    assert mean_loss(CPO, batch, CPOConfig(beta=0.5)) == pytest.approx(0.474077 + 1, abs=1e-6)
    assert mean_loss(CPO, batch, CPOConfig(beta=0.5, nll_average="sum")) == pytest.approx(0.474077 + 2, abs=1e-6)


def test_without_likelihood_it_is_dpo_with_a_uniform_reference():
    """A reference of the same log-probability for both sides drops out of DPO's margin."""
    batch = pair([-0.5, -1.5], [-3.0])
    found = mean_loss(CPO, batch, CPOConfig(beta=0.3, nll_coef=0.0))
    assert found == pytest.approx(mean_loss(DPO, batch, DPOConfig(beta=0.3)))


@given(
    seed=st.integers(0, 2**31), beta=st.floats(0.01, 2), nll_coef=st.floats(0, 2), average=st.sampled_from(["token", "sum"])
)  # fmt: skip
def test_the_loss_agrees_with_the_loop_over_padded_rows(seed, beta, nll_coef, average):
    batch = random_batch("groups", seed=seed)
    expected = sum(
        weight * cpo_loss(chosen, rejected, mask_c, mask_r, p, beta=beta, nll_coef=nll_coef, nll_average=average)
        for p, weight, rows in padded_pairs(batch, "logprobs")
        for (chosen, mask_c), (rejected, mask_r) in [(rows["chosen"], rows["rejected"])]
    )
    config = CPOConfig(beta=beta, nll_coef=nll_coef, nll_average=average)
    assert mean_loss(CPO, batch, config) == pytest.approx(expected / float(batch.weights.sum()))


def test_votes_are_as_good_as_repeated_pairs():
    soft, repeated = turned([-1.0, -2.0], [-3.0])
    expected = sum(mean_loss(CPO, b, CPOConfig()) for b in repeated)
    assert 4 * mean_loss(CPO, soft, CPOConfig()) == pytest.approx(expected)


def test_no_reference_is_asked_for():
    assert CPO.needs_for(CPOConfig()) == frozenset()


def test_metrics_by_hand():
    means = metric_means(CPO, pair([-0.5, -1.5], [-3.0]), CPOConfig(beta=0.5))
    assert means == pytest.approx(
        {
            "dpo/loss": 0.474077,
            "dpo/chosen_logprobs": -2.0,
            "dpo/rejected_logprobs": -3.0,
            "dpo/chosen_reward": -1.0,
            "dpo/rejected_reward": -1.5,
            "dpo/margin": 0.5,
            "dpo/accuracy": 1.0,
            "dpo/nll": 1.0,
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"nll_coef": -0.1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CPOConfig(**settings)
