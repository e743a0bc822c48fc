"""The one training loop. A source yields global batches of trees; an algorithm turns them into a sum; hooks do everything else.

    total = sum of counts over the global batch
    statistics of the global batch, without gradient, for the few methods that ask for some
    each micro-batch: loss.total / total, backward; the same for what is mixed in, by its own count (mix.py)
    finite? -> clip -> optimiser step -> schedule -> hooks (log, checkpoint, evaluate, stop)

The loop never learns what it trains: on-policy methods differ only in where batches come from.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fairlead.algos.spec import Algorithm, Loss
from fairlead.core.errors import TrainError, explain
from fairlead.models.out_of_memory import free_memory, is_out_of_memory
from fairlead.text.packing import Tree
from fairlead.train.ahead import Prepared, prepare, prepared_batches
from fairlead.train.average import AVERAGE, WeightAverage
from fairlead.train.batches import MicroBatch, make_microbatches
from fairlead.train.budget import smaller_budget
from fairlead.train.forward import Models, run_forward, sizes_batch
from fairlead.train.identity import as_settings, identity
from fairlead.train.mix import Mix, check_mixed
from fairlead.train.noise import EmbeddingNoise, Neftune
from fairlead.train.optim import OptimizerSet, OptimizerSettings, hidden_matrices, make_optimizers
from fairlead.train.state import (
    PARAMETER,
    load_optimizer,
    load_parameters,
    named_parameters,
    optimizer_state,
    parameter_tensors,
)
from fairlead.train.whole import know_batch

Hook = Callable[["Learner", dict[str, float]], bool | None]
"""Called after each step with the metrics; returning True stops the run."""


def _say_nothing(_text: str) -> None:
    """Nobody listens."""


@dataclass(slots=True, eq=False)
class Learner:
    """Models, one algorithm, one optimiser. Makes steps; keeps count of them. Single-use, not thread-safe."""

    models: Models
    algo: Algorithm
    algo_config: Any
    optim: OptimizerSettings
    num_steps: int
    """Steps of the whole run, for the schedule."""
    max_tokens: int = 8192
    """Token budget of a micro-batch."""
    ema_decay: float | None = None
    """Of the moving average of the weights, which is then the result of the training; None keeps none."""
    neftune: Neftune | None = None
    """Noise on the input embeddings of training forwards."""
    mix: Mix | None = None
    """A second objective in every step, whose trees are the `mixed` of each; None mixes nothing in."""
    say: Callable[[str], None] = _say_nothing
    """Told once when memory ran out."""
    is_lowered: bool = False
    """The token budget was lowered because memory ran out; part of a checkpoint, with the budget."""
    step_number: int = 0
    """Optimiser steps made so far."""
    statistics: dict[str, float] = field(default_factory=dict[str, float])
    """Scalar statistics of the steps so far, the newest of each (BCO's moving means); part of a checkpoint."""
    trainable: dict[str, nn.Parameter] = field(init=False)
    """What the optimiser changes, by name."""
    parameters: list[nn.Parameter] = field(init=False)
    optimizer: OptimizerSet = field(init=False)
    average: WeightAverage | None = field(init=False)
    _found: dict[str, float] = field(init=False, default_factory=dict[str, float])
    _num_replays: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.trainable = {name: p for name, p in named_parameters(self.models).items() if p.requires_grad}
        self.parameters = list(self.trainable.values())
        hidden = {i for trunk in self.models.trunks() for i in hidden_matrices(trunk.causal_lm)}
        self.optimizer = make_optimizers(self.parameters, self.optim, hidden=hidden)
        self.average = None if self.ema_decay is None else WeightAverage(self.trainable, self.ema_decay)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a resumed run needs: tensors by name (not copies), and plain values. All names: see `train.state`."""
        tensors, values = optimizer_state(self.optimizer, self.trainable)
        lowered = self.max_tokens if self.is_lowered else None
        plain = {
            "step": self.step_number,
            "statistics": self.statistics,
            "optimizer": values,
            "rate_factor": self.optimizer.rate_factor,
            "lowered_budget": lowered,
        }
        weights = parameter_tensors(self.trainable) if self.average is None else self.average.tensors()
        return {**weights, **tensors}, plain

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        load_parameters(self.trainable, tensors)
        load_optimizer(self.optimizer, self.trainable, tensors, values["optimizer"])
        self.optimizer.rate_factor = float(values["rate_factor"])
        if self.average is not None:
            self.average.load(tensors)
        self.step_number, self.statistics = int(values["step"]), dict(values["statistics"])
        if values["lowered_budget"] is not None:
            self.max_tokens, self.is_lowered = min(self.max_tokens, int(values["lowered_budget"])), True

    def identity(self, *, data: str) -> dict[str, Any]:
        """What its checkpoints belong to; see `train.identity`. Of a learner that has made no step yet."""
        settings = as_settings(
            self.algo_config, self.optim, num_steps=self.num_steps, temperature=self.models.temperature,
            ema_decay=self.ema_decay, neftune=self.neftune, precision=self.models.precision,
            **({} if self.mix is None else self.mix.settings()),
        )  # fmt: skip
        return identity(self.algo.name, settings=settings, parameters=named_parameters(self.models), data=data)

    @property
    def result_prefix(self) -> str:
        """What a checkpoint calls the weights that are the result of the training."""
        return PARAMETER if self.average is None else AVERAGE

    def result(self) -> contextlib.AbstractContextManager[None]:
        """The models hold the result of the training so far meanwhile: for measurements between steps."""
        return contextlib.nullcontext() if self.average is None else self.average.in_use()

    def finish(self) -> None:
        """The models hold the result of the training from now on; no step follows."""
        if self.average is not None:
            self.average.adopt()

    def step(
        self, batches: Sequence[Tree], *, ready: Prepared | None = None, mixed: Sequence[Tree] = ()
    ) -> dict[str, float]:
        """One optimiser step on one global batch; returns metrics as means over it.

        Args:
            ready: the same batch, planned before; planned here when the token budget has changed since.
            mixed: trees of the mix, exactly where the learner has one.
        Raises:
            TrainError: the loss or the gradient is not finite. Weights are as they were before the step.
        """
        check_mixed(self.mix, mixed)
        sums, norm = self._gradients(batches, ready, mixed)
        loss = sums.pop("loss")[0] if "loss" in sums else 0.0
        if not math.isfinite(loss) or not math.isfinite(norm):
            self.optimizer.zero_grad(set_to_none=True)
            what = "loss" if not math.isfinite(loss) else "gradient norm"
            raise TrainError(explain(f"{self.algo.name}: step {self.step_number + 1}: {what}", loss if what == "loss" else norm, "is not finite",
                                     expected="a finite number", remedy="The step was not taken and the last checkpoint is kept; lower "
                                     "learning_rate or look at the rows of this batch"))  # fmt: skip
        rate = self.optimizer.step(self.step_number, num_steps=self.num_steps)
        self.optimizer.zero_grad(set_to_none=True)
        self.step_number += 1
        if self.average is not None:
            self.average.update(self.step_number)
        self.statistics = self._found
        num_replays, self._num_replays = self._num_replays, 0
        means = self.algo.logged({name: total / count for name, (total, count) in sums.items() if count})
        return {
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": rate,
            "num_tokens": float(sum(t.num_tokens for t in (*batches, *mixed))),
            **({"train/out_of_memory": float(num_replays)} if num_replays else {}),
            **means,
        }

    def _gradients(
        self, batches: Sequence[Tree], ready: Prepared | None, mixed: Sequence[Tree]
    ) -> tuple[dict[str, tuple[float, float]], float]:
        """Clipped gradients of a batch, again with a smaller budget when memory ran out; metric sums and counts, and the norm."""
        while True:
            if ready is None or ready.max_tokens != self.max_tokens:
                ready = prepare(batches, max_tokens=self.max_tokens)
            try:
                texts = make_microbatches(mixed, max_tokens=self.max_tokens)
                return self._accumulate(ready.microbatches, texts), self._gradient_norm()
            except Exception as error:
                smaller = (
                    smaller_budget([*batches, *mixed], max_tokens=self.max_tokens) if is_out_of_memory(error) else None
                )
                if smaller is None:
                    self.optimizer.zero_grad(set_to_none=True)
                    raise
            ready = None
            self.lower_budget(smaller)

    def lower_budget(self, max_tokens: int) -> None:
        """Memory ran out, in a step or while models beside it were read: go on with `max_tokens`, told once, counted at the next step."""
        self.optimizer.zero_grad(set_to_none=True)
        free_memory()
        self._num_replays += 1
        if not self.is_lowered:
            self.say(f"memory ran out at step {self.step_number + 1} with {self.max_tokens} tokens a forward; what it was in is made again "
                     f"with {max_tokens}, and training goes on with that. The result is the same to rounding.")  # fmt: skip
        self.max_tokens, self.is_lowered = max_tokens, True

    def _accumulate(
        self, microbatches: Sequence[MicroBatch], mixed: Sequence[MicroBatch] = ()
    ) -> dict[str, tuple[float, float]]:
        """Forward and backward of every micro-batch; metric sums and counts, and the loss divided by the global count."""
        total = self._global_count(microbatches, self.algo, self.algo_config)
        known = know_batch(
            self.models, microbatches, self.algo, self.algo_config, previous=self.statistics, max_tokens=self.max_tokens
        )
        self._found = dict(known.scalars)
        noise = None if self.neftune is None else EmbeddingNoise(settings=self.neftune, step=self.step_number)
        rows: list[_Row] = []
        for batch, statistics in zip(microbatches, known.parts, strict=True):
            filled = known.forward or run_forward(self.models, batch, self.algo, self.algo_config, noise=noise)
            rows += _backward(self.algo.loss(replace(filled, statistics=statistics), self.algo_config), total)
        if self.mix is not None and mixed:
            rows += self._mix_in(self.mix, mixed)
        return _summed(rows)

    def _mix_in(self, mix: Mix, microbatches: Sequence[MicroBatch]) -> list["_Row"]:
        """Forward and backward of what is mixed in; the text is learned at temperature 1, whatever that of the samples is."""
        total = self._global_count(microbatches, mix.algo, mix.algo_config)
        models = replace(self.models, temperature=1.0)
        rows: list[_Row] = []
        for batch in microbatches:
            filled = run_forward(models, batch, mix.algo, mix.algo_config)
            rows += _backward(mix.algo.loss(filled, mix.algo_config), total, coef=mix.coef)
        return rows

    def _global_count(self, microbatches: Sequence[MicroBatch], algo: Algorithm, config: Any) -> float:
        total = sum(float(algo.count(sizes_batch(b, algo), config)) for b in microbatches)
        if total <= 0:
            raise TrainError(explain(f"{algo.name}: step {self.step_number + 1}: count", total, "leaves nothing to learn from",
                                     expected="at least one trained token or pair", remedy="Check the completion masks of the data"))  # fmt: skip
        return total

    def _gradient_norm(self) -> float:
        """Norm before clipping; the gradients are clipped in place."""
        return float(nn.utils.clip_grad_norm_(self.parameters, self.optim.max_grad_norm, foreach=True))


_Row = tuple[str, Tensor, Tensor]
"""A metric's name, sum and count."""


def _backward(loss: Loss, total: float, *, coef: float = 1.0) -> list[_Row]:
    """Backward of a micro-batch's share of the step; its metrics, and that share as the loss."""
    share = coef * loss.total / total
    share.backward()
    return [
        *((name, value.detach(), count.detach()) for name, (value, count) in loss.metrics.items()),
        ("loss", share.detach(), torch.ones(())),
    ]


def _summed(rows: Sequence[_Row]) -> dict[str, tuple[float, float]]:
    """Sum and count of each name; all of them read together, for each reading waits for the device."""
    numbers = read_numbers([x for _, *pair in rows for x in pair])
    sums: dict[str, tuple[float, float]] = {}
    for (name, *_), value, count in zip(rows, numbers[::2], numbers[1::2], strict=True):
        old = sums.get(name, (0.0, 0.0))
        sums[name] = (old[0] + value, old[1] + count)
    return sums


def read_numbers(scalars: Sequence[Tensor]) -> list[float]:
    """`[float(x) for x in scalars]`, with one wait for a device and dtype instead of one a scalar."""
    places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, x in enumerate(scalars):
        places.setdefault((x.device, x.dtype), []).append(i)
    numbers = [0.0] * len(scalars)
    for group in places.values():
        for i, number in zip(group, torch.stack([scalars[i] for i in group]).tolist(), strict=True):
            numbers[i] = float(number)
    return numbers


def run_loop(learner: Learner, source: Sequence[Sequence[Tree]], hooks: Sequence[Hook] = ()) -> None:
    """Step through the source from the learner's own step on, until it ends or a hook stops the run."""
    start, device = learner.step_number, learner.parameters[0].device
    with prepared_batches(source, start=start, max_tokens=lambda: learner.max_tokens, device=device) as batches:
        for ready in batches:
            metrics = learner.step(ready.trees, ready=ready)
            if any([bool(hook(learner, metrics)) for hook in hooks]):  # noqa: C419 - every hook must run
                return
