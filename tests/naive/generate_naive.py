"""Sampling and generation as plain loops: no cache, no batch, no padding."""

import math


def distribution(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, seen=()):
    """Probabilities [V] that a token is drawn from.

    top-k keeps what ties with the k-th; top-p then keeps the most likely tokens, lower ids first among equals, up to and including
    the one with which their probability reaches top_p; min-p drops what has less than that share of the best.
    """
    logits = [penalised(logit, repetition_penalty) if v in seen else logit for v, logit in enumerate(logits)]
    if temperature > 0:
        logits = [logit / temperature for logit in logits]
    kept = set(range(len(logits)))
    if 0 < top_k < len(logits):
        threshold = sorted(logits, reverse=True)[top_k - 1]
        kept = {v for v in kept if logits[v] >= threshold}
    if top_p < 1.0:
        probabilities = _softmax(logits, kept)
        reached, nucleus = 0.0, set()
        for v in sorted(kept, key=lambda v: (-probabilities[v], v)):
            if reached >= top_p:
                break
            nucleus.add(v)
            reached += probabilities[v]
        kept = nucleus
    best = max(logits[v] for v in kept)
    kept = {v for v in kept if math.exp(logits[v] - best) >= min_p}
    return _softmax(logits, kept)


def penalised(logit, penalty):
    """Less likely, whatever the sign."""
    return logit / penalty if logit > 0 else logit * penalty


def _softmax(logits, kept):
    largest = max(logits[v] for v in kept)
    weights = [math.exp(logit - largest) if v in kept else 0.0 for v, logit in enumerate(logits)]
    return [w / sum(weights) for w in weights]


def draw(probabilities, uniform):
    """The first token whose cumulative probability is above `uniform`."""
    reached = 0.0
    for token, probability in enumerate(probabilities):
        reached += probability
        if uniform < reached:
            return token
    return max(v for v, p in enumerate(probabilities) if p > 0)


def greedy(next_logits, prompt, *, max_new_tokens, stop_token_ids):
    """Tokens after `prompt`; `next_logits(ids)` reads the whole text again for every token."""
    ids = list(prompt)
    for _ in range(max_new_tokens):
        logits = next_logits(ids)
        ids.append(max(range(len(logits)), key=lambda v: logits[v]))
        if ids[-1] in stop_token_ids:
            break
    return ids[len(prompt) :]
