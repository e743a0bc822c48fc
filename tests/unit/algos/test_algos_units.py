"""Batches cut and merged, and statistics cut with them."""

import pytest
import torch

from fairlead.algos.random_batches import random_batch
from fairlead.algos.units import cut_statistics, global_statistics, merge_batches, num_units, select_units


@pytest.mark.parametrize("kind", ["tokens", "groups", "unpaired", "rollouts"])
def test_merging_the_parts_gives_the_whole(kind):
    batch = random_batch(kind, seed=2)
    merged = merge_batches([select_units(batch, list(units)) for units in (range(1), range(1, 4), range(4, 6))])
    assert num_units(merged) == num_units(batch) == 6
    for name in batch.__dataclass_fields__:
        found, expected = getattr(merged, name), getattr(batch, name)
        assert torch.equal(found, expected) if isinstance(expected, torch.Tensor) else found == expected, name


def test_statistics_are_cut_by_unit_and_scalars_are_for_all():
    known = {"at": torch.tensor([1.0, 2.0, 3.0]), "z": torch.tensor(4.0)}
    first, second = cut_statistics(known, [1, 2])
    assert (first["at"].tolist(), second["at"].tolist()) == ([1.0], [2.0, 3.0])
    assert first["z"] is second["z"] is known["z"]
    assert global_statistics(known, {"z": 0.0, "old": 7.0}) == {"z": 4.0, "old": 7.0}


def test_a_statistic_of_another_size_is_refused():
    with pytest.raises(ValueError, match="statistic at has 3 values for 4 units"):
        cut_statistics({"at": torch.zeros(3)}, [1, 3])
