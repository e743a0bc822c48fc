"""Train or held-out: a decision of the prompt's own text, so that it is the same in every run, file order and mixture.

A family (prompts linked by near-duplicates) goes to one side as a whole, decided by its member with the smallest hash. So a
prompt changes sides only when a near-duplicate of it is added, and then its whole family changes with it.

Example:
    is_heldout = heldout_mask(keys, families=families(near, alive=alive), heldout=0.1)
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fairlead.core.errors import DataError, explain
from fairlead.prompts.words import Index, stable_hashes


def heldout_mask(keys: Sequence[str], *, families: Index, heldout: float) -> npt.NDArray[np.bool_]:
    """Choose the held-out prompts.

    Args:
        keys: normalised prompts.
        families: [n] label; equal labels go to the same side.
        heldout: below 1 the share of families; otherwise the number of prompts (then a prompt added later may displace another).
    Returns:
        [n] True for held-out.
    Raises:
        DataError: a number that leaves nothing to train on.
    """
    if heldout == 0 or not keys:
        return np.zeros(len(keys), bool)
    leaders, members = _leaders(keys, families)
    draw = stable_hashes([keys[int(i)] for i in leaders], salt="heldout")
    if heldout < 1:
        return (draw / 2.0**64 < heldout)[members]
    if heldout >= len(keys):
        raise DataError(explain("prompts.heldout", heldout, f"would hold out all of {len(keys)} prompts",
                                expected=f"< {len(keys)}, or a share below 1", remedy="Lower it or add sources"))  # fmt: skip
    return _first_that_fit(np.argsort(draw, kind="stable"), np.bincount(members), int(heldout))[members]


def _leaders(keys: Sequence[str], families: Index) -> tuple[Index, Index]:
    """The member with the smallest hash of each family [F], and the family's position for each prompt [n]."""
    _, members = np.unique(families, return_inverse=True)
    order = np.lexsort((stable_hashes(keys, salt="family"), members))
    _, first = np.unique(members[order], return_index=True)
    return order[first].astype(np.int64), members.astype(np.int64)


def _first_that_fit(order: Index, sizes: Index, limit: int) -> npt.NDArray[np.bool_]:
    """Families in `order` whose sizes add up to at most `limit`; one that is too large is passed over."""
    chosen = np.zeros(len(sizes), bool)
    for family in order:
        if sizes[family] <= limit:
            chosen[family] = True
            limit -= int(sizes[family])
        if limit == 0:
            break
    return chosen
