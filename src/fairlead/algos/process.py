"""Process-reward models: is each step of a reply right?

The model's scalar at the end of a step is the logit that the step is right; what the batch calls logprobs are the log-probabilities of
the labels, y log sigmoid(z) + (1 - y) log sigmoid(-z), which forward.py computes from the logits and the labels y.

Legend:
    N  labelled steps, flat
    B  sequences (replies)

Example:
    (PROCESS.loss(batch, PROCESS.config()).total / PROCESS.count(batch, PROCESS.config())).backward()
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fairlead.algos.masks import sum_and_count
from fairlead.algos.spec import Algorithm, Loss, TokenBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessConfig:
    """No settings: every labelled step of the global batch weighs what its reply does."""


def _weights(batch: TokenBatch) -> Float[Tensor, "N"]:
    if batch.weights is None:
        return torch.ones(len(batch.sequence_index), device=batch.sequence_index.device)
    return batch.weights[batch.sequence_index]


def count(batch: TokenBatch, config: ProcessConfig) -> Float[Tensor, ""]:
    """Sum of the steps' weights."""
    return _weights(batch).sum()


def loss(batch: TokenBatch, config: ProcessConfig) -> Loss:
    """Binary cross-entropy of the labels.

    loss = - sum_t w_t * logprob_t

    Returns:
        Sum over labelled steps, nats; divide by `count`.
    Source: Lightman et al. 2023, arXiv:2305.20050, section 2.6; soft labels as in Wang et al. 2024 (Math-Shepherd), arXiv:2312.08935, eq. 3.
    Differs: a scalar head in place of tokens for right and wrong.
    """
    weights = _weights(batch).to(batch.logprobs.dtype)
    keep = weights > 0
    total = -(weights * torch.where(keep, batch.logprobs, torch.zeros_like(batch.logprobs))).sum()
    is_found = (batch.logprobs > -math.log(2)).to(batch.logprobs.dtype)
    metrics = {
        "reward/step_loss": sum_and_count(-batch.logprobs, keep),
        "reward/step_accuracy": sum_and_count(is_found, keep),
    }
    return Loss(total=total, metrics=metrics)


PROCESS = Algorithm(
    name="process",
    paper="Lightman et al. 2023, arXiv:2305.20050",
    batch="tokens",
    config=ProcessConfig,
    count=count,
    loss=loss,
)
