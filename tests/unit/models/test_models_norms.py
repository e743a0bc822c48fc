"""Norms with a written-out gradient: against the model's own, finite differences, and a norm that does something else."""

import copy

import pytest
import torch
from torch import nn

import tiny_models
from fairlead.models.arithmetic import Arithmetic
from fairlead.models.norms import RootMeanSquareNorm, use_norms


class TinyRMSNorm(nn.Module):
    """As transformers writes it, in float64; `shift` is 1 for Gemma's kind."""

    def __init__(self, shift=0.0, twist=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
        self.shift, self.twist, self.eps = shift, twist, 1e-3

    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt() * (self.weight + self.shift) + self.twist


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_gradients_are_those_of_finite_differences(shift):
    norm = nn.Sequential(TinyRMSNorm(shift))
    use_norms(norm, Arithmetic())
    assert type(norm[0]) is RootMeanSquareNorm
    x = torch.tensor([[1.0, 2.0, -1.0], [0.01, 0.0, 0.02]], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, _: norm(x), (x, norm[0].weight))


def test_by_hand():
    """x = (3, 4, 0): mean square 25/3, so with epsilon 1e-3 the values are x / sqrt(25/3 + 0.001) times the weights."""
    norm = nn.Sequential(TinyRMSNorm())
    use_norms(norm, Arithmetic())
    scale = (25 / 3 + 1e-3) ** -0.5
    found = norm(torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(found.detach(), torch.tensor([1.5 * scale, -4 * scale, 0.0], dtype=torch.float64))


def test_a_norm_that_does_something_else_keeps_its_forward():
    odd = nn.Sequential(TinyRMSNorm(twist=0.1))
    use_norms(odd, Arithmetic())
    assert type(odd[0]) is TinyRMSNorm


@pytest.mark.parametrize(("kind", "count"), [("llama", 5), ("qwen3", 9), ("gemma2", 9), ("gpt2", 0)])
def test_the_norms_of_a_model_are_recognised(kind, count):
    """Two layers: llama has 2 each and the last; qwen3 2 more for queries and keys; gemma2 4 each; gpt2 has another kind."""
    model = tiny_models.load(kind)
    assert sum(isinstance(m, RootMeanSquareNorm) for m in model.module.modules()) == count


def test_bf16_is_a_rounding_of_fp32():
    exact = nn.Sequential(TinyRMSNorm().float())
    use_norms(exact, Arithmetic())
    low = copy.deepcopy(exact)
    use_norms(low, Arithmetic(precision="bf16"))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(low(x), exact(x).bfloat16())
    low(x).sum().backward()
    assert low[0].weight.grad.dtype == torch.float32
