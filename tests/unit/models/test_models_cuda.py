"""What runs on a CUDA device against the CPU: the kernel of variable lengths, the head, whole models. Skipped where there is none."""

import numpy as np
import pytest
import torch

import tiny_models
from fairlead.models.attention import Scoring, TreeAttention
from fairlead.models.logprobs import OutputHead, token_logprobs
from fairlead.models.varlen import VarlenAttention, device_kernel, plan_attention
from fairlead.text import Branch, Tree, pack_trees

DEVICE = "cuda"
if not torch.cuda.is_available():
    pytest.skip("there is no CUDA device here", allow_module_level=True)

HALF = torch.bfloat16


def a_layout(*, num_trees=6, longest=120):
    rng = np.random.default_rng(0)
    trees = []
    for _ in range(num_trees):
        branches = tuple(Branch(token_ids=rng.integers(6, 96, n)) for n in rng.integers(1, longest, 3))
        trees.append(Tree(prompt_ids=rng.integers(6, 96, int(rng.integers(1, longest))), branches=branches))
    return pack_trees(trees)


def attend(plan, layout, scoring, *, device, dtype):
    """Output and the gradients of queries, keys and values, as fp32 on the CPU."""
    rng = np.random.default_rng(1)
    parts = [
        torch.from_numpy(rng.normal(size=(1, heads, len(layout.token_ids), 64)))
        .to(HALF)
        .to(device, dtype)
        .requires_grad_()
        for heads in (8, 2, 2)
    ]
    out = plan.attend(None, *parts, scoring)
    (out * torch.from_numpy(rng.normal(size=out.shape)).to(HALF).to(device, dtype)).sum().backward()
    return [x.detach().float().cpu() for x in (out, *(part.grad for part in parts))]


@pytest.mark.parametrize(
    "scoring",
    [Scoring(scale=0.125), Scoring(scale=0.125, window=33), Scoring(scale=0.125, softcap=20.0)],
    ids=["full", "window", "softcap"],
)
def test_attention_in_bf16_is_that_of_a_cpu_in_fp32(scoring):
    layout = a_layout()
    expected = attend(TreeAttention(layout), layout, scoring, device="cpu", dtype=torch.float32)
    plans = [plan_attention(layout, device=torch.device(DEVICE)), TreeAttention(layout, device=DEVICE)]
    for plan in plans:
        for a, b in zip(attend(plan, layout, scoring, device=DEVICE, dtype=HALF), expected, strict=True):
            torch.testing.assert_close(a, b, atol=2e-2 * float(b.abs().max()), rtol=2e-2)


def test_the_kernel_is_used_from_ampere_on():
    is_new = torch.cuda.get_device_capability() >= (8, 0)
    assert isinstance(plan_attention(a_layout(), device=torch.device(DEVICE)), VarlenAttention) == is_new
    assert (device_kernel(torch.device(DEVICE)) is not None) == is_new


@pytest.mark.parametrize("kind", [*tiny_models.KINDS, "mamba", "jamba"])
def test_models_in_fp32_are_those_of_the_cpu(kind):
    layout = a_layout(num_trees=3, longest=20)
    models = [tiny_models.load(kind, device=device) for device in ("cpu", DEVICE)]
    expected, found = (model.logprobs(layout).logprobs for model in models)
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=1e-3)
    expected.sum().backward()
    found.sum().backward()
    peers = dict(models[0].module.named_parameters())
    for name, parameter in models[1].module.named_parameters():
        scale = float(peers[name].grad.abs().max())
        torch.testing.assert_close(parameter.grad.cpu(), peers[name].grad, atol=1e-3 * scale + 1e-6, rtol=1e-2)


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_models_in_bf16_are_near(kind):
    """The reference holds the same rounded weights in fp32; what is left is the rounding of activations."""
    layout = a_layout(num_trees=3, longest=20)
    reference = tiny_models.load(kind)
    reference.module.to(HALF).float()
    with torch.no_grad():
        expected = reference.logprobs(layout).logprobs
        found = tiny_models.load(kind, dtype=HALF, device=DEVICE).logprobs(layout).logprobs.cpu()
    assert found.dtype == torch.float32
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.abs().mean())


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_models_of_fp32_weights_in_bf16_are_near(kind):
    """As they are trained: autocast, with queries and keys that rotation has taken back to fp32."""
    layout = a_layout(num_trees=3, longest=20)
    model = tiny_models.load(kind, device=DEVICE)
    model.set_precision("bf16")
    with torch.no_grad():
        expected = tiny_models.load(kind).logprobs(layout).logprobs
        found = model.logprobs(layout).logprobs.cpu()
    assert found.dtype == torch.float32
    assert float((found - expected).abs().mean()) < 0.05 * float(expected.abs().mean())


@pytest.mark.parametrize("vocabulary", [96, 50_000])
def test_the_head_multiplies_bf16_into_fp32(vocabulary):
    """Logits rounded to bf16 would be off by up to 0.06 nats at 20; the values here are within 1e-3 of fp32."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 128, generator=generator).to(HALF)
    weight = (0.3 * torch.randn(vocabulary, 128, generator=generator)).to(HALF)
    targets = torch.randint(0, vocabulary, (64,), generator=generator)

    def run(device, dtype):
        h, w = (x.to(device, dtype).detach().requires_grad_() for x in (hidden, weight))
        out = token_logprobs(h, OutputHead(weight=w, softcap=30.0), targets.to(device), needs=("entropy",))
        (out.logprobs.sum() + out.entropy.sum()).backward()
        return [x.detach().float().cpu() for x in (out.logprobs, out.entropy, h.grad, w.grad)]

    found, expected = run(DEVICE, HALF), run("cpu", torch.float32)
    for a, b, tolerance in zip(found, expected, (1e-3, 1e-3, 2e-2, 2e-2), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance * float(b.abs().max()), rtol=tolerance)
