"""KL estimators and the controller of their coefficient."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairlead.algos.kl import (
    KLController,
    KLSchedule,
    initial_kl_coef,
    kl_k1,
    kl_k2,
    kl_k3,
    next_kl_coef,
    scheduled_kl_coef,
    update_kl_coef,
)
from fairlead.core.errors import ConfigError
from naive.enumerable import kl, make_problem, tilted


def _moments_under_normal(mean):
    """Exact mean and sd of the estimators of KL(N(0,1) || N(mean,1)) = mean^2 / 2, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(90)
    x, w = torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
    logprobs, ref_logprobs = -0.5 * x**2, -0.5 * (x - mean) ** 2
    for estimator in (kl_k1, kl_k2, kl_k3):
        k = estimator(logprobs, ref_logprobs)
        expectation = float((w * k).sum())
        yield expectation, math.sqrt(float((w * (k - expectation) ** 2).sum()))


@pytest.mark.parametrize(
    ("mean", "bias", "spread"),
    [(0.1, (0.0, 0.002, 0.0), (20.0, 1.42, 1.42)), (1.0, (0.0, 0.25, 0.0), (2.0, 1.73, 1.7))],
)
def test_bias_and_spread_are_those_of_schulman(mean, bias, spread):
    """Relative to the true KL; k2 of N(1): E[l^2]/2 = (1 + 1/4)/2 = 0.625 against 0.5, a bias of 25 %."""
    true = mean**2 / 2
    for (expectation, sd), expected_bias, expected_spread in zip(
        _moments_under_normal(mean), bias, spread, strict=True
    ):
        assert (expectation - true) / true == pytest.approx(expected_bias, abs=6e-4)
        assert sd / true == pytest.approx(expected_spread, rel=0.02)


def test_k3_is_never_negative_in_float32():
    """exp(l) - 1 - l rounds below zero near 1e-6; the expm1 form does not."""
    log_ratio = torch.cat([torch.logspace(-8, 1, 4001), -torch.logspace(-8, 1, 4001)])
    assert bool((kl_k3(log_ratio, torch.zeros_like(log_ratio)) >= 0).all())
    assert bool((torch.exp(-log_ratio) - 1 + log_ratio < 0).any())


@given(st.floats(-1e4, 1e4))
def test_k3_is_finite_and_not_negative(log_ratio):
    x = torch.tensor([log_ratio], dtype=torch.float32)
    k3 = float(kl_k3(x, torch.zeros(1)))
    assert math.isfinite(k3) and k3 >= 0


def _gradient_of_expectation(estimator, logits, ref):
    """Gradient of E_p[k] with the sampling distribution held fixed: what a loss on samples descends."""
    logprobs = torch.log_softmax(logits, dim=0)
    return torch.autograd.grad((logprobs.detach().exp() * estimator(logprobs, ref)).sum(), logits)[0]


