"""One step of each optimiser in plain numpy loops, from the published formulas. The specification that the library code is held to."""

import math

import numpy as np

NS = (3.4445, -4.775, 2.0315)  # Jordan et al. 2024


def adamw(weight, grads, *, rate, beta1, beta2, eps, decay):
    """Loshchilov and Hutter 2019, algorithm 2; all steps at one rate."""
    first = second = np.zeros_like(weight)
    for t, grad in enumerate(grads, start=1):
        first, second = beta1 * first + (1 - beta1) * grad, beta2 * second + (1 - beta2) * grad**2
        weight = weight * (1 - rate * decay)
        weight = weight - rate * (first / (1 - beta1**t)) / (np.sqrt(second / (1 - beta2**t)) + eps)
    return weight


def muon_update(momentum):
    """Newton-Schulz on the transposed side when there are more rows than columns; singular values go to about 1."""
    a, b, c = NS
    x = momentum.T if momentum.shape[0] > momentum.shape[1] else momentum
    x = x / np.linalg.norm(x)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if momentum.shape[0] > momentum.shape[1] else x


def muon(weight, grads, *, rate, decay):
    """Jordan et al. 2024 with Nesterov momentum 0.95; the size of AdamW's updates by 0.2 sqrt(larger side) (arXiv:2502.16982, eq. 4)."""
    buffer = np.zeros_like(weight)
    for grad in grads:
        buffer = 0.95 * buffer + 0.05 * grad
        update = muon_update(0.05 * grad + 0.95 * buffer)
        weight = weight * (1 - rate * decay) - rate * 0.2 * math.sqrt(max(weight.shape)) * update
    return weight


def adafactor(weight, grads, *, rate, decay, eps1, eps2=1e-3, clip=1.0):
    """Shazeer and Stern 2018, algorithms 4 and 5: relative step, update clipping, beta2_t = 1 - t^-0.8."""
    rows, columns, second = np.zeros(weight.shape[:1]), np.zeros(weight.shape[-1:]), np.zeros_like(weight)
    for t, grad in enumerate(grads, start=1):
        new = t**-0.8
        size = max(eps2, math.sqrt((weight**2).mean())) * min(rate, 1 / math.sqrt(t))
        if weight.ndim == 2:
            rows, columns = (1 - new) * rows + new * (grad**2).mean(1), (1 - new) * columns + new * (grad**2).mean(0)
            estimate = np.outer(rows, columns) / rows.mean()
        else:
            second = (1 - new) * second + new * grad**2
            estimate = second
        update = grad / np.sqrt(np.maximum(estimate, eps1**2))
        update = update / max(1.0, math.sqrt((update**2).mean()) / clip)
        weight = weight * (1 - rate * decay) - size * update
    return weight
