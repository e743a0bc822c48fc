"""What tells the on-policy methods apart outside their loss: where advantages come from, where KL is paid, what their papers set.

Example:
    METHODS["ppo"].has_values    # True
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

OnlineMethod = Literal["ppo"]
ONLINE_METHODS: tuple[str, ...] = get_args(OnlineMethod)
Estimator = Literal["gae"]
"""gae: a value model's generalised advantages, whitened over the round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One on-policy method."""

    title: str
    """As its paper writes it."""
    estimator: Estimator
    needs_group: bool
    """Its baseline comes from other completions of the same prompt."""
    has_values: bool
    """Trains a value model."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it sets where a recipe says nothing; see its page for the sources."""


METHODS: Mapping[str, Method] = {
    "ppo": Method(title="PPO", estimator="gae", needs_group=False, has_values=True),
}