def test_gradients_of_the_estimators_as_losses():
    """k1: none. k2: KL(p || ref). k3: KL(ref || p). k1 as a reward: KL(p || ref)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, generator=generator, dtype=torch.float64, requires_grad=True)
    ref = torch.log_softmax(torch.randn(12, generator=generator, dtype=torch.float64), dim=0)
    logprobs = torch.log_softmax(logits, dim=0)
    reverse = torch.autograd.grad((logprobs.exp() * (logprobs - ref)).sum(), logits, retain_graph=True)[0]
    forward = torch.autograd.grad((ref.exp() * (ref - logprobs)).sum(), logits, retain_graph=True)[0]
    as_reward = torch.autograd.grad((logprobs.exp().detach() * kl_k1(logprobs, ref).detach() * logprobs).sum(), logits)[
        0
    ]

    torch.testing.assert_close(
        _gradient_of_expectation(kl_k1, logits, ref), torch.zeros(12).double(), atol=1e-10, rtol=0
    )
    torch.testing.assert_close(_gradient_of_expectation(kl_k2, logits, ref), reverse, atol=1e-10, rtol=0)
    torch.testing.assert_close(_gradient_of_expectation(kl_k3, logits, ref), forward, atol=1e-10, rtol=0)
    torch.testing.assert_close(as_reward, reverse, atol=1e-10, rtol=0)
    assert not torch.allclose(forward, reverse, atol=1e-2)


def test_one_update_by_hand():
    """KL 9 against 6 is 50 % too much, cut to 20 %: 0.1 * (1 + 0.2 * 256 / 10000) = 0.100512."""
    assert next_kl_coef(0.1, observed_kl=9.0, target=6.0, num_episodes=256, horizon=10_000) == pytest.approx(0.100512)
    assert next_kl_coef(0.1, observed_kl=6.6, target=6.0, num_episodes=256, horizon=10_000) == pytest.approx(0.100256)
    assert next_kl_coef(0.1, observed_kl=0.0, target=6.0, num_episodes=256, horizon=10_000) == pytest.approx(0.099488)


@given(st.floats(1e-3, 10), st.floats(-5, 100), st.floats(0.01, 20), st.integers(1, 100_000))
def test_an_update_is_bounded_and_points_the_right_way(kl_coef, observed_kl, target, num_episodes):
    after = next_kl_coef(kl_coef, observed_kl=observed_kl, target=target, num_episodes=num_episodes, horizon=10_000)
    assert after >= 0
    assert abs(after - kl_coef) <= kl_coef * 0.2 * num_episodes / 10_000 + 1e-12
    assert (after - kl_coef) * (observed_kl - target) >= 0


@pytest.mark.parametrize("start", [0.05, 0.2, 0.5, 5.0])
def test_the_controller_finds_the_coefficient_that_holds_the_target(start):
    """The plant is exact: KL of the optimum at coefficient b. The target is the KL at b = 1, so the coefficient must end there."""
    problem = make_problem(seed=1)
    target = float(kl(tilted(problem, 1.0), problem.ref_logprobs))
    controller = KLController(kl_coef=start, target=target)
    coefficient = initial_kl_coef(controller)
    for step in range(1000):
        observed = float(kl(tilted(problem, coefficient), problem.ref_logprobs))
        before = coefficient
        coefficient = update_kl_coef(controller, before, observed_kl=observed, num_episodes=256, step=step)
        assert coefficient / before <= 1.00512 + 1e-9
    assert float(kl(tilted(problem, coefficient), problem.ref_logprobs)) == pytest.approx(target, rel=0.01)
    assert coefficient == pytest.approx(1.0, rel=0.01)


def test_a_fixed_coefficient_stays():
    controller = KLController(kl_coef=0.3)
    assert update_kl_coef(controller, 0.3, observed_kl=99.0, num_episodes=512, step=7) == 0.3


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.2, 0.15, 0.1, 0.1]),
        ("cosine", [0.2, 0.15, 0.1, 0.1]),
        ("step", [0.2, 0.2, 0.1, 0.1]),
    ],
)
def test_schedules_by_hand(shape, expected):
    """From 0.2 to 0.1 over 10 steps, at steps 0, 5, 10, 50; half-way the cosine is half-way."""
    schedule = KLSchedule(shape=shape, start=0.2, end=0.1, num_steps=10)
    assert [scheduled_kl_coef(schedule, step=step) for step in (0, 5, 10, 50)] == pytest.approx(expected)


def test_the_cosine_starts_slower_than_the_line():
    """After a tenth: (1 - cos(pi / 10)) / 2 = 0.02447 of the way."""
    schedule = KLSchedule(shape="cosine", start=0.0, end=1.0, num_steps=10)
    assert scheduled_kl_coef(schedule, step=1) == pytest.approx(0.0244717, abs=1e-7)


def test_a_schedule_alone_sets_the_coefficient():
    controller = KLController(schedule=KLSchedule(shape="linear", start=0.2, end=0.0, num_steps=4))
    assert initial_kl_coef(controller) == 0.2
    assert update_kl_coef(controller, 0.2, observed_kl=1.0, num_episodes=1, step=1) == pytest.approx(0.15)


def test_a_schedule_bounds_the_controller():
    """KL far above the target asks for 0.1 * 1.2; the ceiling of step 5 is half-way from 0.1 to 0.12."""
    ceiling = KLSchedule(shape="linear", start=0.1, end=0.12, num_steps=10)
    controller = KLController(kl_coef=0.1, target=1.0, horizon=100, high=ceiling)
    assert update_kl_coef(controller, 0.1, observed_kl=9.0, num_episodes=100, step=5) == pytest.approx(0.11)
    assert update_kl_coef(controller, 0.1, observed_kl=9.0, num_episodes=100, step=10) == pytest.approx(0.12)


def test_contradictions_are_refused():
    schedule = KLSchedule(shape="linear", start=0.2, end=0.0, num_steps=4)
    with pytest.raises(ConfigError, match="contradicts target"):
        KLController(target=6.0, schedule=schedule)
    with pytest.raises(ConfigError, match="target=0"):
        KLController(target=0.0)
    with pytest.raises(ConfigError, match="num_steps=0"):
        KLSchedule(shape="linear", start=0.2, end=0.0, num_steps=0)
