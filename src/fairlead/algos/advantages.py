"""From scores to advantages: rewards per token, generalised advantage estimation, whitening over the global batch.

Sits between rollout collection and `ppo.py`; nothing here has a gradient.

Legend:
    N  tokens of all completions, flat, sorted by sequence
    B  sequences (completions)

Example:
    rewards = token_rewards(scores, kl_k1(old_logprobs, ref_logprobs), kl_coef=0.05, sequence_index=index)
    advantages, returns = gae(rewards, values, gamma=1.0, lam=0.95, sequence_index=index)
    mean, std = mean_and_std(all_reduce(whitening_statistics(advantages)))
    advantages = whiten(advantages, mean=mean, std=std)
"""

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from fairlead.algos.masks import flatten_by_time, last_token_rows, pad_by_time

_EPSILON = 1e-8
"""Added to the variance: keeps a batch of equal values finite (the value of lm-human-preferences)."""


def token_rewards(
    scores: Float[Tensor, "B"],
    kl: Float[Tensor, "N"],
    *,
    kl_coef: float,
    sequence_index: Int[Tensor, "N"],
    score_clip: float | None = None,
    has_eos: Bool[Tensor, "B"] | None = None,
    missing_eos_penalty: float = 0.0,
    is_observation: Bool[Tensor, "N"] | None = None,
) -> Float[Tensor, "N"]:
    """Reward of every token: the KL penalty, and on the last token of each sequence the score.

    reward_t = -kl_coef * kl_t + [t is last] * (clip(score, +-score_clip) - missing_eos_penalty * [no EOS])

    Args:
        scores: [B] reward-model output, reward units.
        kl: [N] per token, nats; k1 keeps the optimum of `E[score] - kl_coef * KL` exact.
        kl_coef: reward units per nat.
        score_clip: reward units; None means off. The penalty comes after the clip and is never clipped away.
        has_eos: [B] whether the completion ended by itself; None means all did.
        missing_eos_penalty: reward units, positive.
        is_observation: [N] tokens that the policy did not write; they pay no KL.
    Raises:
        ValueError: a sequence has no token, so its score would be lost.
    Source: Ziegler et al. 2019, arXiv:1909.08593, eq. 2; clip and EOS penalty as in lm-human-preferences and TRL.
    """
    paid = completion_rewards(scores, score_clip=score_clip, has_eos=has_eos, missing_eos_penalty=missing_eos_penalty)
    rewards = -kl_coef * (kl if is_observation is None else torch.where(is_observation, torch.zeros_like(kl), kl))
    return rewards.index_add(0, last_token_rows(sequence_index, paid.numel()), paid.to(rewards.dtype))


def completion_rewards(
    scores: Float[Tensor, "B"],
    *,
    score_clip: float | None = None,
    has_eos: Bool[Tensor, "B"] | None = None,
    missing_eos_penalty: float = 0.0,
) -> Float[Tensor, "B"]:
    """What a whole completion is paid before its KL: the clipped score, less the penalty of one that was cut off; arguments as in `token_rewards`."""
    if score_clip is not None:
        scores = scores.clamp(-score_clip, score_clip)
    return scores if has_eos is None else scores - missing_eos_penalty * (~has_eos).to(scores.dtype)


def length_penalty(lengths: Int[Tensor, "B"], *, coef: float, max_tokens: int) -> Float[Tensor, "B"]:
    """What to add to the scores so that each token costs the same: -coef * length / max_tokens, reward units."""
    return lengths * (-coef / max_tokens)


def overlong_penalty(
    lengths: Int[Tensor, "B"], *, max_tokens: int, buffer_tokens: int, coef: float = 1.0
) -> Float[Tensor, "B"]:
    """What to add to the scores so that completions are not cut off: falls from 0 to -coef over the last `buffer_tokens`, reward units.

    -coef * clip((length - (max_tokens - buffer_tokens)) / buffer_tokens, 0, 1)

    Source: Yu et al. 2025 (DAPO), arXiv:2503.14476, eq. 13 (soft overlong punishment; there max_tokens 20480, buffer 4096).
    """
    return -coef * ((lengths - (max_tokens - buffer_tokens)) / buffer_tokens).clamp(0.0, 1.0)


