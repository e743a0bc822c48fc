"""The kernels of models/native against plain loops and PyTorch, and the layers that use them against the model's own."""

import numpy as np
import pytest
import torch

import tiny_models
from fairlead.models import layers
from fairlead.models.native import attention, build, rows
from fairlead.models.norms import RootMeanSquareNorm
from fairlead.text.packing import Branch, Tree, pack_trees
from naive.attention_naive import attend as naive_attend
from naive.attention_naive import visible

needs_kernels = pytest.mark.skipif(build.library() is None, reason=f"no kernels here: {build.training_kernels()}")
LOW = 2**-7
"""Twice the spacing of bf16 numbers around 1: operands and results are rounded to half of it."""


def layout_of(*sizes: tuple[int, ...]):
    """Trees of (prompt, branch, branch, ...) tokens."""
    return pack_trees([Tree(prompt_ids=np.zeros(p, dtype=np.int64),
                            branches=tuple(Branch(token_ids=np.zeros(b, dtype=np.int64)) for b in branches))
                       for p, *branches in sizes])  # fmt: skip


def operands(layout, *, heads, kv_heads, size, value_size, seed=0):
    random = torch.Generator().manual_seed(seed)
    num = len(layout.token_ids)
    make = lambda h, d: torch.randn(num, h, d, generator=random)  # noqa: E731
    q, k, v = make(heads, size), make(kv_heads, size), make(kv_heads, value_size).bfloat16()
    return [x.requires_grad_() for x in (q, k, v)], make(heads, value_size).bfloat16()


def exact(layout, q, k, v, g, *, scale, window):
    """Output and gradients in float64 by a dense mask, which `test_dense_reference_equals_plain_loops` checks against loops."""
    q, k, v = (x.detach().double().requires_grad_() for x in (q, k, v))
    num, group = len(q), q.shape[1] // k.shape[1]
    seen = torch.zeros(num, num, dtype=torch.bool)
    for i in range(num):
        seen[i, visible(layout.tree_index, layout.branch_index, layout.position_ids, i, window=window)] = True
    wide_k, wide_v = (x.repeat_interleave(group, 1) for x in (k, v))
    scores = torch.einsum("ihd,jhd->hij", q, wide_k) * scale
    out = torch.einsum("hij,jhd->ihd", scores.masked_fill(~seen, -torch.inf).softmax(-1), wide_v)
    out.backward(g.double())
    return out.detach(), q.grad, k.grad, v.grad


def ours(layout, q, k, v, g, *, scale, window, rotation=None):
    for x in (q, k, v):
        x.grad = None
    out = attention.attend(q, k, v, attention.plan(layout), scale=scale, window=window, rotation=rotation)
    out.backward(g)
    return out.detach(), q.grad, k.grad, v.grad


def distance(a, b):
    return float((a.detach().double() - b.detach()).norm() / b.detach().norm())


def test_dense_reference_equals_plain_loops():
    layout = layout_of((3, 2, 4), (1, 5))
    (q, k, v), g = operands(layout, heads=2, kv_heads=1, size=4, value_size=4)
    found = exact(layout, q, k, v, g, scale=0.5, window=3)[0]
    rows_of = lambda i: visible(layout.tree_index, layout.branch_index, layout.position_ids, i, window=3)  # noqa: E731
    for head in range(2):
        parts = (q[:, head], k[:, 0], v[:, 0].double())
        expected = naive_attend(*(x.tolist() for x in parts), rows_of, scale=0.5)
        torch.testing.assert_close(found[:, head], torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=1e-6)


