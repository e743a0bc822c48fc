"""The variable-length plan against the padded blocks, through a plain loop in the place of the kernel: values, gradients, index arrays."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.varlen import varlen_attn

import tiny_models
from fairlead.models.attention import Scoring, TreeAttention
from fairlead.models.segments import plan_segments
from fairlead.models.varlen import VarlenAttention, VarlenKernel, device_kernel, flatten, plan_attention
from fairlead.text import Branch, Tree, pack_trees
from naive import varlen_naive

CPU, HALF = torch.device("cpu"), torch.bfloat16
NAIVE = VarlenKernel(varlen_naive.varlen_attn, dtypes=(torch.float64,), head_multiple=4)
OLD = replace(NAIVE, function=varlen_naive.varlen_attn_2_11)


def random_layout(rng):
    trees = []
    for _ in range(int(rng.integers(1, 5))):
        lengths = rng.integers(1, 40, int(rng.integers(1, 5)))
        branches = tuple(Branch(token_ids=rng.integers(6, 96, n)) for n in lengths)
        trees.append(Tree(prompt_ids=rng.integers(6, 96, int(rng.integers(1, 9))), branches=branches))
    return pack_trees(trees)


def attend(plan, layout, scoring, *, heads=(4, 2, 2), size=4):
    """Output and the gradients of queries, keys and values."""
    rng = np.random.default_rng(0)
    parts = [torch.from_numpy(rng.normal(size=(1, h, len(layout.token_ids), size))).requires_grad_() for h in heads]
    out = plan.attend(None, *parts, scoring)
    (out * torch.from_numpy(rng.normal(size=out.shape))).sum().backward()
    return [out.detach(), *(part.grad for part in parts)]


@given(seed=st.integers(0, 10**6), window=st.none() | st.integers(1, 50), kernel=st.sampled_from([NAIVE, OLD]))
def test_it_is_the_padded_blocks(seed, window, kernel):
    layout = random_layout(np.random.default_rng(seed))
    scoring = Scoring(scale=0.4, window=window)
    found = attend(VarlenAttention(layout, device=CPU, kernel=kernel), layout, scoring)
    expected = attend(TreeAttention(layout), layout, scoring)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_segments_by_hand():
    """A prompt of 2 with branches of 1 and 3: the longer branch goes with the prompt, the other has the prompt as keys."""
    tree = Tree(
        prompt_ids=np.array([7, 8]),
        branches=(Branch(token_ids=np.array([9])), Branch(token_ids=np.array([10, 11, 12]))),
    )
    flat = flatten(plan_segments(pack_trees([tree])))
    by_length = sorted(zip(flat.num_queries.tolist(), flat.num_keys.tolist(), strict=True))
    assert by_length == [(1, 3), (5, 5)]
    keys = np.split(flat.keys, np.cumsum(flat.num_keys)[:-1])
    queries = np.split(flat.queries, np.cumsum(flat.num_queries)[:-1])
    assert {tuple(q): tuple(k) for q, k in zip(queries, keys, strict=True)} == {
        (0, 1, 3, 4, 5): (0, 1, 3, 4, 5),
        (2,): (0, 1, 2),
    }
    assert np.array_equal(flat.queries[flat.home], np.arange(6))


@given(seed=st.integers(0, 10**6))
def test_every_token_is_one_query_and_queries_are_the_last_keys(seed):
    layout = random_layout(np.random.default_rng(seed))
    flat = flatten(plan_segments(layout))
    assert sorted(flat.queries) == list(range(len(layout.token_ids)))
    queries = np.split(flat.queries, np.cumsum(flat.num_queries)[:-1])
    keys = np.split(flat.keys, np.cumsum(flat.num_keys)[:-1])
    assert all(np.array_equal(k[len(k) - len(q) :], q) for q, k in zip(queries, keys, strict=True))
    assert all(np.array_equal(layout.position_ids[k], np.arange(len(k))) for k in keys)


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_models_have_the_same_logprobs_and_gradients(kind):
    """Soft-caps and sinks, which the kernel lacks, go through the blocks."""
    layout = random_layout(np.random.default_rng(3))

    def run(make_plan):
        model = tiny_models.load(kind, dtype=torch.float64)
        ids, positions = (torch.from_numpy(x)[None] for x in (layout.token_ids, layout.position_ids))
        hidden = model.run(ids, positions, make_plan())
        hidden.square().sum().backward()
        return hidden.detach(), {name: p.grad for name, p in model.backbone.named_parameters()}

    found, found_grads = run(lambda: VarlenAttention(layout, device=CPU, kernel=NAIVE))
    expected, grads = run(lambda: TreeAttention(layout))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    for name, grad in grads.items():
        torch.testing.assert_close(found_grads[name], grad, atol=1e-4, rtol=1e-5)


def half_kernel():
    """A kernel of 16 bits, and the dtypes that each call brought."""
    calls = []

    def noted(query, key, value, *args, **kwargs):
        calls.append((query.dtype, key.dtype, value.dtype))
        return varlen_naive.varlen_attn(query, key, value, *args, **kwargs)

    noted.__signature__ = inspect.signature(varlen_naive.varlen_attn)
    return VarlenKernel(noted, dtypes=(HALF,), head_multiple=4), calls


def test_rotated_queries_and_keys_in_fp32_go_to_the_kernel_in_the_dtype_of_the_values():
    """Under autocast values come as the linear layer gave them; rotation has taken queries and keys to fp32."""
    layout, scoring, rng = random_layout(np.random.default_rng(5)), Scoring(scale=0.4), np.random.default_rng(0)
    shapes = [(1, heads, len(layout.token_ids), 4) for heads in (4, 2, 2)]
    numbers = [torch.from_numpy(rng.normal(size=shape)).to(HALF) for shape in shapes]
    kernel, calls = half_kernel()

    def run(plan, dtypes):
        parts = [x.clone().to(dtype).requires_grad_() for x, dtype in zip(numbers, dtypes, strict=True)]
        out = plan.attend(None, *parts, scoring)
        out.float().square().sum().backward()
        return [out.detach(), *(part.grad for part in parts)]

    found = run(VarlenAttention(layout, device=CPU, kernel=kernel), (torch.float32, torch.float32, HALF))
    assert calls == [(HALF, HALF, HALF)]
    assert [x.dtype for x in found] == [HALF, torch.float32, torch.float32, HALF]
    for a, b in zip(found, run(TreeAttention(layout), (torch.float32,) * 3), strict=True):
        torch.testing.assert_close(a.float(), b, atol=3e-2 * float(b.abs().max()), rtol=3e-2)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_model_of_fp32_weights_in_bf16_uses_the_kernel_in_every_layer(kind):
    layout, came = random_layout(np.random.default_rng(6)), []
    model, (kernel, calls) = tiny_models.load(kind), half_kernel()

    class Watched(VarlenAttention):
        def attend(self, module, query, key, value, scoring):
            came.append((query.dtype, value.dtype))
            return super().attend(module, query, key, value, scoring)

    ids, positions = (torch.from_numpy(x)[None] for x in (layout.token_ids, layout.position_ids))
    with torch.no_grad():
        expected = model.run(ids, positions, TreeAttention(layout))
        model.set_precision("bf16")
        found = model.run(ids, positions, Watched(layout, device=CPU, kernel=kernel))
    layers = model.config.num_hidden_layers
    assert came == [(torch.float32, HALF)] * layers, "what autocast gives on a GPU"
    assert calls == [(HALF, HALF, HALF)] * layers
    assert float((found - expected).norm()) < 0.03 * float(expected.norm())


def count_calls(kernel):
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return kernel.function(*args, **kwargs)

    counted.__signature__ = inspect.signature(kernel.function)
    return replace(kernel, function=counted), calls


@pytest.mark.parametrize(
    ("scoring", "size", "num_calls"),
    [
        (Scoring(scale=0.4), 4, 1),
        (Scoring(scale=0.4, softcap=2.0), 4, 0),
        (Scoring(scale=0.4, sinks=torch.zeros(4, dtype=torch.float64)), 4, 0),
        (Scoring(scale=0.4), 6, 0),
    ],
    ids=["plain", "softcap", "sinks", "odd size"],
)
def test_what_the_kernel_lacks_goes_through_the_blocks(scoring, size, num_calls):
    layout = random_layout(np.random.default_rng(4))
    kernel, calls = count_calls(NAIVE)
    found = attend(VarlenAttention(layout, device=CPU, kernel=kernel), layout, scoring, size=size)
    for a, b in zip(found, attend(TreeAttention(layout), layout, scoring, size=size), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)
    assert len(calls) == num_calls


def test_the_window_of_the_kernel_does_not_count_the_query_itself():
    layout = random_layout(np.random.default_rng(4))
    kernel, calls = count_calls(NAIVE)
    for window in (None, 1, 7):
        attend(VarlenAttention(layout, device=CPU, kernel=kernel), layout, Scoring(scale=1.0, window=window))
    assert [call["window_size"] for call in calls] == [(-1, 0), (0, 0), (6, 0)]


def test_torchs_kernel_has_the_contract_that_we_call():
    """By its names, which changed between versions; its arithmetic needs a GPU (test_models_cuda.py)."""
    names = list(inspect.signature(varlen_attn).parameters)
    assert names[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert {"scale", "window_size"} <= set(names)
    assert VarlenKernel(varlen_attn).groups_heads == ("enable_gqa" in names)
    assert not OLD.groups_heads and NAIVE.groups_heads


def test_the_kernel_is_for_half_precision_and_its_heads():
    kernel, scoring = VarlenKernel(varlen_attn), Scoring(scale=1.0)

    def takes(dtype, size, value_size=None):
        q, v = (torch.zeros(1, 2, 3, n, dtype=dtype) for n in (size, value_size or size))
        return kernel.takes(q, v, scoring)

    assert takes(torch.bfloat16, 64) and takes(torch.float16, 256)
    assert not takes(torch.float32, 64) and not takes(torch.bfloat16, 288) and not takes(torch.bfloat16, 12)
    assert not takes(torch.bfloat16, 192, 128)


def test_a_cpu_keeps_the_blocks():
    assert device_kernel(CPU) is None
    assert isinstance(plan_attention(random_layout(np.random.default_rng(0)), device=CPU), TreeAttention)
