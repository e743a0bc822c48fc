"""Optimisers: each step is the published formula, who steps what, what decays, and a resumed run is the run that never stopped."""

import importlib.util
import math
import os
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from training_examples import make_learner, make_trees, weights

import tiny_models
from fairlead.core.errors import ConfigError
from fairlead.core.sections import TrainSection
from fairlead.train.optim import OptimizerSettings, hidden_matrices, make_optimizers
from fairlead.train.state import load_optimizer, optimizer_state
from naive import optimizers as naive

KINDS = ("adamw", "muon", "adafactor")
SETTINGS = OptimizerSettings(learning_rate=0.02, weight_decay=0.1, schedule="constant", warmup_share=0.0)
WIDE = (64, 128)  # torchao keeps tensors below 4096 numbers in fp32


def steps(kind, shape, *, dtype=torch.float64, num=3, **changes):
    """A parameter after `num` steps, what it was, and the gradients."""
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=shape), [rng.normal(size=shape) for _ in range(num)]
    parameter = nn.Parameter(torch.tensor(start, dtype=dtype))
    hidden = {id(parameter)} if len(shape) == 2 else ()
    settings = replace(SETTINGS, optimizer=kind, **changes)
    optimizers = make_optimizers([parameter], settings, hidden=hidden)
    for number, grad in enumerate(grads):
        parameter.grad = torch.tensor(grad, dtype=dtype)
        optimizers.step(number, num_steps=num)
    return parameter.detach().numpy(), start, grads


