"""The C++ kernel in bf16: what it computes is what plain loops with rounded operands do, whatever is in the batch, for every model of its shape."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import tiny_models
from engine_requests import generate, some_requests
from fairlead.core.errors import EngineError
from fairlead.core.protocols import GenerateRequest, Sampling
from fairlead.engine import kernel
from fairlead.engine.fallback import open_engine
from fairlead.engine.local import LocalEngine, why_not_sampled
from fairlead.models import attention
from fairlead.models.adapters import LoraSettings, add_lora
from fairlead.models.arithmetic import has_low_precision
from fairlead.models.load import CausalModel
from fairlead.models.native.build import training_kernels
from fairlead.models.norms import use_norms
from fairlead.text import Branch, Tree, pack_trees
from naive.decode_bf16_naive import logits as naive_logits

pytestmark = pytest.mark.skipif(
    isinstance(kernel.load_kernel(), str) or isinstance(training_kernels(), str),
    reason="no compiler, or a processor without AVX512-BF16",
)


def wide_model(kind="llama", *, head=16, **sizes):
    """A random model whose heads the kernel takes in bf16; weights large enough that every part of it matters."""
    attention.register()
    torch.manual_seed(0)
    given = {
        "vocab_size": 99, "hidden_size": 64, "intermediate_size": 80, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 2, "head_dim": head, "max_position_embeddings": 2048, "initializer_range": 0.1,
        "attn_implementation": "fairlead", **sizes,
    }  # fmt: skip
    config, module = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "mistral": (MistralConfig, MistralForCausalLM),
    }[kind]
    made = module(config(**given)).eval()
    model = CausalModel(module=made, config=made.config, name=kind)
    use_norms(made, model.arithmetic)
    return model


def naive_logprobs(model, request, sample, *, window=None):
    """Of the sample's tokens."""
    ids = [*request.token_ids, *map(int, sample.token_ids)]
    found = torch.log_softmax(naive_logits(model.module, ids, window=window), -1)
    first = len(request.token_ids) - 1
    return np.array([found[first + t, token] for t, token in enumerate(sample.token_ids)], dtype=np.float32)


@pytest.mark.parametrize("head", [16, 32, 48, 64, 80, 96, 128, 256])
def test_it_computes_what_plain_loops_with_rounded_operands_do(head):
    """Prompts of one token, of less than a block of keys, of more; three times closer than to the same in fp32, and sums alone differ."""
    model = wide_model(head=head)
    rng = np.random.default_rng(0)
    requests = [GenerateRequest(key=str(n), token_ids=tuple(map(int, rng.integers(3, 99, n)))) for n in (1, 7, 16, 45)]
    found = generate(model, requests, Sampling(max_new_tokens=9, seed=0), precision="bf16")
    near, far = [], []
    for request in requests:
        sample = found[request.key, 0]
        near.append(np.abs(sample.sampling_logprobs - naive_logprobs(model, request, sample)))
        tree = Tree(prompt_ids=np.array(request.token_ids), branches=(Branch(token_ids=sample.token_ids),))
        with torch.no_grad():
            exact = model.logprobs(pack_trees([tree])).logprobs.numpy()
        far.append(np.abs(sample.sampling_logprobs - exact))
    near, far = np.concatenate(near), np.concatenate(far)
    assert near.max() < 2e-2 and near.mean() < 0.34 * far.mean() and 1e-3 < far.mean() < 5e-2, (near.mean(), far.mean())


@pytest.mark.parametrize("window", [5, 16, 21])
def test_a_window_that_ends_within_a_block_of_keys(window):
    model = wide_model("mistral", sliding_window=window)
    request = GenerateRequest(key="p", token_ids=tuple(range(5, 45)))
    (sample,) = generate(model, [request], Sampling(max_new_tokens=12, seed=3), precision="bf16").values()
    gap = np.abs(sample.sampling_logprobs - naive_logprobs(model, request, sample, window=window))
    other = np.abs(sample.sampling_logprobs - naive_logprobs(model, request, sample, window=window + 1))
    assert gap.max() < 2e-2 and gap.mean() < 0.2 * other.mean()


