"""The choice between fp32 and bf16, and the file in which a machine's speeds are kept."""

import json

import pytest
import torch

import tiny_models
from fairlead.core.errors import ConfigError
from fairlead.models import precision
from fairlead.models.arithmetic import has_low_precision
from fairlead.models.precision import choose_precision, machine_gain

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