def need_torchao():
    """Skip where it is not installed; what it tells while it is imported is silenced by the maker."""
    if importlib.util.find_spec("torchao") is None:
        if "torchao" in os.environ.get("FAIRLEAD_REQUIRE", ""):
            pytest.fail("FAIRLEAD_REQUIRE=torchao, and it is not there")
        pytest.skip("torchao is not installed; make test-eight-bit runs this")


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5,)])
def test_adamw_is_the_formula(shape):
    found, start, grads = steps("adamw", shape)
    decay = 0.1 if len(shape) == 2 else 0.0
    expected = naive.adamw(start, grads, rate=0.02, beta1=0.9, beta2=0.95, eps=1e-8, decay=decay)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_muon_is_the_formula(shape):
    """torch iterates in bf16 (8 bits), so the directions agree to a few percent of a step of size 0.02 * 0.2 * sqrt(6) = 0.0098."""
    found, start, grads = steps("muon", shape, num=1)
    expected = naive.muon(start, grads, rate=0.02, decay=0.1)
    np.testing.assert_allclose(found, expected, atol=4e-4)
    moved = (found - start * (1 - 0.02 * 0.1)) / (0.02 * 0.2 * math.sqrt(6))
    assert (np.abs(np.linalg.svd(moved, compute_uv=False) - 1) < 0.5).all(), "every direction moves alike"


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5,)])
def test_adafactor_is_the_formula(shape):
    found, start, grads = steps("adafactor", shape)
    decay = 0.1 if len(shape) == 2 else 0.0
    expected = naive.adafactor(start, grads, rate=0.02, decay=decay, eps1=float(np.finfo(np.float64).eps))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_adamw_in_8_bits_is_adamw_to_the_precision_of_its_state():
    """The first step uses the moments before they are rounded; later ones read them with 8 bits a number. Small tensors are exact."""
    need_torchao()
    common = {"rate": 0.02, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    for shape, num, atol in ((WIDE, 1, 1e-6), (WIDE, 3, 6e-3), ((8, 8), 3, 1e-6), ((5,), 3, 1e-6)):
        found, start, grads = steps("adamw_8bit", shape, dtype=torch.float32, num=num)
        expected = naive.adamw(start, grads, decay=0.1 if len(shape) == 2 else 0.0, **common)
        np.testing.assert_allclose(found, expected, atol=atol)
        assert np.abs(expected - start).max() > 0.01


def test_8_bits_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(ConfigError, match=r'pip install "fairlead\[eight-bit\]"'):
        make_learner("sft", optimizer="adamw_8bit")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_muon_steps_the_matrices_of_the_layers_and_adamw_the_rest(kind):
    module = tiny_models.load(kind).module
    names = {id(p): n for n, p in module.named_parameters()}
    hidden = {names[i] for i in hidden_matrices(module)}
    expected = {n for n, p in module.named_parameters() if p.dim() == 2 and (".layers." in n or ".h." in n)}
    assert hidden == expected and hidden
    muon, adamw = make_optimizers(
        module.parameters(), replace(SETTINGS, optimizer="muon"), hidden=hidden_matrices(module)
    ).parts
    stepped = [names[id(p)] for part in (muon, adamw) for g in part.param_groups for p in g["params"]]
    assert sorted(stepped) == sorted(names.values()), "each parameter once"
    assert {names[id(p)] for g in muon.param_groups for p in g["params"]} == hidden


@pytest.mark.parametrize(
    ("kind", "tables"),
    [
        ("mamba", {"A_log"}),
        ("jamba", {"A_log", "router.weight"}),
        ("gpt_oss", {"gate_up_proj_bias", "down_proj_bias", "router.weight"}),
        ("rwkv", set()),
    ],
)
def test_tables_that_multiply_nothing_are_left_to_adamw(kind, tables):
    """Orthogonalised, Mamba's decays (64 x 4) would all move alike, whatever their gradients."""
    module = tiny_models.load(kind).module
    hidden = hidden_matrices(module)
    inner = {n: p for n, p in module.named_parameters() if p.dim() == 2 and not re.search("embed|head", n)}
    left = {n for n, p in inner.items() if id(p) not in hidden}
    assert {t for t in tables if any(n.endswith(t) for n in left)} == tables
    assert all(n.endswith(tuple(tables)) for n in left) and len(left) < len(inner)


def test_the_head_of_a_reward_model_is_no_hidden_matrix():
    learner = make_learner("reward", optimizer="muon")
    _muon, adamw = learner.optimizer.parts
    head = learner.models.reward.head.weight
    assert any(p is head for g in adamw.param_groups for p in g["params"])


def test_muon_without_a_matrix_is_refused():
    with pytest.raises(ConfigError, match="finds no hidden matrix"):
        make_optimizers([nn.Parameter(torch.zeros(3))], replace(SETTINGS, optimizer="muon"))


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit", "muon", "adafactor"])
def test_the_schedule_reaches_every_group_and_only_matrices_decay(kind):
    """10 steps, 10 % warm-up, a line down to 0: the rate of step 5 (from 0) is (1 - 4/8) of the peak, which Muon has by itself."""
    if kind == "adamw_8bit":
        need_torchao()
    settings = OptimizerSettings(learning_rate=0.4, optimizer=kind, muon_learning_rate=0.8 if kind == "muon" else None, schedule="linear",
                                 warmup_share=0.1, final_share=0.0, weight_decay=0.1)  # fmt: skip
    matrix, table, vector = (nn.Parameter(torch.ones(s)) for s in ((2, 3), (4, 3), (3,)))
    optimizers = make_optimizers([matrix, table, vector], settings, hidden={id(matrix)})
    assert optimizers.step(5, num_steps=10) == pytest.approx(0.2)
    rates, decays = {}, {}
    for part in optimizers.parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                rates[id(parameter)], decays[id(parameter)] = float(group["lr"]), group["weight_decay"]
    assert [rates[id(p)] for p in (matrix, table, vector)] == pytest.approx([0.4 if kind == "muon" else 0.2, 0.2, 0.2])
    assert [decays[id(p)] for p in (matrix, table, vector)] == [0.1, 0.1, 0.0]


def test_a_rate_of_muon_without_muon_is_refused():
    with pytest.raises(ValueError, match=r"muon_learning_rate=0\.02 is not read by optimizer=adamw"):
        TrainSection(muon_learning_rate=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimiser_learns_and_a_wrong_sign_does_not(kind):
    rate = 0.03 if kind == "adafactor" else 3e-3
    losses = {}
    for sign in (1.0, -1.0):
        learner = make_learner("sft", optimizer=kind, learning_rate=rate, schedule="constant", warmup_share=0.0)
        for parameter in learner.parameters:
            parameter.register_hook(lambda grad, sign=sign: sign * grad)
        losses[sign] = [learner.step(make_trees("sft"))["loss"] for _ in range(8)]
    assert losses[1.0][-1] < losses[1.0][0] - 0.3 and losses[-1.0][-1] > losses[-1.0][0] + 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimiser_that_was_put_back_goes_on_bit_for_bit(kind):
    whole = make_learner("ppo", optimizer=kind, num_steps=6)
    first, second = make_learner("ppo", optimizer=kind, num_steps=6), make_learner("ppo", optimizer=kind, num_steps=6)
    batches = [make_trees("ppo", seed=step) for step in range(6)]
    for batch in batches:
        whole.step(batch)
    for batch in batches[:3]:
        first.step(batch)
    tensors, values = first.state()
    assert all(type(t) in (torch.Tensor, nn.Parameter) for t in tensors.values())
    second.load_state({name: t.clone() for name, t in tensors.items()}, values)
    for batch in batches[3:]:
        second.step(batch)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_8_bit_state_is_plain_tensors_and_goes_on_bit_for_bit():
    need_torchao()
    rng = np.random.default_rng(0)
    start = [torch.tensor(rng.normal(size=s), dtype=torch.float32) for s in (WIDE, (7,))]
    grads = [[torch.tensor(rng.normal(size=s), dtype=torch.float32) for s in (WIDE, (7,))] for _ in range(6)]

    def fresh(values):
        named = {f"p{i}": nn.Parameter(v.clone()) for i, v in enumerate(values)}
        return named, make_optimizers(named.values(), replace(SETTINGS, optimizer="adamw_8bit"))

    def go(named, optimizers, numbers):
        for number in numbers:
            for parameter, grad in zip(named.values(), grads[number], strict=True):
                parameter.grad = grad.clone()
            optimizers.step(number, num_steps=6)

    whole, whole_optimizers = fresh(start)
    go(whole, whole_optimizers, range(6))
    first, first_optimizers = fresh(start)
    go(first, first_optimizers, range(3))
    tensors, values = optimizer_state(first_optimizers, first)
    assert all(type(t) is torch.Tensor for t in tensors.values())
    assert tensors["optimizer/p0/exp_avg.codes"].dtype == torch.uint8, "a byte a number"
    second, second_optimizers = fresh([p.detach() for p in first.values()])
    load_optimizer(second_optimizers, second, {name: t.clone() for name, t in tensors.items()}, values)
    go(second, second_optimizers, range(3, 6))
    for name, parameter in whole.items():
        assert torch.equal(parameter, second[name])