@needs_kernels
@pytest.mark.parametrize(
    ("sizes", "shape", "window"),
    [
        ([(1, 1)], (1, 1, 2, 2), None),
        ([(5, 3, 4), (17, 33, 2)], (2, 1, 16, 16), None),
        ([(50, 30, 40), (170, 130, 20), (1, 7), (3, 1, 1, 1)], (4, 2, 40, 24), None),
        ([(50, 30, 40), (170, 130, 20), (1, 7)], (3, 3, 48, 48), 20),
        ([(64, 64), (63, 65), (65, 128, 129)], (6, 3, 128, 128), None),
        ([(90, 2, 200)], (2, 2, 64, 80), 70),
    ],
)
def test_attention_equals_the_dense_one(sizes, shape, window):
    layout = layout_of(*sizes)
    heads, kv_heads, size, value_size = shape
    (q, k, v), g = operands(layout, heads=heads, kv_heads=kv_heads, size=size, value_size=value_size)
    found = ours(layout, q, k, v, g, scale=size**-0.5, window=window)
    expected = exact(layout, q, k, v, g, scale=size**-0.5, window=window)
    for name, a, b in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        limit = LOW * float(b.norm()) + 1e-3 * float(g.double().norm())  # what cancels keeps the rounding of its terms
        assert float((a.double() - b).norm()) < limit, name


@needs_kernels
def test_attention_rotates_low_queries_and_keys_and_turns_gradients_back():
    layout = layout_of((20, 9, 30), (2, 3))
    (q, k, v), g = operands(layout, heads=4, kv_heads=2, size=16, value_size=16)
    angle = torch.outer(torch.from_numpy(layout.position_ids).float(), torch.logspace(0, -2, 8))
    cosine, sine = (x.repeat(1, 2) for x in (angle.cos(), angle.sin()))
    low = [x.detach().bfloat16().requires_grad_() for x in (q, k)]
    found = ours(layout, *low, v, g, scale=0.3, window=None, rotation=(cosine, sine))
    wide = [x.detach().double().requires_grad_() for x in low]
    turned = [layers._rotated(x, cosine[:, None], sine[:, None]) for x in wide]
    expected = exact(layout, *turned, v, g, scale=0.3, window=None)
    torch.autograd.backward(turned, [expected[1], expected[2]])
    for name, a, b in zip(("out", "dq", "dk", "dv"), found, (expected[0], wide[0].grad, wide[1].grad, expected[3]), strict=True):  # fmt: skip
        assert distance(a, b) < LOW, name


@needs_kernels
def test_attention_takes_strided_operands_and_gives_the_same_bits_on_any_number_of_threads():
    layout = layout_of((40, 30, 20), (70, 10), (3, 90, 4))
    (q, k, v), g = operands(layout, heads=4, kv_heads=2, size=16, value_size=16)
    turned = [x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_() for x in (q, k, v)]
    assert not turned[0].is_contiguous()
    before = torch.get_num_threads()
    first = ours(layout, q, k, v, g, scale=0.3, window=None)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for a, b in zip(ours(layout, *turned, g, scale=0.3, window=None), first, strict=True):
                assert torch.equal(a, b)
    finally:
        torch.set_num_threads(before)


@needs_kernels
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])
@pytest.mark.parametrize("part", [0, 1])
def test_every_nan_is_still_one_in_16_bits(bits, part):
    """Rounding up the largest ones would carry into the sign and leave a zero. Queries and keys are rounded by the kernel."""
    layout = layout_of((4, 6))
    inputs, g = operands(layout, heads=1, kv_heads=1, size=8, value_size=8)
    with torch.no_grad():
        inputs[part][6, 0, 3] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    assert inputs[part][6, 0, 3].isnan()
    assert ours(layout, *inputs, g, scale=0.3, window=None)[0][6].isnan().all()


