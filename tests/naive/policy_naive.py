"""Every policy-gradient loss as plain loops: completions are lists of tokens, tokens are dicts.

A token has logprob, old_logprob, advantage, correction, and where they are read ref_logprob, entropy. A completion has a weight.
"""

import math


def mean_loss(completions, token_loss, *, aggregation="token_mean", constant_length=1, kl_coef=0.0, entropy_coef=0.0):
    """The loss that the optimiser descends.

    Args:
        completions: list of (weight, tokens).
        token_loss: (token, tokens of its completion) -> number; the method.
    """
    total = count = 0.0
    for weight, tokens in completions:
        sums = 0.0
        for token in tokens:
            loss = token_loss(token, tokens)
            if kl_coef:
                loss += kl_coef * kl_shown(token)
            sums += token["correction"] * loss
            if entropy_coef:
                sums -= entropy_coef * token["entropy"]
        if aggregation == "token_mean":
            total, count = total + weight * sums, count + weight * len(tokens)
        elif aggregation == "sequence_mean":
            total, count = total + weight * sums / len(tokens), count + weight
        else:
            total, count = total + weight * sums / constant_length, count + weight
    return total / count


def ratio_of(token):
    """Importance ratio of one token."""
    return math.exp(token["logprob"] - token["old_logprob"])


def clipped(ratio, advantage, *, clip_low, clip_high, dual_clip=None):
    """The pessimistic one of the plain and the clipped objective, as a loss; dual_clip bounds it on bad tokens."""
    held = min(max(ratio, 1 - clip_low), 1 + clip_high)
    objective = min(ratio * advantage, held * advantage)
    if dual_clip is not None and advantage < 0:
        objective = max(objective, dual_clip * advantage)
    return -objective


def token_clipped(**clips):
    """PPO, GRPO and the REINFORCE family: each token's own ratio."""
    return lambda token, _tokens: clipped(ratio_of(token), token["advantage"], **clips)


def kl_shown(token):
    """k3 weighted by the ratio to the sampling policy, at most 5."""
    log_ratio = token["logprob"] - token["ref_logprob"]
    return min(ratio_of(token), 5.0) * (math.exp(-log_ratio) - 1 + log_ratio)


def completions_of(batch):
    """The lists of this file from a flat batch."""
    names = {
        "logprob": batch.logprobs,
        "old_logprob": batch.old_logprobs,
        "advantage": batch.advantages,
        "correction": batch.correction,
        "ref_logprob": batch.ref_logprobs,
        "entropy": batch.entropy,
        "value": batch.values,
        "old_value": batch.old_values,
        "returns": batch.returns,
    }
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(x.tolist() for x in names.values()), strict=True)]
    owners = batch.sequence_index.tolist()
    weights = batch.weights.tolist()
    return [
        (weights[b], [row for row, owner in zip(rows, owners, strict=True) if owner == b])
        for b in range(batch.num_sequences)
    ]


def gspo(**clips):
    """The ratio of the completion: geometric mean over the tokens that learn (correction above 0), which the others do not see."""

    def loss(token, tokens):
        learning = [t for t in tokens if t["correction"] > 0]
        if token["correction"] == 0:
            return 0.0
        ratio = math.exp(sum(t["logprob"] - t["old_logprob"] for t in learning) / len(learning))
        return clipped(ratio, token["advantage"], **clips)

    return loss


def cispo(*, clip_low, clip_high):
    """The ratio as a bounded weight of the log-probability."""

    def loss(token, _tokens):
        weight = min(max(ratio_of(token), 1 - clip_low), 1 + clip_high)
        return -weight * token["advantage"] * token["logprob"]

    return loss
