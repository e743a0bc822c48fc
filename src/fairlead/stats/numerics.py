# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
"""The few functions of scipy and numpy that this package needs with types that their own do not give. Only this file meets scipy."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from scipy.special import bdtr, bdtrc, ndtr, ndtri, stdtr, stdtrit

from fairlead.stats.arrays import BoolArray, FloatArray, IntArray


def normal_cdf(z: FloatArray | float) -> FloatArray:
    """Return the share of a standard normal below z."""
    return np.asarray(ndtr(z), dtype=np.float64)


def normal_quantile(share: FloatArray | float) -> FloatArray:
    """Return the point of a standard normal with `share` below it."""
    return np.asarray(ndtri(share), dtype=np.float64)


def two_sided_z(confidence: float) -> float:
    """Return how many standard errors an interval of this confidence reaches to each side."""
    return float(ndtri(0.5 + confidence / 2))


def two_sided_t(confidence: float, degrees: int) -> float:
    """Return the same for Student's distribution."""
    return float(stdtrit(degrees, 0.5 + confidence / 2))


def student_tail(t: float, degrees: int) -> float:
    """Return the share of Student's distribution above t."""
    return float(stdtr(degrees, -t))


def binomial_at_most(successes: int, n: int, share: float) -> float:
    """Return the chance of at most `successes` in n trials."""
    return float(bdtr(successes, n, share))


def binomial_at_least(successes: int, n: int, share: float) -> float:
    """Return the chance of at least `successes` in n trials."""
    return 1.0 if successes <= 0 else float(bdtrc(successes - 1, n, share))


def solve_sparse(rows: IntArray, columns: IntArray, values: FloatArray, right: FloatArray) -> FloatArray:
    """Solve A x = right for the square sparse A with the given entries; entries of one cell add up."""
    matrix = coo_matrix((values, (rows, columns)), shape=(len(right), len(right))).tocsc()
    return np.asarray(spsolve(matrix, right), dtype=np.float64)


def sum_by_group(weights: FloatArray | BoolArray, groups: IntArray, num_groups: int) -> FloatArray:
    """Sum [N] weights into their groups."""
    return np.asarray(np.bincount(groups, weights=weights, minlength=num_groups), dtype=np.float64)


def quantile(x: FloatArray, share: float) -> float:
    """Return the value below which `share` of x lies, interpolated."""
    return float(np.quantile(x, share))