def test_caps_norms_of_what_is_added_and_biases():
    """Gemma's four norms and two caps, Qwen's biases: near the model's own modules in fp32, as far as bf16 reaches."""
    for kind in ("wide gemma2", "wide qwen2", "qwen3"):
        model = tiny_models.load(kind)
        requests, sampling = some_requests(num=5, longest=30), Sampling(max_new_tokens=12, seed=1)
        engine = LocalEngine(model, precision="bf16")
        assert engine.about.startswith("the C++ kernel in bf16")
        for sample in engine.generate(requests, sampling):
            request = next(r for r in requests if r.key == sample.key)
            with torch.no_grad():
                ids = torch.tensor([[*request.token_ids, *map(int, sample.token_ids)]])
                plain = torch.log_softmax(tiny_models.load_plain(kind)(ids).logits[0], -1)
            rows = range(len(request.token_ids) - 1, ids.shape[1] - 1)
            exact = [float(plain[r, t]) for r, t in zip(rows, sample.token_ids, strict=True)]
            assert np.abs(sample.sampling_logprobs - exact).mean() < 5e-2


def test_a_sample_has_the_same_bits_whatever_shares_its_batch():
    model, requests = wide_model(), some_requests(longest=40)
    sampling, before = Sampling(max_new_tokens=20, seed=2), torch.get_num_threads()
    together = generate(model, requests, sampling, precision="bf16")
    try:
        torch.set_num_threads(3)
        for request in requests[:3]:
            for name, sample in generate(model, [request], sampling, precision="bf16", max_slots=1).items():
                assert sample.token_ids.tolist() == together[name].token_ids.tolist()
                assert sample.sampling_logprobs.tobytes() == together[name].sampling_logprobs.tobytes()
    finally:
        torch.set_num_threads(before)


def test_what_broken_weights_leave_in_the_cache_is_never_read():
    """Half of a pair of values lies beyond a sequence of odd length, and nothing times NaN is 0."""
    model, request = wide_model(), GenerateRequest(key="p", token_ids=(5, 6, 7))
    engine, sampling = LocalEngine(model, precision="bf16"), Sampling(max_new_tokens=8)
    (good,) = engine.generate([request], sampling)
    kept = model.module.model.layers[0].self_attn.v_proj.weight
    with torch.no_grad():
        saved = kept.clone()
        kept.fill_(torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        list(engine.generate([GenerateRequest(key="q", token_ids=tuple(range(4, 50)))], sampling))
    with torch.no_grad():
        kept.copy_(saved)
    (again,) = engine.generate([request], sampling)
    assert again.sampling_logprobs.tobytes() == good.sampling_logprobs.tobytes()


def test_weights_and_adapters_are_followed_whatever_the_trainer_computes_in():
    """Written in place, and by an adapter; the trainer's own precision changes no bit of the engine's."""
    model = add_lora(wide_model(), LoraSettings(kind="lora", rank=4, alpha=8.0), seed=0)
    engine, requests, sampling = LocalEngine(model, precision="bf16"), some_requests(num=3), Sampling(max_new_tokens=8)
    texts = []
    for scale in (0.0, 0.3):
        with torch.no_grad():
            for name, parameter in model.module.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * scale)
        found = []
        for precision in ("fp32", "bf16"):
            model.set_precision(precision)
            found.append(
                {(s.key, s.sample_index): s.sampling_logprobs.tobytes() for s in engine.generate(requests, sampling)}
            )
            assert model.arithmetic.precision == precision
        assert found[0] == found[1]
        texts.append(found[0])
    assert texts[0] != texts[1]


def test_the_kernel_in_fp32_reads_the_weights_of_a_model_that_trains_in_bf16():
    model, requests, sampling = wide_model(), some_requests(num=4), Sampling(max_new_tokens=8)
    before = generate(model, requests, sampling)
    model.set_precision("bf16")
    after = generate(model, requests, sampling)
    assert all(after[name].sampling_logprobs.tobytes() == before[name].sampling_logprobs.tobytes() for name in before)


def test_what_is_not_sampled_in_bf16_is_refused_with_the_reason():
    for kind, why in (("gpt2", "no decoder layers"), ("llama", "heads of 8")):
        assert why in (why_not_sampled(tiny_models.load(kind), "bf16") or "")
        with pytest.raises(EngineError, match=rf"engine\.precision=bf16 needs the C\+\+ kernel on a CPU .*{why}"):
            LocalEngine(tiny_models.load(kind), precision="bf16")
    with pytest.raises(EngineError, match=r"engine\.precision=bf16 is not sampled in by a model"):
        open_engine(tiny_models.load("mamba"), precision="bf16")
    assert has_low_precision() and why_not_sampled(wide_model(), "bf16") is None
