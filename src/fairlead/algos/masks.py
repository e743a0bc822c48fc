"""Ragged tokens: which token is the last of its sequence, how long sequences are, and sums that leave tokens out.

Token values are flat; `sequence_index` says whose they are. What is left out is replaced with `torch.where`, never
multiplied by zero, because `0 * -inf` is NaN in the value and in the gradient.

Legend:
    N  tokens, flat
    B  sequences
    T  tokens of the longest sequence

Example:
    sequence_lengths(torch.tensor([0, 0, 2]), 3)   # [2, 0, 1]
"""

import torch
from jaxtyping import Bool, Int, Num, Shaped
from torch import Tensor


def sequence_lengths(sequence_index: Int[Tensor, "N"], num_sequences: int) -> Int[Tensor, "B"]:
    """Count the tokens of every sequence; 0 for a sequence without tokens."""
    return torch.bincount(sequence_index, minlength=num_sequences)


def last_token_rows(sequence_index: Int[Tensor, "N"], num_sequences: int) -> Int[Tensor, "B"]:
    """Row of the last token of every sequence.

    Raises:
        ValueError: tokens are not sorted by sequence, or a sequence has no token.
    """
    lengths = _checked_lengths(sequence_index, num_sequences)
    if not bool((lengths > 0).all()):
        raise ValueError(f"{int((lengths == 0).sum())} of {num_sequences} sequences have no token")
    return lengths.cumsum(0) - 1


def pad_by_time(x: Shaped[Tensor, "N"], sequence_index: Int[Tensor, "N"], num_sequences: int) -> Shaped[Tensor, "T B"]:
    """Lay flat values out as time by sequence, zero (False) after each sequence's end."""
    lengths = _checked_lengths(sequence_index, num_sequences)
    padded = torch.zeros(int(lengths.max()), num_sequences, dtype=x.dtype, device=x.device)
    padded[_positions(sequence_index, lengths), sequence_index] = x
    return padded


def flatten_by_time(padded: Shaped[Tensor, "T B"], sequence_index: Int[Tensor, "N"]) -> Shaped[Tensor, "N"]:
    """Undo `pad_by_time`."""
    lengths = _checked_lengths(sequence_index, padded.shape[1])
    return padded[_positions(sequence_index, lengths), sequence_index]


def sum_and_count(
    x: Num[Tensor, "M"], keep: Bool[Tensor, "M"] | None = None
) -> tuple[Num[Tensor, ""], Num[Tensor, ""]]:
    """Sum and number of the values where `keep`, without gradient: the two halves of a metric."""
    x = x.detach()
    if keep is None:
        return x.sum(), x.new_tensor(float(x.numel()))
    return torch.where(keep, x, torch.zeros_like(x)).sum(), keep.sum().to(x.dtype)


def _positions(sequence_index: Int[Tensor, "N"], lengths: Int[Tensor, "B"]) -> Int[Tensor, "N"]:
    """Place of every token inside its sequence, from 0."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(sequence_index.numel(), device=sequence_index.device) - starts[sequence_index]


def _checked_lengths(sequence_index: Int[Tensor, "N"], num_sequences: int) -> Int[Tensor, "B"]:
    if bool((sequence_index[1:] < sequence_index[:-1]).any()):
        raise ValueError("tokens are not sorted by sequence_index")
    return sequence_lengths(sequence_index, num_sequences)
