"""What tells the on-policy methods apart outside their loss: whether a group or a value model is the baseline, and what they set by default.

Defaults are those of the papers where a size of model does not decide them; each method's page says which value comes from where.

Example:
    METHODS["ppo"].has_values    # True
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

OnlineMethod = Literal[
    "ppo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "remax", "reinforce_pp", "reinforce_pp_baseline",
    "online_dpo", "online_ipo", "best_of_n", "expert_iteration",
]  # fmt: skip
ONLINE_METHODS: tuple[str, ...] = get_args(OnlineMethod)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One on-policy method."""

    title: str
    """As its paper writes it."""
    learns: Literal["advantages", "pairs", "best", "good"] = "advantages"
    """advantages: every completion by how much better than its baseline it is. pairs: the best of a prompt against the worst. best: the best of
    a prompt is imitated. good: every completion of at least min_score is."""
    loss: str = ""
    """Name in algos/, where it is another than the method's."""
    has_values: bool = False
    """Trains a value model."""
    divides_by_limit: bool = False
    """A completion's sum is divided by max_new_tokens, whatever its length."""
    num_minibatches: int = 1
    """Optimiser steps a pass over a round, where minibatch_size says nothing: 1 is fully on-policy, more where the bounds of the ratio are
    the point."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it sets where a recipe says nothing."""


_ONE_PASS = {"num_epochs": 1}
_GROUPS = {"group_size": 8, **_ONE_PASS}
_UNPAID = {"kl_coef": 0.0, "target": None}
_NO_KL = {"kl_coef": 0.0, "target": None, "where": "loss"}

METHODS: Mapping[str, Method] = {
    "ppo": Method(title="PPO", has_values=True, num_minibatches=4),
    "grpo": Method(title="GRPO",
                   defaults={**_GROUPS, "kl": {"kl_coef": 0.04, "target": None, "where": "loss"}}),
    "dr_grpo": Method(title="Dr. GRPO", divides_by_limit=True, defaults={**_GROUPS, "kl": _NO_KL}),
    "dapo": Method(title="DAPO", num_minibatches=4,
                   defaults={**_GROUPS, "kl": _NO_KL, "max_resamples": 10, "overlong_share": 0.2}),
    "gspo": Method(title="GSPO", num_minibatches=4, defaults={**_GROUPS, "kl": _NO_KL}),
    "cispo": Method(title="CISPO", num_minibatches=4, defaults={**_GROUPS, "kl": _NO_KL}),
    "rloo": Method(title="RLOO", defaults={**_ONE_PASS, "group_size": 4, "kl": {"kl_coef": 0.05, "target": None}}),
    "remax": Method(title="ReMax", defaults={**_ONE_PASS, "kl": {"kl_coef": 0.05, "target": None}}),
    "reinforce_pp": Method(title="REINFORCE++", defaults={**_ONE_PASS, "kl": {"kl_coef": 0.01, "target": None}}),
    "reinforce_pp_baseline": Method(title="REINFORCE++-baseline",
                                    defaults={**_GROUPS, "kl": {"kl_coef": 0.01, "target": None, "where": "loss"}}),
    "online_dpo": Method(title="Online DPO", learns="pairs", loss="dpo", defaults={**_ONE_PASS, "group_size": 2, "kl": _UNPAID}),
    "online_ipo": Method(title="Online IPO", learns="pairs", loss="ipo", defaults={**_ONE_PASS, "group_size": 2, "kl": _UNPAID}),
    "best_of_n": Method(title="best of n, imitated", learns="best", loss="sft", defaults={**_GROUPS, "kl": _UNPAID}),
    "expert_iteration": Method(title="Expert iteration", learns="good", loss="sft",
                               defaults={**_GROUPS, "kl": _UNPAID, "min_score": 1.0}),
}  # fmt: skip
COMPOSED_DEFAULTS: Mapping[str, Any] = {"missing_eos_penalty": 0.0, "score_clip": None, "length_coef": 0.0}
"""Of every method where the recipe composes its reward: it has rules for these."""
