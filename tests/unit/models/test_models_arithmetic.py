"""Matrix products in every way they are computed: against float64, and a model in bf16 against itself in fp32."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import tiny_models
from fairlead.models import arithmetic, products
from fairlead.models.adapters import LoraSettings, add_lora, merged
from fairlead.models.arithmetic import (
    Arithmetic,
    Linear,
    direct_gram,
    direct_product,
    has_low_precision,
    is_direct_better,
    measure_products,
    product_in_fp32,
    rounded_products,
    use_arithmetic,
)
from fairlead.models.load import load_policy
from fairlead.models.segments import plan_segments
from fairlead.text import Branch, Tree, pack_trees
from fairlead.train.optim import OptimizerSettings, make_optimizers

direct = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
BF16 = 2**-8
"""A rounding to bf16, relative."""


def layer(how, *, bias=True):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(24, 16, bias=bias))
    use_arithmetic(module, how)
    return module


def run(module, x, dtype=torch.float32):
    """Output and all gradients, by the weights of the loss 1, 2, 3, ..."""
    x = x.detach().to(dtype).requires_grad_()
    out = module(x)
    (out * torch.arange(1, out.numel() + 1, dtype=dtype).view(out.shape) / out.numel()).sum().backward()
    return [out.detach(), x.grad, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("how", "tolerance"),
    [
        (Arithmetic(), 1e-6),
        pytest.param(Arithmetic(is_direct=True), 1e-6, marks=direct),
        (Arithmetic(precision="bf16"), 2 * BF16),
    ],
)
def test_every_arithmetic_is_the_linear_layer(how, tolerance, bias):
    module = layer(how, bias=bias)
    exact = copy.deepcopy(module).double()
    x = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))
    use_arithmetic(exact, Arithmetic())
    for found, expected in zip(run(module, x), run(exact, x, torch.float64), strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(found.double() / scale, expected / scale, atol=tolerance, rtol=0)
    assert isinstance(module[0], nn.Linear) and module[0].weight.dtype == torch.float32


def test_results_of_bf16_are_bf16_and_gradients_of_weights_are_not():
    module = layer(Arithmetic(precision="bf16"))
    out, d_x, d_weight, d_bias = run(module, torch.randn(5, 24))
    assert out.dtype == torch.bfloat16
    assert {d_x.dtype, d_weight.dtype, d_bias.dtype} == {torch.float32}


def test_a_copy_of_the_weights_is_made_once_a_step_and_again_after_it():
    how = Arithmetic(precision="bf16")
    module = layer(how)
    weight = module[0].weight
    first = how.weight(weight)
    assert how.weight(weight) is first and torch.equal(first, weight.bfloat16())
    optimizer = make_optimizers(
        [weight], OptimizerSettings(learning_rate=0.1, warmup_share=0.0)
    )  # fused: PyTorch does not count its writing
    weight.grad = torch.ones_like(weight)
    optimizer.step(0, num_steps=2)
    assert torch.equal(how.weight(weight), weight.bfloat16()), "the copy is older than the weight"


def test_layers_that_read_one_input_share_its_copy_and_other_inputs_do_not():
    how, x = Arithmetic(precision="bf16"), torch.randn(3, 4)
    first = how.activation(x)
    assert how.activation(x) is first
    x.add_(1)
    assert torch.equal(how.activation(x), x.bfloat16())
    assert torch.equal(how.activation(x * 2), (x * 2).bfloat16())


@direct
@pytest.mark.parametrize("shape", [(1, 3, 5), (33, 17, 9), (300, 288, 64), (2048 + 512 + 7, 300, 20)])
def test_a_direct_product_is_the_product(shape):
    rows, inner, columns = shape
    a, b = torch.randn(rows, inner), torch.randn(columns, inner)
    torch.testing.assert_close(direct_product(a, b), a @ b.t(), atol=1e-4, rtol=0)
    torch.testing.assert_close(direct_product(a.t().contiguous().t(), b), a @ b.t(), atol=1e-4, rtol=0)
    c = torch.randn(rows, columns)
    torch.testing.assert_close(direct_gram(a, c), a.t() @ c, atol=1e-3, rtol=0)


@direct
def test_batches_of_every_size_are_a_few_shapes():
    """oneDNN keeps buffers for each shape that it has seen."""
    seen = {tile.stop - tile.start for count in range(1, 5000) for tile in arithmetic._tiles(count)}
    assert {size for size in seen if size >= 256} == {256, 512, 1024, 2048}
    for count in (1, 255, 256, 2048, 4999):
        tiles = arithmetic._tiles(count)
        assert [i for tile in tiles for i in range(tile.start, tile.stop)] == list(range(count))


def test_rounded_products_round_operands_only_inside():
    a = torch.full((32, 32), 1 + 2.0**-12)
    before = torch.backends.mkldnn.matmul.fp32_precision
    with rounded_products(True):
        inside = a @ a
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    assert torch.equal(a @ a, torch.full((32, 32), 32 * (1 + 2.0**-12) ** 2).float())
    assert float((inside - 32).abs().max()) < 0.02 and inside.dtype == torch.float32
    with pytest.raises(ValueError), rounded_products(True):
        raise ValueError
    assert torch.backends.mkldnn.matmul.fp32_precision == before


@pytest.mark.parametrize(
    "out_of", [Arithmetic(), Arithmetic(is_direct=is_direct_better()), Arithmetic(precision="bf16")]
)
def test_wide_products_add_in_fp32(out_of):
    """256 ones and a half: bf16 would keep 256."""
    a = torch.ones(4, 257)
    a[:, -1] = 0.5
    out = out_of.wide_product(a, torch.ones(3, 257), out=torch.empty(4, 3))
    assert out.dtype == torch.float32 and torch.equal(out, torch.full((4, 3), 256.5))


def some_trees():
    rng = np.random.default_rng(3)
    ids = lambda n: rng.integers(6, tiny_models.VOCABULARY, n)  # noqa: E731
    return [
        Tree(prompt_ids=ids(p), branches=tuple(Branch(token_ids=ids(b)) for b in bs))
        for p, bs in ((5, (7, 9)), (3, (12, 2)))
    ]


@pytest.mark.parametrize(
    "kind", ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3", "phi3", "gpt_oss", "deepseek_v3"]
)
def test_a_model_in_bf16_is_near_itself_in_fp32(kind):
    """The whole forward and backward: logprobs within 0.1 nats on average, gradients in nearly the same direction."""
    layout = pack_trees(some_trees())
    exact, low = tiny_models.load(kind), load_policy(str(tiny_models.folder(kind)), precision="bf16")
    outputs = [model.logprobs(layout).logprobs for model in (exact, low)]
    assert outputs[1].dtype == torch.float32
    assert float((outputs[0] - outputs[1]).detach().abs().mean()) < 0.1
    for out in outputs:
        out.sum().backward()
    for (name, a), b in zip(exact.module.named_parameters(), low.module.parameters(), strict=True):
        assert b.dtype == b.grad.dtype == torch.float32
        assert float(torch.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0)) > 0.97, name
    assert any(isinstance(m, Linear) for m in low.module.modules())


def test_a_merged_adapter_is_seen_in_bf16():
    """peft writes into the weights where autograd does not count it."""
    model = load_policy(str(tiny_models.folder("llama")), precision="bf16")
    layout = pack_trees(some_trees())
    before = model.logprobs(layout).logprobs.detach()
    adapted = add_lora(model, LoraSettings(rank=4), seed=0)
    with torch.no_grad():
        for name, parameter in adapted.module.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3)
        wanted = adapted.logprobs(layout).logprobs
        found = merged(adapted).logprobs(layout).logprobs
    assert float((wanted - before).abs().mean()) > 0.5
    assert float((wanted - found).abs().mean()) < 0.2


@pytest.mark.parametrize("kept_keys", [0, 10**6])
@pytest.mark.parametrize("window", [None, 3, 40])
def test_long_segments_are_cut_and_weights_kept_or_not_with_the_same_result(window, kept_keys, monkeypatch):
    """Queries in steps of 4, a few segments a task: the same attention as uncut."""
    rng = np.random.default_rng(0)
    ids = lambda n: rng.integers(0, 9, n)  # noqa: E731
    trees = [
        Tree(prompt_ids=ids(p), branches=tuple(Branch(token_ids=ids(b)) for b in bs))
        for p, bs in ((30, (9, 4, 5)), (6, (21,)), (2, (3, 3)))
    ]
    plan = plan_segments(pack_trees(trees))
    num = sum(t.num_tokens for t in trees)
    q, k, v, g = (torch.from_numpy(rng.normal(size=(num, heads, 4))) for heads in (4, 2, 2, 4))

    def attend():
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        tasks = products.plan_tasks(plan, heads=4, kv_heads=2, window=window)
        out = products.attend(*inputs, tasks, scale=0.5, low=torch.float64)
        (out * g).sum().backward()
        return len([t for group in tasks.groups for t in group.tasks]), [out, *(x.grad for x in inputs)]

    few, whole = attend()
    monkeypatch.setattr(products, "_QUERY_STEP", 4)
    monkeypatch.setattr(products, "_TASK_SCORES", 500)
    monkeypatch.setattr(products, "KEPT_KEYS", kept_keys)
    many, cut = attend()
    assert many > 2 * few
    for a, b in zip(whole, cut, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_the_gradient_of_attention_is_that_of_finite_differences():
    trees = [Tree(prompt_ids=np.arange(2), branches=(Branch(token_ids=np.arange(3)), Branch(token_ids=np.arange(2))))]
    plan = plan_segments(pack_trees(trees))
    tasks = products.plan_tasks(plan, heads=2, kv_heads=1, window=None)
    rng = np.random.default_rng(0)
    inputs = [torch.from_numpy(rng.normal(size=(7, heads, 2))).requires_grad_() for heads in (2, 1, 1)]
    torch.autograd.gradcheck(lambda q, k, v: products.attend(q, k, v, tasks, scale=0.7, low=torch.float64), inputs)


def test_the_machine_says_what_it_can():
    speeds = measure_products(64, 32, 48)
    assert {"fp32", "bf16"} <= set(speeds) and all(x > 0 for x in speeds.values())
    assert isinstance(has_low_precision(), bool)


def test_copies_that_were_made_while_sampling_serve_training():
    model = load_policy(str(tiny_models.folder("llama")), precision="bf16")
    layout = pack_trees(some_trees())
    with torch.inference_mode():
        model.logprobs(layout)
    model.logprobs(layout).logprobs.sum().backward()
    assert model.causal_lm.model.layers[0].mlp.up_proj.weight.grad is not None


@pytest.mark.parametrize(
    ("precision", "a", "b", "expected"),
    [
        ("bf16", torch.float32, torch.float32, torch.bfloat16), ("bf16", torch.float32, torch.bfloat16, torch.bfloat16),
        ("bf16", torch.bfloat16, torch.float32, torch.bfloat16), ("bf16", torch.float64, torch.float64, torch.float64),
        ("fp32", torch.bfloat16, torch.bfloat16, torch.bfloat16), ("fp32", torch.float32, torch.bfloat16, torch.float32),
        ("fp32", torch.float32, torch.float32, torch.float32),
    ],
)  # fmt: skip
def test_what_a_gpu_multiplies_is_of_the_precision_whatever_autocast_left(precision, a, b, expected):
    assert Arithmetic(precision=precision).operand_dtype(a, b) == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_torch_has_the_product_of_the_gpus_head(dtype):
    """On the device that has shapes and dtypes alone: the call and what it gives, where there is no GPU to compute it."""
    a, b, out = (
        torch.empty(*shape, dtype=d, device="meta")
        for shape, d in (((3, 4), dtype), ((4, 5), dtype), ((3, 5), torch.float32))
    )
    assert (product_in_fp32(a, b).dtype, product_in_fp32(a, b).shape) == (torch.float32, (3, 5))
    assert product_in_fp32(a, b, out=out) is out