def gae(
    rewards: Float[Tensor, "N"],
    values: Float[Tensor, "N"],
    *,
    gamma: float,
    lam: float,
    sequence_index: Int[Tensor, "N"],
    is_observation: Bool[Tensor, "N"] | None = None,
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Generalised advantage estimates and the returns that the value model should predict.

    delta_t = r_t + gamma * V_{t+1} - V_t;  A_t = delta_t + gamma * lam * A_{t+1};  return_t = A_t + V_t

    After the last token V and A are 0: every completion ends there. Observations (tool output, user turns) are no time
    steps: V and A are carried through them undiscounted, a reward on them goes to the policy token before, and their own
    advantage is 0.

    Args:
        rewards: [N] reward units.
        values: [N] value of the state before each token is written, reward units.
        gamma: discount per policy token, in [0, 1].
        lam: 0 trusts the values (one-step TD), 1 trusts the rewards (Monte Carlo).
        sequence_index: [N] sorted.
    Returns:
        (advantages [N], returns [N]), not whitened.
    Source: Schulman et al. 2016, arXiv:1506.02438, eq. 16.
    Differs: masked tokens are skipped as in verl; zeroing them instead would discount by the length of an observation.
    """
    num_sequences = int(sequence_index.max()) + 1
    reward_T, value_T = (pad_by_time(x, sequence_index, num_sequences) for x in (rewards, values))
    skip_T = None if is_observation is None else pad_by_time(is_observation, sequence_index, num_sequences)
    advantage_T = torch.zeros_like(reward_T)
    next_value = next_advantage = owed = torch.zeros_like(reward_T[0])
    for t in range(reward_T.shape[0] - 1, -1, -1):
        reward = reward_T[t] + owed
        advantage = reward + gamma * next_value - value_T[t] + gamma * lam * next_advantage
        if skip_T is None:
            next_value, next_advantage, advantage_T[t] = value_T[t], advantage, advantage
            continue
        skip = skip_T[t]
        owed = torch.where(skip, reward, torch.zeros_like(reward))
        next_value = torch.where(skip, next_value, value_T[t])
        next_advantage = torch.where(skip, next_advantage, advantage)
        advantage_T[t] = torch.where(skip, torch.zeros_like(advantage), advantage)
    advantages = flatten_by_time(advantage_T, sequence_index)
    return advantages, advantages + values


def whitening_statistics(x: Float[Tensor, "N"]) -> Float64[Tensor, "3"]:
    """Count, sum and sum of squares; add them up over ranks and micro-batches, then call `mean_and_std`."""
    x = x.detach().double()
    return torch.stack([x.new_tensor(float(x.numel())), x.sum(), (x * x).sum()])


def mean_and_std(statistics: Float64[Tensor, "3"]) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Mean and population standard deviation from the sums of `whitening_statistics`."""
    count, total, total_of_squares = statistics
    mean = total / count
    return mean, (total_of_squares / count - mean * mean).clamp_min(0.0).sqrt()


def whiten(
    x: Float[Tensor, "N"],
    *,
    mean: Float[Tensor, ""] | float | None = None,
    std: Float[Tensor, ""] | float | None = None,
    shift_mean: bool = True,
) -> Float[Tensor, "N"]:
    """Scale to standard deviation 1 and, with `shift_mean`, to mean 0.

    Args:
        mean: of the GLOBAL batch; None takes this tensor's, which is right on one process with the whole batch only.
        std: the same.
        shift_mean: False keeps the mean where it is (for rewards, whose sign has a meaning).
    Source: lm-human-preferences `utils/core.py:whiten`; population variance as there, not Bessel's as in TRL.
    """
    own_mean, own_std = mean_and_std(whitening_statistics(x))
    center = own_mean if mean is None else mean
    scale = torch.as_tensor(own_std if std is None else std)
    whitened = (x - center) / (scale * scale + _EPSILON).sqrt()
    return (whitened if shift_mean else whitened + center).to(x.dtype)
