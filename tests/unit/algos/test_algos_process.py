"""The loss of process-reward models."""

import math

import pytest
import torch

from fairlead.algos import get_algorithm
from fairlead.algos.spec import TokenBatch
from naive import process_naive as naive

PROCESS = get_algorithm("process")


def batch_of(logits, labels, sequences, weights=None):
    """What forward.py makes of logits and labels."""
    z, y = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64)
    logprobs = y * torch.nn.functional.logsigmoid(z) + (1 - y) * torch.nn.functional.logsigmoid(-z)
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    return TokenBatch(
        logprobs=logprobs, sequence_index=torch.tensor(sequences), num_sequences=max(sequences) + 1, weights=given
    )


def test_loss_by_hand():
    """Logits 0, ln 3 and -ln 3: p = 1/2, 3/4, 1/4. Right, right, wrong: -ln(1/2) - 2 ln(3/4) = 0.6931 + 0.5754 = 1.2685; three steps, of
    which two have more than half of the probability on their label."""
    batch = batch_of([0.0, math.log(3), -math.log(3)], [1.0, 1.0, 0.0], [0, 0, 1])
    found = PROCESS.loss(batch, PROCESS.config())
    assert float(found.total) == pytest.approx(-math.log(0.5) - 2 * math.log(0.75))
    assert float(PROCESS.count(batch, PROCESS.config())) == 3
    total, count = found.metrics["reward/step_accuracy"]
    assert (float(total), float(count)) == (2, 3)


def test_soft_labels_equal_the_loop():
    logits, labels = [0.3, -1.2, 2.0, 0.7], [0.25, 1.0, 0.5, 0.0]
    found = PROCESS.loss(batch_of(logits, labels, [0, 1, 1, 2]), PROCESS.config()).total
    assert float(found) == pytest.approx(naive.loss(logits, labels))


def test_a_reply_of_weight_0_counts_nothing():
    """Even where its logarithm is infinite."""
    batch = batch_of([0.0, 1.0], [1.0, 1.0], [0, 1], weights=[1.0, 0.0])
    batch.logprobs[1] = -math.inf
    assert float(PROCESS.loss(batch, PROCESS.config()).total) == pytest.approx(math.log(2))
    assert float(PROCESS.count(batch, PROCESS.config())) == 1
