"""What members of an ensemble say together."""

import numpy as np
import pytest

from fairlead.rewards.ensemble import accuracy_by_disagreement


def test_accuracy_where_members_agree_and_where_they_split():
    """Six pairs of two members: all name one side in four, of which three are right; of the two splits one is right."""
    margins = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0], [-1.0, -1.5], [3.0, -1.0], [-3.0, 1.0]])
    found = {name: (spread, part.value, part.n) for name, spread, part in accuracy_by_disagreement(margins)}
    assert found["all name one side"] == pytest.approx((0.5625, 0.75, 4))
    assert found["split"] == pytest.approx((2.0, 0.5, 2))
    assert found["smallest spread"] == pytest.approx((0.125, 0.5, 2))
    assert found["middle"] == pytest.approx((1.0, 1.0, 2))
    assert found["largest spread"] == pytest.approx((2.0, 0.5, 2))


def test_parts_without_pairs_are_left_out():
    assert [name for name, *_ in accuracy_by_disagreement(np.array([[1.0, 2.0]]))] == [
        "all name one side",
        "smallest spread",
    ]
