"""Engines that are not in every installation."""

import builtins
import sys

import pytest

from fairlead.core.errors import EngineError
from fairlead.engine.opening import VllmSettings, check_vllm, open_vllm
from fairlead.engine.requests import sample_seed


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ModuleNotFoundError("No module named 'vllm'", name="vllm"), "is not installed"),
        (ModuleNotFoundError("No module named 'inner'", name="inner"), "cannot be imported .No module named 'inner'"),
        (ImportError("operator torchvision::nms does not exist"), "cannot be imported .operator torchvision"),
    ],
)
def test_a_missing_vllm_is_an_error_with_a_remedy(monkeypatch, error, told):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "vllm" or name.startswith("vllm."):
            raise error
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "fairlead.engine.vllm", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EngineError, match=told) as found:
        open_vllm("anywhere", VllmSettings(), max_slots=4)
    assert "fairlead[vllm]" in str(found.value) and "engine.kind: local" in str(found.value)


def test_a_missing_vllm_is_noticed_without_importing_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"engine\.kind=vllm needs a package that is not installed"):
        check_vllm()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    check_vllm()


def test_seeds_of_samples_are_their_own():
    seeds = {sample_seed(seed, key, i) for seed in range(5) for key in ("a", "b") for i in range(7)}
    assert len(seeds) == 70 and all(0 <= seed < 2**62 for seed in seeds)
    assert sample_seed(1, "a", 0) == sample_seed(1, "a", 0)
