"""Scalar models that are only read: loaded without gradients, and computing as the policy computes that they score, where that pays."""

from collections.abc import Callable
from pathlib import Path

from fairlead.models.arithmetic import Precision
from fairlead.models.heads import ScalarModel, load_head
from fairlead.models.load import load_policy
from fairlead.models.precision import choose_precision

LoadScalar = Callable[[Path], ScalarModel]
"""`load_frozen` with everything but the folder settled."""


def load_frozen(
    folder: Path, *, device: str, policy: Precision = "fp32", machine_file: Path | None = None
) -> ScalarModel:
    """A reward model that scores and does not train.

    Args:
        policy: what the policy computes in that it scores; see `compute_like`.
        machine_file: as in `choose_precision`.
    Raises:
        ModelError: it is none, or damaged.
    """
    model = load_head(load_policy(str(folder), device=device), folder)
    model.base.module.requires_grad_(False)
    compute_like(model, policy, machine_file=machine_file)
    return model


def compute_like(model: ScalarModel, policy: Precision, *, machine_file: Path | None) -> None:
    """bf16 beside a policy in bf16 where `choose_precision` takes it for each trunk, else fp32; its weights stay fp32.

    Scores are off by 3 % of their spread at most then (tested), which no group's order and no learning rate notices.
    """
    wanted = "auto" if policy == "bf16" else "fp32"
    for one in (model, *model.members):
        one.base.set_precision(choose_precision(wanted, one.base, machine_file=machine_file))
