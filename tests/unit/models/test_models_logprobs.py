"""Log-probabilities in chunks: against plain loops, gradcheck, closed forms, and how much is ever in memory."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fairlead.models import logprobs as module
from fairlead.models.arithmetic import Arithmetic
from fairlead.models.logprobs import OutputHead, token_logprobs
from naive import logprobs_naive

BOTH = ("entropy", "mean_logprobs")
ALL = (*BOTH, "collision_logprobs")


def problem(seed, *, num=5, hidden=4, vocabulary=7, has_bias=True, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    shapes = ((num, hidden), (vocabulary, hidden), (vocabulary,))
    states, weight, bias = (torch.from_numpy(2 * rng.normal(size=s)).to(dtype).requires_grad_() for s in shapes)
    return states, weight, bias if has_bias else None, torch.from_numpy(rng.integers(0, vocabulary, num))


@given(
    seed=st.integers(0, 10**6), has_bias=st.booleans(), softcap=st.none() | st.floats(1, 9), scale=st.floats(0.2, 3),
    temperature=st.floats(0.3, 3),
)  # fmt: skip
def test_logprobs_entropy_and_mean_are_the_plain_loop(seed, has_bias, softcap, scale, temperature):
    states, weight, bias, targets = problem(seed, has_bias=has_bias)
    found = token_logprobs(
        states, OutputHead(weight, bias, softcap, scale), targets, temperature=temperature, needs=ALL
    )
    expected = logprobs_naive.token_logprobs(
        states.tolist(), weight.tolist(), None if bias is None else bias.tolist(), targets.tolist(),
        softcap=softcap, scale=scale, temperature=temperature,
    )  # fmt: skip
    np.testing.assert_allclose(torch.stack(found, 1).detach().numpy(), expected, atol=1e-10)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
@pytest.mark.parametrize("needs", [(), ("entropy",), ("mean_logprobs",), BOTH])
@pytest.mark.parametrize(("softcap", "has_bias"), [(None, False), (2.5, True)])
def test_gradients_are_those_of_finite_differences(needs, softcap, has_bias, kept_bytes, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    states, weight, bias, targets = problem(3, num=3, vocabulary=5, has_bias=has_bias)
    inputs = [x for x in (states, weight, bias) if x is not None]

    def outputs(states, weight, bias=None):
        found = token_logprobs(states, OutputHead(weight, bias, softcap, 0.7), targets, temperature=1.3, needs=needs)
        return tuple(x for x in found if x is not None)

    assert len(outputs(*inputs)) == 1 + len(needs)
    # gradcheck runs the backward twice; what was kept is used up by the first, so the second differs in its rounding
    torch.autograd.gradcheck(outputs, inputs, nondet_tol=1e-12)


def test_a_uniform_distribution_by_hand():
    """Zero weights: every logprob and the mean are -log V, the entropy is log V, the summed squares are V / V^2 = 1 / V."""
    found = token_logprobs(torch.ones(3, 2), OutputHead(torch.zeros(8, 2)), torch.tensor([0, 3, 7]), needs=ALL)
    for values, expected in zip(found, (-math.log(8), math.log(8), -math.log(8), -math.log(8)), strict=True):
        torch.testing.assert_close(values, torch.full((3,), expected))


def test_two_tokens_by_hand():
    """Logits (log 3, 0) at temperature 1: p = (3/4, 1/4). At temperature 1/2 they double: p = (9/10, 1/10)."""
    head = OutputHead(torch.tensor([[math.log(3)], [0.0]]))
    for temperature, p in ((1.0, 0.75), (0.5, 0.9)):
        found = token_logprobs(torch.ones(1, 1), head, torch.tensor([1]), temperature=temperature, needs=ALL)
        assert found.logprobs.item() == pytest.approx(math.log(1 - p), abs=1e-6)
        assert found.entropy.item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), abs=1e-6)
        assert found.mean_logprobs.item() == pytest.approx((math.log(p) + math.log(1 - p)) / 2, abs=1e-6)
        assert found.collision_logprobs.item() == pytest.approx(math.log(p**2 + (1 - p) ** 2), abs=1e-6)


def test_only_what_is_asked_for_comes_back():
    states, weight, _, targets = problem(0)
    found = token_logprobs(states, OutputHead(weight), targets)
    assert found.entropy is None and found.mean_logprobs is None and found.collision_logprobs is None
    both = token_logprobs(states, OutputHead(weight), targets, needs=("values", *BOTH))
    assert torch.equal(both.logprobs, found.logprobs) and both.entropy is not None and both.mean_logprobs is not None


def test_no_targets_give_no_logprobs():
    states, weight, _, _ = problem(0)
    found = token_logprobs(states[:0], OutputHead(weight), torch.zeros(0, dtype=torch.long))
    assert found.logprobs.shape == (0,)


def rows_per_chunk(vocabulary):
    return module.chunk_rows(vocabulary)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 30])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_chunk_boundaries_change_nothing(extra, kept_bytes, monkeypatch):
    """Values and gradients of one row less than a chunk, a whole chunk, one more: against torch's own log_softmax."""
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    vocabulary = 1 << 17
    num = 2 * rows_per_chunk(vocabulary) + extra
    states, weight, _, targets = problem(1, num=num, hidden=2, vocabulary=vocabulary, has_bias=False)
    found = token_logprobs(states, OutputHead(weight), targets).logprobs
    scale = torch.arange(num) / num
    grads = torch.autograd.grad((found * scale).sum(), (states, weight))
    expected = (states @ weight.t()).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    for grad, peer in zip(grads, torch.autograd.grad((expected * scale).sum(), (states, weight)), strict=True):
        torch.testing.assert_close(grad, peer, atol=1e-12, rtol=1e-10)


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        self.largest = max([self.largest, *(x.numel() for x in tree_leaves(output) if isinstance(x, torch.Tensor))])
        return output


