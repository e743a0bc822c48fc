"""Which device a run uses."""

import torch

from fairlead.core.errors import ConfigError, explain


def choose_device(wanted: str) -> str:
    """`auto` becomes cuda, mps or cpu; a device that is not there is refused."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, is_there in available.items() if is_there)
    if not available.get(wanted, False):
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise ConfigError(
            explain(
                "device",
                wanted,
                "is not available on this machine",
                expected=f"auto or one of {there}",
                remedy="Change device",
            )
        )
    return wanted
