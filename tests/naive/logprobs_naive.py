"""Log-probabilities of tokens as plain loops. Read this first; `fairlead.models.logprobs` must agree with it."""

import math


def token_logprobs(hidden, weight, bias, targets, *, softcap=None, scale=1.0, temperature=1.0, choices=None):
    """(logprob of the target, entropy, mean logprob, log of the summed squares) of every position, nats.

    Args:
        hidden: [K][H];  weight: [V][H];  bias: [V] or None;  targets: [K].
        choices: [K] lists of the only tokens that have a probability; None means all.
    """
    rows = []
    for k, (state, target) in enumerate(zip(hidden, targets, strict=True)):
        logits = []
        for v, column in enumerate(weight):
            logit = sum(h * w for h, w in zip(state, column, strict=True)) + (0.0 if bias is None else bias[v])
            if softcap is not None:
                logit = softcap * math.tanh(logit / softcap)
            logits.append(logit * scale / temperature)
        place = list(range(len(logits))) if choices is None else sorted(choices[k])
        logits = [logits[v] for v in place]
        largest = max(logits)
        norm = largest + math.log(sum(math.exp(logit - largest) for logit in logits))
        logps = [logit - norm for logit in logits]
        collision = math.log(sum(math.exp(2 * p) for p in logps))
        rows.append(
            (logps[place.index(target)], -sum(math.exp(p) * p for p in logps), sum(logps) / len(logps), collision)
        )
    return rows
