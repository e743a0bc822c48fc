"""Supervised fine-tuning as plain loops over padded rows. Read this first; `fairlead.algos.sft` must agree with it."""


def sft_loss(logprobs, mean_logprobs, completion_mask, weights, *, label_smoothing, average):
    """Mean loss, nats.

    Args:
        logprobs: [B][T] of the tokens, any value where the mask is False.
        mean_logprobs: [B][T] mean over the vocabulary.
        completion_mask: [B][T] True = trained.
        weights: [B].
    """
    total, divisor = 0.0, 0.0
    for row, mean_row, mask, weight in zip(logprobs, mean_logprobs, completion_mask, weights, strict=True):
        length = sum(mask)
        for logprob, mean_logprob, keep in zip(row, mean_row, mask, strict=True):
            if not keep:
                continue
            token_loss = -(1 - label_smoothing) * logprob - label_smoothing * mean_logprob
            total += weight * token_loss * (1 if average == "token" else 1 / length)
            divisor += weight * (1 if average == "token" else 1 / length)
    return total / divisor
