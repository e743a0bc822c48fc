"""The exponential moving average of trained weights: what is measured and saved in place of the last step's weights.

    a_t = d_t a_(t-1) + (1 - d_t) w_t,    d_t = min(decay, (1 + t) / (10 + t)),    a_0 = the weights at the start

d_t grows with the step t (from 1), so that a short run is not an average of its start (as in TensorFlow's ExponentialMovingAverage).
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fairlead.train.state import PARAMETER, parameter_tensors

AVERAGE = "average/"


@dataclass(slots=True, eq=False)
class WeightAverage:
    """One average a trained parameter, on its device and in its dtype. Not thread-safe."""

    named: Mapping[str, nn.Parameter]
    decay: float
    _values: dict[str, Tensor] = field(init=False)
    _is_in_use: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._values = {name: p.detach().clone() for name, p in self.named.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.named.items():
            self._values[name].lerp_(parameter, 1 - decay)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """The models hold the averages meanwhile; `tensors` still tells which is which."""
        self._swap()
        self._is_in_use = True
        try:
            yield
        finally:
            self._swap()
            self._is_in_use = False

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.named.items():
            old = parameter.clone()
            parameter.copy_(self._values[name])
            self._values[name].copy_(old)

    @torch.no_grad()
    def adopt(self) -> None:
        """Make the averages the models' weights: the end of training."""
        for name, parameter in self.named.items():
            parameter.copy_(self._values[name])

    def tensors(self) -> dict[str, Tensor]:
        """Weights and averages as a checkpoint names them; the tensors themselves, not copies."""
        held, kept = (AVERAGE, PARAMETER) if self._is_in_use else (PARAMETER, AVERAGE)
        models = parameter_tensors(self.named, prefix=held)
        return models | {kept + name: value for name, value in self._values.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` named, but for the weights."""
        for name, value in self._values.items():
            value.copy_(tensors[AVERAGE + name])
