"""A reference that follows the policy (TR-DPO): every few steps it moves towards the policy, and the pairs of the next steps see it.

    step k * every:  reference = alpha * policy + (1 - alpha) * reference        alpha 1 is the hard update, less is the soft one
    then             the batches up to the next refresh get their ref_logprobs from it, each batch by itself, so that a resumed run packs
                     the same rows and finds the same bits

Each pair is annotated once an epoch, as often as without a refresh. The price is memory: the reference's trainable weights, and the
policy's while the reference stands in for it. Source: Gorbatovski et al. 2024, arXiv:2404.09656, section 3.

Example:
    source = MovingReference(session, model, batches, every_steps=512, alpha=0.6)
    run_loop(learner, source, hooks=[session.after_step])
"""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import overload

import torch

from fairlead.models.load import CausalModel
from fairlead.text import Tree
from fairlead.train.forward import PolicyLogprobs, annotate
from fairlead.train.hooks import Session

_STEP = "reference_step"


@dataclass(slots=True, eq=False)
class MovingReference(Sequence[Sequence[Tree]]):
    """A source of batches whose reference is refreshed. Single-use; entered inside the session, which keeps its state."""

    session: Session
    model: CausalModel
    batches: Sequence[Sequence[Tree]]
    """All batches of the run, without ref_logprobs."""
    every_steps: int
    """Optimiser steps between refreshes."""
    alpha: float
    """Share of the policy in the new reference, in (0, 1]."""
    _ready: dict[int, list[Tree]] = field(default_factory=dict[int, list[Tree]])

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, step: int) -> Sequence[Tree]: ...

    @overload
    def __getitem__(self, step: slice) -> Sequence[Sequence[Tree]]: ...

    def __getitem__(self, step: int | slice) -> Sequence[Tree] | Sequence[Sequence[Tree]]:
        """The batch of the learner's next step; those before it and beyond its block have no reference yet."""
        if isinstance(step, slice):
            raise TypeError("a moving reference is asked for one step at a time")
        if step not in self._ready:
            self._enter(step - step % self.every_steps, step)
        return self._ready.pop(step)

    def _enter(self, start: int, number: int) -> None:
        """Refresh the reference where a block starts, and annotate what is left of the block."""
        if self.session.extra.get(_STEP) != start:
            assert number == start, f"step {number} has no reference of step {start}"
            self._refresh(is_first=start == 0)
            self.session.extra[_STEP] = start
        with self._as_policy():
            for step in range(number, min(start + self.every_steps, len(self.batches))):
                if self.session.services.should_stop():
                    break
                tokens = self.session.learner.max_tokens
                self._ready[step] = annotate(
                    self.batches[step], "ref_logprobs", PolicyLogprobs(self.model), max_tokens=tokens
                )
        self.session.heed()

    @torch.no_grad()
    def _refresh(self, *, is_first: bool) -> None:
        tensors = self.session.extra_tensors
        for i, parameter in enumerate(self.session.learner.parameters):
            name = f"ref/{i}"
            if is_first or self.alpha == 1:
                tensors[name] = parameter.detach().clone()
            else:
                tensors[name] = torch.lerp(tensors[name].to(parameter.device), parameter.detach(), self.alpha)

    @contextlib.contextmanager
    def _as_policy(self) -> Generator[None]:
        """The reference in the policy's place; the policy comes back bit for bit."""
        parameters = self.session.learner.parameters
        policy = [p.detach().clone() for p in parameters]
        try:
            self._load([self.session.extra_tensors[f"ref/{i}"] for i in range(len(parameters))])
            yield
        finally:
            self._load(policy)

    @torch.no_grad()
    def _load(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self.session.learner.parameters, values, strict=True):
            parameter.copy_(value)