@needs_kernels
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_number_that_is_not_finite_shows_where_it_is_seen_and_nowhere_else(part):
    layout = layout_of((4, 6, 5), (3, 8))
    inputs, g = operands(layout, heads=2, kv_heads=2, size=8, value_size=8)
    with torch.no_grad():
        inputs[part][6, 0, 3] = torch.nan  # a token of the first branch
    out = ours(layout, *inputs, g, scale=0.3, window=None)[0]
    found = out[:, 0].isnan().any(-1).nonzero().flatten().tolist()
    seen_by = [6] if part == 0 else [6, 7, 8, 9]
    if part == 2:  # a weight of 0 times NaN is NaN too, so earlier tokens of the branch's block show it as well
        assert set(seen_by) <= set(found) <= set(range(10))
    else:
        assert found == seen_by
    assert not out[:, 1].isnan().any()


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 15, 16, 50, 288])
def test_norm_equals_its_formula(dtype, width):
    x, weight = torch.randn(37, 3, width, dtype=torch.float64), torch.rand(width, dtype=torch.float64)
    g = torch.randn(37, 3, width).to(dtype)
    wide_x, wide_weight = (y.float().double().requires_grad_() for y in (x, weight))
    expected = wide_x / (wide_x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * (wide_weight + 1)
    expected.backward(g.double())
    out, inverse = rows.norm(x.float(), weight.float(), offset=1.0, epsilon=1e-5, dtype=dtype)
    d_x, d_weight = rows.norm_gradient(x.float(), weight.float(), inverse, g, offset=1.0, learns_weight=True)
    assert out.dtype == dtype
    assert distance(out, expected) < (LOW if dtype == torch.bfloat16 else 1e-6)
    torch.testing.assert_close(d_x.double(), wide_x.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(d_weight.double(), wide_weight.grad, atol=1e-4, rtol=1e-5)
    assert rows.norm_gradient(x.float(), weight.float(), inverse, g, offset=1.0, learns_weight=False)[1] is None


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gate_equals_its_formula_even_at_the_ends(dtype):
    ends = torch.tensor([-300.0, -104.0, -89.0, -1e-30, 0.0, 1e-30, 89.0, 300.0])
    gate, up = (torch.cat([y, torch.randn(4099)]).to(dtype).requires_grad_() for y in (ends, ends.flip(0)))
    g = torch.randn(len(gate)).to(dtype)
    out = rows.gated(gate, up)
    out.backward(g)
    wide = [x.detach().double().requires_grad_() for x in (gate, up)]
    expected = torch.nn.functional.silu(wide[0]) * wide[1]
    expected.backward(g.double())
    tolerance = {"atol": 1e-6, "rtol": LOW if dtype == torch.bfloat16 else 1e-5}
    torch.testing.assert_close(out.double(), expected.detach(), **tolerance)
    torch.testing.assert_close(gate.grad.double(), wide[0].grad, **tolerance)
    torch.testing.assert_close(up.grad.double(), wide[1].grad, **tolerance)


@needs_kernels
@pytest.mark.parametrize("vocabulary", [1, 15, 64, 1003])
def test_softmax_equals_its_formula_in_float64(vocabulary):
    """Also where a token has no chance (-1e30) and where one is all but certain; p is rounded to bf16 once, and NaN stays in its row."""
    logits = 5 * torch.randn(9, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    targets = torch.arange(9) % vocabulary
    logits[1, 1 % vocabulary :] = -1e30
    logits[2, 0] = 60.0
    logits[3, vocabulary // 2] = float("nan")
    exact, fine = logits.double(), torch.tensor([i != 3 for i in range(9)])
    logprob, norm, entropy, wide = (torch.full((9,), 7.0) for _ in range(4))
    p = torch.empty(9, vocabulary, dtype=torch.bfloat16)
    rows.softmax(logits.clone(), targets, logprob=wide, norm=norm, entropy=None, probabilities=None)
    rows.softmax(logits, targets, logprob=logprob, norm=norm, entropy=entropy, probabilities=p)
    assert torch.equal(wide[fine], logprob[fine]) and all(bool(x[3].isnan()) for x in (wide, logprob, norm, entropy))
    logp = exact.log_softmax(-1)
    expected = logp.gather(1, targets[:, None])[:, 0], exact.logsumexp(-1), -(logp.exp() * logp).sum(-1)
    for found, truth in zip((logprob, norm, entropy), expected, strict=True):
        torch.testing.assert_close(found[fine].double(), truth[fine], atol=3e-6, rtol=1e-6)
    torch.testing.assert_close(p[fine].double(), logp[fine].exp(), atol=1e-38, rtol=2**-8)


@needs_kernels
@pytest.mark.parametrize(
    ("kind", "is_taken"),
    [("llama", True), ("qwen2", True), ("mistral", True), ("qwen3", True), ("gemma2", False), ("phi3", False)],
)
def test_layers_that_are_known_take_the_kernels_and_others_keep_their_own(kind, is_taken):
    model = tiny_models.load(kind)
    names = {type(layer).__name__ for layer in model.module.modules()}
    assert any(name.startswith("Fairlead") and name.endswith("Attention") for name in names) == is_taken
    assert any(name.startswith("Fairlead") and name.endswith("MLP") for name in names) == is_taken


@needs_kernels
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "qwen3"])
def test_a_model_trains_on_the_kernels_as_it_does_without(kind, monkeypatch):
    layout = pack_trees([Tree(prompt_ids=np.arange(3, 12), branches=(Branch(token_ids=np.arange(20, 29)), Branch(token_ids=np.arange(40, 47)))),
                         Tree(prompt_ids=np.arange(60, 62), branches=(Branch(token_ids=np.arange(30, 50)),))])  # fmt: skip
    calls = []
    monkeypatch.setattr(attention, "_rotated", lambda *args, _own=attention._rotated: (calls.append(1), _own(*args))[1])

    def run(precision, *, with_kernels: bool):
        with monkeypatch.context() as patch:
            if not with_kernels:
                patch.setattr(rows, "library", lambda: None)
                patch.setattr(attention, "library", lambda: None)
            model = tiny_models.load(kind)
            model.set_precision(precision)
            model.module.requires_grad_(True)
            logprobs = model.logprobs(layout).logprobs
            logprobs.sum().backward()
        grads = {name: x.grad for name, x in model.module.named_parameters() if x.grad is not None}
        return {"logprobs": logprobs.detach(), **grads}

    truth, plain = run("fp32", with_kernels=False), run("bf16", with_kernels=False)
    assert not calls
    fast = run("bf16", with_kernels=True)
    assert len(calls) == 2 * 2 * 2  # queries and keys, forward and gradient, of two layers
    assert fast.keys() == plain.keys() == truth.keys()
    for name, exact_value in truth.items():
        ours, theirs = (float((x[name] - exact_value).norm()) for x in (fast, plain))
        assert ours <= 2.5 * theirs + 1e-3 * float(exact_value.norm()), name


@needs_kernels
def test_a_layer_whose_forward_was_changed_is_not_taken():
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP

    class Scaled(LlamaMLP):
        def forward(self, x):
            return 2 * super().forward(x)

    Scaled.__name__ = "LlamaMLP"

    class Halved(LlamaAttention):
        def forward(self, hidden_states, **kwargs):
            return super().forward(hidden_states * 0.5, **kwargs)

    Halved.__name__ = "LlamaAttention"
    model = tiny_models.load("llama")
    for own, changed in ((LlamaMLP, Scaled), (LlamaAttention, Halved)):
        layer = next(x for x in model.module.modules() if isinstance(x, own))
        layer.__class__ = changed
        layers.use_layers(layer)
        assert type(layer) is changed


def test_without_kernels_nothing_changes(monkeypatch):
    monkeypatch.setenv("FAIRLEAD_NATIVE", "0")
    assert "FAIRLEAD_NATIVE=0" in build.load_sources("rows", [build.HERE / "rows.c"])
    monkeypatch.setattr(rows, "library", lambda: None)
    model = tiny_models.load("llama")
    assert not any(type(x).__name__.startswith("Fairlead") for x in model.module.modules())
    norm = next(x for x in model.module.modules() if isinstance(x, RootMeanSquareNorm))
    assert norm(torch.ones(2, 32)).shape == (2, 32)


@pytest.mark.parametrize(("compiler", "says"), [("/nowhere/cc", "cannot be built"), ("false", "cannot be built")])
def test_why_there_are_no_kernels_is_told(compiler, says, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FAIRLEAD_NATIVE", raising=False)
    assert says in build.load_sources("rows", [build.HERE / "rows.c", build.HERE / "numbers.h"])
    assert not list(tmp_path.rglob("*.so"))
