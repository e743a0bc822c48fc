"""Ragged tokens."""

import pytest
import torch
from jaxtyping import TypeCheckError

from fairlead.algos.masks import flatten_by_time, last_token_rows, pad_by_time, sequence_lengths, sum_and_count

_INDEX = torch.tensor([0, 0, 0, 1, 2, 2])


def test_lengths_count_sequences_without_tokens():
    assert sequence_lengths(torch.tensor([0, 0, 2]), 4).tolist() == [2, 0, 1, 0]


def test_last_rows():
    assert last_token_rows(_INDEX, 3).tolist() == [2, 3, 5]


@pytest.mark.parametrize(
    ("index", "num_sequences", "message"),
    [([0, 1, 0], 2, "not sorted"), ([0, 0, 2], 3, "1 of 3 sequences have no token")],
)
def test_last_rows_refuse_what_would_lose_a_score(index, num_sequences, message):
    with pytest.raises(ValueError, match=message):
        last_token_rows(torch.tensor(index), num_sequences)


def test_padding_by_time_and_back():
    x = torch.arange(1.0, 7.0)
    padded = pad_by_time(x, _INDEX, 3)
    assert padded.tolist() == [[1, 4, 5], [2, 0, 6], [3, 0, 0]]
    assert torch.equal(flatten_by_time(padded, _INDEX), x)


def test_sum_leaves_out_what_is_not_finite():
    """1 + 3 over two values; the -inf between them is not kept."""
    x = torch.tensor([1.0, -torch.inf, 3.0], requires_grad=True)
    total, count = sum_and_count(x, torch.tensor([True, False, True]))
    assert (float(total), float(count)) == (4.0, 2.0)
    assert not total.requires_grad


def test_wrong_shapes_are_refused_in_tests():
    with pytest.raises(TypeCheckError):
        pad_by_time(torch.zeros(5), _INDEX, 3)