@pytest.mark.parametrize("kept_chunks", [0, 2])
def test_the_logits_of_all_positions_never_exist(kept_chunks, monkeypatch):
    """Beyond the bytes that may be kept; up to them the whole vocabulary of the batch is held once."""
    vocabulary = 1 << 16
    num = 3 * rows_per_chunk(vocabulary)
    monkeypatch.setattr(module, "KEPT_BYTES", kept_chunks * rows_per_chunk(vocabulary) * vocabulary * 4)
    states, weight, _, targets = problem(
        0, num=num, hidden=2, vocabulary=vocabulary, has_bias=False, dtype=torch.float32
    )
    with _Largest() as spy:
        found = token_logprobs(states, OutputHead(weight), targets, needs=BOTH)
        sum(x.sum() for x in found[:3]).backward()
    assert spy.largest <= rows_per_chunk(vocabulary) * vocabulary < num * vocabulary
    with _Largest() as spy:
        (states @ weight.t()).log_softmax(-1)
    assert spy.largest == num * vocabulary, "the spy sees what it should"


def test_low_precision_weights_are_not_rounded_twice():
    """With bf16 weights and states, the logprobs are those of the same numbers in float64, but for fp32 rounding."""
    states, weight, _, targets = problem(5, num=6, hidden=64, vocabulary=50, has_bias=False, dtype=torch.float32)
    low = [x.detach().bfloat16() for x in (states, weight)]
    found = token_logprobs(low[0], OutputHead(low[1]), targets).logprobs
    expected = token_logprobs(low[0].double(), OutputHead(low[1].double()), targets).logprobs
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("needs", [(), ("mean_logprobs",)])
def test_sure_tokens_learn_the_same_from_what_was_kept_in_bf16(needs, monkeypatch):
    """At p near 1 the gradient is 1 - p, which bf16 cannot hold beside p: it must not come out as 0."""
    states, weight, _, _ = problem(0, num=40, hidden=16, vocabulary=50, has_bias=False, dtype=torch.float32)
    targets = (states @ weight.t()).argmax(-1)
    head = OutputHead(weight.detach().requires_grad_(), arithmetic=Arithmetic(precision="bf16"))
    grads = []
    for kept_bytes in (1 << 30, 0):
        monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
        x = (1.5 * states.detach()).requires_grad_()
        found = token_logprobs(x, head, targets, needs=needs)
        assert float(found.logprobs.detach().exp().median()) > 0.98
        sum(part.sum() for part in found if part is not None).backward()
        grads.append(x.grad)
    sizes = grads[1].norm(dim=1)
    error = ((grads[0] - grads[1]).norm(dim=1) / sizes)[sizes > 1e-6]
    assert len(error) > 30
    assert float(error.median()) < 0.02 and float(error.max()) < 0.1


