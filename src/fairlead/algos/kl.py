"""Distance from the reference: per-token estimators of KL(policy || reference) and what sets its coefficient.

Tokens are sampled from the policy. With l = logprobs - ref_logprobs:

    k1 = l                   unbiased, large variance; what goes into the reward
    k2 = l^2 / 2             small bias; as a loss its gradient is exactly that of KL(policy || reference)
    k3 = exp(-l) - 1 + l     unbiased, never negative; for reporting. As a loss it has the gradient of KL(reference || policy)

Source: Schulman 2020, http://joschu.net/blog/kl-approx.html; gradients: Tang & Munos 2025, arXiv:2506.09477.

Legend:
    N  tokens sampled from the policy, flat

Example:
    controller = KLController(kl_coef=0.05, target=6.0)
    kl_coef = update_kl_coef(controller, kl_coef, observed_kl=7.2, num_episodes=512, step=3)
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.core.errors import ConfigError, explain

MAX_EXPONENT = 20.0
"""exp(20) = 4.9e8 stays finite in float32, also when squared (the value that verl uses)."""

_MAX_RELATIVE_ERROR = 0.2
"""Ziegler et al. 2019, section 2.2: one update moves the coefficient by at most 20 % of num_episodes / horizon."""


def kl_k1(logprobs: Float[Tensor, "N"], ref_logprobs: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Log-ratio, nats. As a loss its expected gradient is zero: put it into the reward."""
    return logprobs - ref_logprobs


def kl_k2(logprobs: Float[Tensor, "N"], ref_logprobs: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Half the squared log-ratio, nats^2. The on-policy loss whose gradient is that of KL(policy || reference)."""
    return 0.5 * (logprobs - ref_logprobs) ** 2


def kl_k3(logprobs: Float[Tensor, "N"], ref_logprobs: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """Unbiased and never negative, nats. For reporting, not for a loss.

    Differs: expm1 instead of exp - 1, which turns negative for log-ratios near 1e-6 in float32; exponent limited to +-20.
    """
    log_ratio = logprobs - ref_logprobs
    return torch.expm1((-log_ratio).clamp(-MAX_EXPONENT, MAX_EXPONENT)) + log_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class KLSchedule:
    """A KL coefficient as a function of the optimiser step."""

    shape: Literal["linear", "cosine", "step"]
    """linear and cosine go from `start` to `end` over `num_steps`; step jumps from `start` to `end` at `num_steps`."""
    start: float
    """Coefficient at step 0, reward units per nat."""
    end: float
    """Coefficient from `num_steps` on, reward units per nat."""
    num_steps: int
    """Length, optimiser steps."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(
                explain("num_steps", self.num_steps, "is too short", expected=">= 1", remedy="Leave the schedule out")
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class KLController:
    """How the KL coefficient moves: fixed, scheduled, or adaptive towards a target. Stateless; the coefficient is the state."""

    kl_coef: float = 0.05
    """First coefficient, reward units per nat; has a meaning only once rewards have a known spread (normalise to sd 1)."""
    target: float | None = None
    """KL to hold, in the unit of `observed_kl` (nats per sequence by convention); None means not adaptive."""
    horizon: int = 10_000
    """Episodes over which an error of 20 % or more moves the coefficient by a factor of about 1.2."""
    schedule: KLSchedule | None = None
    """Coefficient by step; None means constant. Not together with `target`."""
    low: float | KLSchedule = 0.0
    """Smallest coefficient of the adaptive controller, reward units per nat; may be a schedule."""
    high: float | KLSchedule = math.inf
    """Largest coefficient of the adaptive controller, reward units per nat; may be a schedule."""

    def __post_init__(self) -> None:
        if self.target is not None and self.schedule is not None:
            raise ConfigError(
                explain(
                    "schedule",
                    self.schedule.shape,
                    "contradicts target, which sets the coefficient itself",
                    expected="one of schedule and target",
                    remedy="Give the schedule as low or high to bound the controller",
                )
            )
        if self.target is not None and self.target <= 0:
            raise ConfigError(
                explain(
                    "target",
                    self.target,
                    "is no distance",
                    expected="> 0 nats",
                    remedy="Use target=null for a fixed one",
                )
            )


def initial_kl_coef(controller: KLController) -> float:
    """Coefficient of step 0."""
    return controller.kl_coef if controller.schedule is None else scheduled_kl_coef(controller.schedule, step=0)


def update_kl_coef(
    controller: KLController, kl_coef: float, *, observed_kl: float, num_episodes: int, step: int
) -> float:
    """Coefficient of `step`, after `num_episodes` sequences with mean `observed_kl` were seen under `kl_coef`."""
    if controller.schedule is not None:
        return scheduled_kl_coef(controller.schedule, step=step)
    if controller.target is None:
        return kl_coef
    return next_kl_coef(
        kl_coef,
        observed_kl=observed_kl,
        target=controller.target,
        num_episodes=num_episodes,
        horizon=controller.horizon,
        low=_at(controller.low, step),
        high=_at(controller.high, step),
    )


def next_kl_coef(
    kl_coef: float,
    *,
    observed_kl: float,
    target: float,
    num_episodes: int,
    horizon: int,
    low: float = 0.0,
    high: float = math.inf,
) -> float:
    """Move the coefficient towards the one that holds KL at its target.

    kl_coef' = kl_coef * (1 + clip(observed_kl / target - 1, -0.2, 0.2) * num_episodes / horizon), then into [low, high]

    Args:
        kl_coef: reward units per nat.
        observed_kl: mean over the episodes; same unit as `target`.
        num_episodes: sequences behind `observed_kl`.
        horizon: sequences.
    Source: Ziegler et al. 2019, arXiv:1909.08593, section 2.2.
    Differs: bounded by [low, high]; the factor is kept positive when num_episodes exceeds 5 horizons.
    """
    error = min(max(observed_kl / target - 1.0, -_MAX_RELATIVE_ERROR), _MAX_RELATIVE_ERROR)
    factor = max(1.0 + error * num_episodes / horizon, 0.0)
    return min(max(kl_coef * factor, low), high)


def scheduled_kl_coef(schedule: KLSchedule, *, step: int) -> float:
    """Coefficient of the schedule at `step`."""
    done = min(max(step / schedule.num_steps, 0.0), 1.0)
    if schedule.shape == "step":
        weight = float(done >= 1.0)
    elif schedule.shape == "cosine":
        weight = 0.5 * (1.0 - math.cos(math.pi * done))
    else:
        weight = done
    return schedule.start + (schedule.end - schedule.start) * weight


def _at(bound: float | KLSchedule, step: int) -> float:
    return scheduled_kl_coef(bound, step=step) if isinstance(bound, KLSchedule) else bound
