"""A rollout of several turns by the definition: one token after another, nothing shared, observations walked over."""


def advantages_over_turns(pieces, *, gamma, lam):
    """Advantages of the policy's tokens, and 0 for observations.

    A_t = sum over the policy's tokens k from t on of (gamma lam)^(number of the policy's tokens between) * delta_k,
    delta_k = what is paid from k up to the policy's next token + gamma * value there - value at k.

    Args:
        pieces: turns and observations in order, each (is_turn, [(value, paid), ...]).
    """
    tokens = [(is_turn, value, paid) for is_turn, piece in pieces for value, paid in piece]
    found = [0.0] * len(tokens)
    for t, (is_turn, _, _) in enumerate(tokens):
        if not is_turn:
            continue
        weight, total, k = 1.0, 0.0, t
        while k < len(tokens):
            earned, after = tokens[k][2], k + 1
            while after < len(tokens) and not tokens[after][0]:
                earned += tokens[after][2]
                after += 1
            next_value = tokens[after][1] if after < len(tokens) else 0.0
            total += weight * (earned + gamma * next_value - tokens[k][1])
            weight *= gamma * lam
            k = after
        found[t] = total
    return found