class CountedConversions(TorchDispatchMode):
    """Counts tensors of one shape that are converted to bf16."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.num = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.num += args[0].shape == self.shape
        return func(*args, **kwargs)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 30])
def test_the_heads_weight_is_converted_once_and_not_in_each_chunk(kept_bytes, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    monkeypatch.setitem(module._CHUNK_ELEMENTS, "cpu", 1)
    vocabulary, width, num = 40, 24, 3 * module._FEWEST_ROWS
    torch.manual_seed(0)
    hidden, weight = torch.randn(num, width, requires_grad=True), torch.randn(vocabulary, width, requires_grad=True)
    head = OutputHead(weight=weight, arithmetic=Arithmetic(precision="bf16"))
    assert len(module._chunks(num, vocabulary, "cpu")) == 3
    with CountedConversions(weight.shape) as counted:
        token_logprobs(hidden, head, torch.randint(0, vocabulary, (num,))).logprobs.sum().backward()
    assert counted.num == 1


def choices_of(targets, vocabulary, seed):
    """[K, C] some tokens of every position, its target among them, and the same as lists."""
    rng = np.random.default_rng(seed)
    sets = [sorted({int(t), *rng.integers(0, vocabulary, int(rng.integers(0, 4))).tolist()}) for t in targets]
    width = max(map(len, sets))
    return torch.tensor([s + [-1] * (width - len(s)) for s in sets], dtype=torch.int32), sets


@pytest.mark.parametrize("kept_bytes", [0, 1 << 30])
@pytest.mark.parametrize("has_choices", [False, True])
@pytest.mark.parametrize("weighs_entropy", [False, True])
def test_bf16_reads_entropy_on_the_way_and_learns_from_it_where_it_counts(
    weighs_entropy, has_choices, kept_bytes, monkeypatch
):
    """Values are those of fp32 up to rounding in the products; gradients to 2 %, with an entropy bonus as without."""
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    states, weight, _, targets = problem(7, num=60, hidden=32, vocabulary=130, has_bias=False, dtype=torch.float32)
    choices = choices_of(targets, 130, 1)[0] if has_choices else None
    found = []
    for precision in ("bf16", "fp32"):
        x = (0.3 * states.detach()).requires_grad_()
        head = OutputHead(weight, arithmetic=Arithmetic(precision=precision))
        out = token_logprobs(x, head, targets, temperature=1.3, needs=("entropy",), choices=choices)
        bonus = out.entropy.sum() if weighs_entropy else out.entropy.detach().sum()
        (out.logprobs.sum() + 0.5 * bonus).backward()
        found.append((out.logprobs.detach(), out.entropy.detach(), x.grad))
    for low, exact in zip(*found, strict=True):
        assert float((low - exact).norm() / exact.norm()) < 0.02


@given(seed=st.integers(0, 10**6), softcap=st.none() | st.floats(1, 9), temperature=st.floats(0.3, 3))
def test_among_some_tokens_they_are_the_plain_loop_over_these(seed, softcap, temperature):
    states, weight, bias, targets = problem(seed)
    choices, sets = choices_of(targets, len(weight), seed)
    found = token_logprobs(states, OutputHead(weight, bias, softcap), targets, temperature=temperature,
                           needs=("entropy", "collision_logprobs"), choices=choices)  # fmt: skip
    expected = logprobs_naive.token_logprobs(
        states.tolist(), weight.tolist(), bias.tolist(), targets.tolist(), softcap=softcap, temperature=temperature, choices=sets
    )  # fmt: skip
    for row, place in ((found.logprobs, 0), (found.entropy, 1), (found.collision_logprobs, 3)):
        np.testing.assert_allclose(row.detach().numpy(), [e[place] for e in expected], atol=1e-10)


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
@pytest.mark.parametrize("needs", [(), ("entropy",)])
@pytest.mark.parametrize("softcap", [None, 2.5])
def test_gradients_among_some_tokens(needs, softcap, kept_bytes, monkeypatch):
    """By finite differences, and nothing reaches a token that is not among them at any position."""
    monkeypatch.setattr(module, "KEPT_BYTES", kept_bytes)
    states, weight, bias, targets = problem(3, num=3, vocabulary=6)
    targets = targets % 5
    choices, _ = choices_of(targets, 5, 1)

    def outputs(states, weight, bias):
        found = token_logprobs(
            states, OutputHead(weight, bias, softcap), targets, temperature=1.3, needs=needs, choices=choices
        )
        return tuple(x for x in found if x is not None)

    torch.autograd.gradcheck(outputs, (states, weight, bias), nondet_tol=1e-12)
    sum(x.sum() for x in outputs(states, weight, bias)).backward()
    assert float(weight.grad[5].abs().max()) == float(bias.grad[5]) == 0.0 and bool(weight.grad.isfinite().all())


@pytest.mark.parametrize("is_low", [False, True])
def test_gradients_among_some_tokens_in_low_precision_are_finite_and_near(is_low):
    states, weight, _, targets = problem(5, num=4, hidden=32, vocabulary=64, has_bias=False, dtype=torch.float32)
    choices, _ = choices_of(targets, 64, 1)
    found = []
    for precision in ("bf16", "fp32") if is_low else ("fp32", "fp32"):
        weight.grad = None
        head = OutputHead(weight, arithmetic=Arithmetic(precision=precision))
        token_logprobs(states, head, targets, choices=choices).logprobs.sum().backward()
        found.append(weight.grad.clone())
    assert bool(found[0].isfinite().all())
    torch.testing.assert_close(found[0], found[1], atol=0.1, rtol=0.1)
