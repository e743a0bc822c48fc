"""Optimal transport between two samples on the line: sorting, and what sorting does to a loss of distances.

Legend:
    M, K  values of the two samples
    C  cells of a transport plan

Example:
    plan = transport(u, ones, v, ones, beta=0.1)
    plan.loss_u.sum()        # mean over quantiles of -log sigma(beta (u(q) - v(q)))
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus


class Cells(NamedTuple):
    """A transport plan between two samples on the line: cell c moves a share of the mass from u[i] to v[j]."""

    i: Int[Tensor, "C"]
    j: Int[Tensor, "C"]
    shares: Float[Tensor, "C"]
    """Sum to 1."""


class Transported(NamedTuple):
    """The loss of a transport plan, and how it falls to the values of both samples (float64)."""

    loss_u: Float[Tensor, "M"]
    loss_v: Float[Tensor, "K"]
    slope_u: Float[Tensor, "M"]
    slope_v: Float[Tensor, "K"]
    violation: Float[Tensor, ""]
    """Share of the mass whose u lies below its v."""


def couple(u: Float[Tensor, "M"], u_weights: Tensor, v: Float[Tensor, "K"], v_weights: Tensor) -> Cells:
    """Join equal quantiles of two weighted samples: the optimal plan for every convex cost. At most M + K cells.

    Equals: both sides sorted and joined in order, for samples of one size and equal weights (tested).
    """
    orders = [torch.argsort(x, stable=True) for x in (u, v)]
    edges = [(w[o].cumsum(0) / w.sum()).clamp_max(1.0) for o, w in zip(orders, (u_weights, v_weights), strict=True)]
    right = torch.cat(edges).sort().values
    left = torch.cat([right.new_zeros(1), right[:-1]])
    middle = (left + right) / 2
    i, j = (o[torch.searchsorted(e, middle).clamp_max(len(e) - 1)] for o, e in zip(orders, edges, strict=True))
    return Cells(i, j, right - left)


def transport(u: Tensor, u_weights: Tensor, v: Tensor, v_weights: Tensor, *, beta: float) -> Transported:
    """Loss and slopes of the plan that joins equal quantiles; zeros when one sample has no weight."""
    u, u_weights, v, v_weights = (x.detach().double().cpu() for x in (u, u_weights, v, v_weights))
    loss_u, loss_v, slope_u, slope_v = (torch.zeros_like(x) for x in (u, v, u, v))
    if not (u_weights.sum() > 0 and v_weights.sum() > 0):
        return Transported(loss_u, loss_v, slope_u, slope_v, u.new_zeros(()))
    cells = couple(u, u_weights, v, v_weights)
    gaps = beta * (u[cells.i] - v[cells.j])
    losses, slopes = cells.shares * softplus(-gaps), -beta * cells.shares * torch.sigmoid(-gaps)
    return Transported(
        loss_u.index_add(0, cells.i, losses),
        loss_v.index_add(0, cells.j, losses),
        slope_u.index_add(0, cells.i, slopes),
        slope_v.index_add(0, cells.j, -slopes),
        (cells.shares * (gaps < 0)).sum(),
    )
