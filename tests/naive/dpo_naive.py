"""The DPO family as plain loops over padded pairs: a and b are the scores of the chosen and the rejected completion."""

import math


def log_ratio(logprobs, ref_logprobs, mask, *, average=False, shorter=None, ld_alpha=1.0):
    """Sum (or mean) of policy minus reference over the kept tokens, nats; tokens from place `shorter` on count `ld_alpha`."""
    total, num = 0.0, 0
    for p, q, keep in zip(logprobs, ref_logprobs, mask, strict=True):
        if keep:
            total += (p - q) * (1.0 if shorter is None or num < shorter else ld_alpha)
            num += 1
    return total / num if average else total


def divergence_slope(log_u, *, divergence, alpha=0.5):
    """f'(u), moved to 0 at u = 1."""
    u = math.exp(log_u)
    if divergence == "forward_kl":
        return 1 - 1 / u
    if divergence == "js":
        return math.log(2 * u / (1 + u))
    if divergence == "alpha":
        return (1 - u**-alpha) / alpha
    return log_u


def pair_loss(name, a, b, p, *, beta, flip_rate=0.0, smoothing=0.0, tau=1.0):
    """The loss under the soft label p: the paper's for the pair as it stands with p, for the pair turned round with 1 - p."""
    if name == "exo":
        return _exo(a, b, p, beta=beta, smoothing=smoothing)
    settings = {"flip_rate": flip_rate} if name in ("cdpo", "robust") else {"tau": tau} if name == "discopop" else {}
    link = {"dpo": _dpo, "cdpo": _cdpo, "robust": _robust, "ipo": _ipo, "hinge": _hinge, "nca": _nca, "sppo": _sppo,
            "apo_zero": _apo_zero, "apo_down": _apo_down, "discopop": _discopop}[name]  # fmt: skip
    return p * link(a, b, beta=beta, **settings) + (1 - p) * link(b, a, beta=beta, **settings)


def imitation_loss(chosen, rejected, mask_chosen, mask_rejected, p, *, average):
    """Negative log-likelihood of the better side: p of the chosen, 1 - p of the rejected."""
    sides = []
    for row, mask in ((chosen, mask_chosen), (rejected, mask_rejected)):
        kept = [x for x, keep in zip(row, mask, strict=True) if keep]
        sides.append(-sum(kept) / (len(kept) if average == "token" else 1))
    return p * sides[0] + (1 - p) * sides[1]


def policy_weight(chosen, rejected):
    """WPO's weight of a pair from the (aligned) token log-probabilities of both sides."""
    v = [math.exp(sum(row) / len(row)) for row in (chosen, rejected)]
    return min(1.0, v[0] * v[1])


def _dpo(a, b, *, beta):
    return _minus_log_sigmoid(beta * (a - b))


def _cdpo(a, b, *, beta, flip_rate):
    return (1 - flip_rate) * _dpo(a, b, beta=beta) + flip_rate * _dpo(b, a, beta=beta)


def _robust(a, b, *, beta, flip_rate):
    return ((1 - flip_rate) * _dpo(a, b, beta=beta) - flip_rate * _dpo(b, a, beta=beta)) / (1 - 2 * flip_rate)


def _ipo(a, b, *, beta):
    return (a - b - 1 / (2 * beta)) ** 2


def _hinge(a, b, *, beta):
    return max(0.0, 1 - beta * (a - b))


def _exo(a, b, p, *, beta, smoothing):
    """KL of the policy's preference from the label's, over the two outcomes."""
    q = 1 / (1 + math.exp(-beta * (a - b)))
    target = p * (1 - smoothing) + (1 - p) * smoothing
    return q * math.log(q / target) + (1 - q) * math.log((1 - q) / (1 - target))


def _nca(a, b, *, beta):
    return _minus_log_sigmoid(beta * a) + (_minus_log_sigmoid(-beta * a) + _minus_log_sigmoid(-beta * b)) / 2


def _sppo(a, b, *, beta):
    """Squares of what is missing to +-1 / (2 beta), less what they are at a = b = 0."""
    goal = 1 / (2 * beta)
    return (a - goal) ** 2 + (b + goal) ** 2 - 2 * goal**2


def _apo_zero(a, b, *, beta):
    return 1 - _sigmoid(beta * a) + _sigmoid(beta * b)


def _apo_down(a, b, *, beta):
    return _sigmoid(beta * a) + 1 - _sigmoid(beta * (a - b))


def _discopop(a, b, *, beta, tau):
    x = beta * (a - b)
    share = _sigmoid(x / tau)
    return (1 - share) * _minus_log_sigmoid(x) + share * math.exp(-x)


def _sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def _minus_log_sigmoid(x):
    return math.log1p(math.exp(-x)) if x > 0 else -x + math.log1p(math.exp(x))
