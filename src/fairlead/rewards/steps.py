"""Scores of a reply's steps to one score, and what each step is paid: pure functions on numpy arrays.

What step s is paid is what it changes of the score so far,

    paid_s = score(p_1 .. p_s) - score(p_1 .. p_(s-1)),     score of nothing = 0,

so the payments add up to the score of the reply whatever the aggregate: paid at the ends of steps or all at the end, the return is the same
(a potential-based shaping, Ng et al. 1999), and only the credit moves to where it is earned.

Legend: S steps of one reply.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
StepAggregate = Literal["min", "product", "last", "mean", "sum"]


def running_scores(steps: Floats, how: StepAggregate) -> Floats:
    """[S] score of each beginning of a reply, from [S] probabilities that a step is right.

    min: the weakest step so far. product: that all so far are right, if steps fail by themselves. last: the newest step. mean, sum: of all so far.
    """
    if how == "min":
        return np.minimum.accumulate(steps)
    if how == "product":
        return np.multiply.accumulate(steps)
    if how == "last":
        return steps.copy()
    total = np.add.accumulate(steps)
    return total if how == "sum" else total / np.arange(1, len(steps) + 1)


def reply_score(steps: Floats, how: StepAggregate) -> float:
    """Score of a reply; NaN of one without steps."""
    return float(running_scores(steps, how)[-1]) if len(steps) else float("nan")


def step_payments(steps: Floats, how: StepAggregate) -> Floats:
    """[S] what each step is paid; their sum is `reply_score`."""
    return np.diff(running_scores(steps, how), prepend=0.0)
