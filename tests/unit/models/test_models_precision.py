"""The choice between fp32 and bf16, and the file in which a machine's speeds are kept."""

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tiny_models
from fairlead.core.errors import ConfigError
from fairlead.models import precision
from fairlead.models.arithmetic import has_low_precision
from fairlead.models.checkpoint import save_policy
from fairlead.models.frozen import load_frozen
from fairlead.models.heads import new_reward_head, save_head
from fairlead.models.load import load_policy, load_tokenizer
from fairlead.models.precision import choose_precision, machine_gain
from fairlead.text import Branch, Tree
from fairlead.train.forward import score_trees

low = pytest.mark.skipif(not has_low_precision(), reason="this processor has no bf16 instructions")


def speeds_file(tmp_path, gain):
    """The file of this machine with another gain in it."""
    path = tmp_path / "machine.json"
    machine_gain(path)
    path.write_text(json.dumps({name: {**row, "gain": gain} for name, row in json.loads(path.read_text()).items()}))
    return path


def test_speeds_are_measured_once_a_machine(tmp_path):
    path = speeds_file(tmp_path, 7.5)
    assert machine_gain(path) == 7.5, "the file is read"
    ((name, row),) = json.loads(path.read_text()).items()
    path.write_text(json.dumps({name.replace(torch.__version__, "1.0"): row}))
    assert machine_gain(path) != 7.5, "another torch, another speed"
    assert set(json.loads(path.read_text())) == {name, name.replace(torch.__version__, "1.0")}
    for damaged in ("{", "[]", '{"x": 1}'):
        path.write_text(damaged)
        assert 0 < machine_gain(path) < 100


@low
@pytest.mark.parametrize(("hidden", "gain", "expected"), [(256, 2.0, "bf16"), (255, 2.0, "fp32"), (256, 1.2, "fp32")])
def test_auto_takes_bf16_where_it_pays(hidden, gain, expected, tmp_path):
    model = tiny_models.load("llama")
    model.config.hidden_size = hidden
    assert choose_precision("auto", model, machine_file=speeds_file(tmp_path, gain)) == expected


def test_what_the_recipe_says_is_taken():
    model = tiny_models.load("llama")
    assert choose_precision("fp32", model, machine_file=None) == "fp32"
    assert model.hidden_size < precision.SMALLEST and choose_precision("auto", model, machine_file=None) == "fp32"


@low
def test_padded_rows_stay_fp32():
    model = tiny_models.load("llama")
    model.config.hidden_size, model.why_padded = 512, "keeps state"
    assert choose_precision("auto", model, machine_file=None) == "fp32"
    with pytest.raises(ConfigError, match=r"training\.precision=bf16 is not computed on padded rows"):
        choose_precision("bf16", model, machine_file=None)
    model.set_precision("bf16")
    assert model.arithmetic.precision == "fp32"


def test_bf16_without_the_instructions_is_refused():
    model = tiny_models.load("llama")
    model.device = torch.device("mps")
    with pytest.raises(
        ConfigError, match=r"training\.precision=bf16 is not in the instructions of this mps; expected fp32 or auto"
    ):
        choose_precision("bf16", model, machine_file=None)


@low
def test_a_frozen_reward_model_scores_in_bf16_beside_a_policy_in_bf16_where_that_pays(tmp_path):
    """A hundredth of the scores' spread is the most that rounding moves one, and no fp32 weight changes."""
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 6,
        "vocab_size": 96,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path / "model")
    base = load_policy(str(tmp_path / "model"))
    save_policy(base, load_tokenizer(str(tiny_models.folder("llama"))), tmp_path / "reward")
    save_head(new_reward_head(base, seed=0), tmp_path / "reward")
    rng = np.random.default_rng(0)
    trees = [
        Tree(prompt_ids=rng.integers(4, 96, 9), branches=tuple(Branch(token_ids=rng.integers(4, 96, int(n))) for n in rng.integers(5, 40, 8)))
        for _ in range(8)
    ]  # fmt: skip
    found = {}
    for policy, gain in (("bf16", 2.0), ("bf16", 1.2), ("fp32", 2.0)):
        model = load_frozen(tmp_path / "reward", device="cpu", policy=policy, machine_file=speeds_file(tmp_path, gain))
        assert not any(p.requires_grad for p in model.base.module.parameters())
        assert all(p.dtype == torch.float32 for p in model.parameters())
        assert model.base.arithmetic.precision == ("bf16" if (policy, gain) == ("bf16", 2.0) else "fp32")
        found[policy, gain] = score_trees(model, trees, max_tokens=512)
    exact = found["fp32", 2.0]
    np.testing.assert_array_equal(found["bf16", 1.2], exact)
    off = np.abs(found["bf16", 2.0] - exact) / exact.std()
    assert 0 < off.max() < 0.03 and np.corrcoef(found["bf16", 2.0], exact)[0, 1] > 0.9999, off.max()
