"""A problem small enough to solve exactly: an autoregressive policy over 4 tokens and 3 steps, 64 sequences in all.

maximise  J(p) = E_p[r] - beta KL(p || reference);  optimum p* = reference exp(r / beta) / Z, J* = beta log Z.

The policy is a table of logits, one row for each of the 1 + 4 + 16 prefixes, and can express any distribution over the 64.
"""

import itertools
from dataclasses import dataclass

import torch

VOCABULARY, LENGTH, BETA = 4, 3, 0.5
NUM_PREFIXES = sum(VOCABULARY**t for t in range(LENGTH))
SEQUENCES = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))
"""[64, 3] every sequence."""


def _prefix_rows():
    rows = []
    for sequence in SEQUENCES.tolist():
        row, first, number = [], 0, 0
        for t in range(LENGTH):
            row.append(first + number)
            first += VOCABULARY**t
            number = number * VOCABULARY + sequence[t]
        rows.append(row)
    return torch.tensor(rows)


PREFIX_ROWS = _prefix_rows()
"""[64, 3] row of the table that each token of each sequence is drawn from."""


@dataclass(frozen=True)
class Problem:
    """Rewards and a reference policy, in float64."""

    ref_logits: torch.Tensor
    """[21, 4]"""
    rewards: torch.Tensor
    """[64] one for each sequence."""
    beta: float = BETA

    @property
    def ref_logprobs(self):
        """[64] of whole sequences."""
        return sequence_logprobs(self.ref_logits)

    @property
    def log_z(self):
        return torch.logsumexp(self.ref_logprobs + self.rewards / self.beta, dim=0)

    @property
    def best_logprobs(self):
        """[64] log p*."""
        return self.ref_logprobs + self.rewards / self.beta - self.log_z

    @property
    def myopic_logprobs(self):
        """[64] where every token pays for its own divergence only: pi(a | s) ~ reference(a | s) exp(E_pi[r | s, a] / beta), from the end.

        The fixed point of a KL in the loss, token by token: a token is not charged for the divergence that it leads to.
        """
        logits = self.ref_logits.clone()
        worth = self.rewards
        for t in reversed(range(LENGTH)):
            scores = worth.reshape(-1, VOCABULARY)
            first = sum(VOCABULARY**k for k in range(t))
            rows = slice(first, first + VOCABULARY**t)
            logits[rows] = torch.log_softmax(self.ref_logits[rows], dim=-1) + scores / self.beta
            worth = (logits[rows].softmax(dim=-1) * scores).sum(dim=-1)
        return sequence_logprobs(logits)

    def logits_of(self, logprobs):
        """[21, 4] the table whose sequences have these log-probabilities [64]."""
        logits = torch.empty_like(self.ref_logits)
        for t in reversed(range(LENGTH)):
            first = sum(VOCABULARY**k for k in range(t))
            ends = torch.logsumexp(logprobs.reshape(VOCABULARY ** (t + 1), -1), dim=1)
            logits[first : first + VOCABULARY**t] = torch.log_softmax(ends.reshape(-1, VOCABULARY), dim=-1)
        return logits

    def objective(self, logprobs):
        """J of a distribution over the 64 sequences."""
        return (logprobs.exp() * self.rewards).sum() - self.beta * kl(logprobs, self.ref_logprobs)


def make_problem(seed=0):
    """Random reference and rewards, both with spread 1."""
    generator = torch.Generator().manual_seed(seed)
    ref_logits = torch.randn(NUM_PREFIXES, VOCABULARY, generator=generator, dtype=torch.float64)
    rewards = torch.randn(len(SEQUENCES), generator=generator, dtype=torch.float64)
    return Problem(ref_logits, rewards)


def token_logprobs(logits):
    """[64, 3] log-probability of every token of every sequence."""
    return torch.log_softmax(logits, dim=-1)[PREFIX_ROWS, SEQUENCES]


def sequence_logprobs(logits):
    """[64]"""
    return token_logprobs(logits).sum(dim=1)


def kl(logprobs, other_logprobs):
    """KL(p || q) of two distributions over the 64 sequences, nats."""
    return (logprobs.exp() * (logprobs - other_logprobs)).sum()


def tilted(problem, beta):
    """log of reference exp(r / beta) / Z: the exact frontier of reward against KL, one point for each beta."""
    return torch.log_softmax(problem.ref_logprobs + problem.rewards / beta, dim=0)
