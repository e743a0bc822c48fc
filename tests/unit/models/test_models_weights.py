"""Weights on their way to an engine: by the names of the plain model, adapters added in, and nothing of the trainer's own moved."""

import json

import pytest
import torch
from safetensors.torch import load_file

import tiny_models
from fairlead.core.errors import EngineError
from fairlead.models.adapters import LoraSettings, add_lora, merged
from fairlead.models.weights import PolicyWeights


def moved(kind, lora):
    model = add_lora(tiny_models.load(kind), LoraSettings(kind=lora, rank=4, alpha=8.0), seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_plain_weights_are_the_parameters_themselves(kind):
    model = tiny_models.load(kind)
    found = dict(PolicyWeights(model).named_weights())
    expected = dict(model.module.named_parameters())
    assert list(found) == list(expected)
    assert all(found[name].data_ptr() == expected[name].data_ptr() for name in expected)
    assert not any(tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("lora", ["lora", "rslora", "dora"])
def test_adapted_weights_are_those_of_the_merged_model_and_the_trainer_keeps_its_own(kind, lora):
    model = moved(kind, lora)
    own = {name: (p.data_ptr(), p.detach().clone()) for name, p in model.module.named_parameters()}
    found = {name: tensor.clone() for name, tensor in PolicyWeights(model).named_weights()}
    for name, parameter in model.module.named_parameters():
        assert parameter.data_ptr() == own[name][0] and torch.equal(parameter, own[name][1]), name
    expected = dict(merged(model).module.named_parameters())
    assert list(found) == list(expected)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)


def test_an_adapter_is_written_by_itself(tmp_path):
    model = moved("llama", "lora")
    assert PolicyWeights(model).write_adapter(tmp_path / "adapter")
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert weights and all("lora_" in name for name in weights)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    assert not PolicyWeights(tiny_models.load("llama")).write_adapter(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_adapter_on_stacked_experts_is_refused():
    with pytest.raises(EngineError, match="no layer of one weight"):
        list(PolicyWeights(moved("deepseek_v3", "lora")).named_weights())
