"""The registry, and what every entry owes its readers."""

import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from fairlead.algos import ALGORITHMS, DPO, get_algorithm
from fairlead.algos.checks import with_statistics
from fairlead.algos.random_batches import random_batch
from fairlead.core.errors import ConfigError
from fairlead.telemetry.metrics import describe

_DOCS = Path(__file__).parents[3] / "docs" / "algorithms"
_PAGES = (
    dict.fromkeys(("cdpo", "robust", "ipo", "hinge", "exo", "nca", "sppo", "apo_zero", "apo_down", "discopop"), "dpo")
    | {
        "aot_unpaired": "aot",
        "dr_grpo": "grpo",
        "dapo": "grpo",
        "rloo": "reinforce",
        "remax": "reinforce",
        "reinforce_pp": "reinforce",
    }
    | {"reinforce_pp_baseline": "reinforce"}
)
"""Pages of methods that share one; every other has its own."""


def _by_name(algorithm):
    return algorithm.name


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """A module of the user's with a spec and something that is none."""
    (tmp_path / "my_losses.py").write_text(
        "from dataclasses import replace\nfrom fairlead.algos import DPO\nMINE = replace(DPO, name='mine')\nOTHER = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_losses"
    sys.modules.pop("my_losses", None)


def test_names_are_unique_and_found():
    assert len({algorithm.name for algorithm in ALGORITHMS}) == len(ALGORITHMS)
    for algorithm in ALGORITHMS:
        assert get_algorithm(algorithm.name) is algorithm


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(
        ConfigError, match=r"algorithm=dop is not known \(did you mean dpo\?\); expected one of sft, reward"
    ):
        get_algorithm("dop")


def test_a_spec_of_the_user_is_imported(user_module):
    assert get_algorithm(f"{user_module}:MINE") == replace(DPO, name="mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_losses:OTHER", "is a int"),
        ("my_losses:NONE", "cannot be imported"),
        ("no_such_module:X", "No module named"),
        (":X", "cannot be imported"),
    ],
)
def test_what_is_no_spec_is_refused(user_module, name, message):
    with pytest.raises(ConfigError, match=message):
        get_algorithm(name)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=_by_name)
def test_every_setting_and_metric_is_on_the_page(algorithm):
    page = (_DOCS / f"{_PAGES.get(algorithm.name, algorithm.name)}.md").read_text(encoding="utf-8")
    names = [field.name for field in fields(algorithm.config)] + list(_logged(algorithm))
    assert [name for name in names if f"`{name}`" not in page] == []


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=_by_name)
def test_every_logged_metric_is_in_the_catalogue(algorithm):
    for name in _logged(algorithm):
        describe(name)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=_by_name)
def test_defaults_make_a_valid_config_that_compares_by_value(algorithm):
    assert algorithm.config() == algorithm.config()


def _logged(algorithm):
    config = algorithm.config()
    metrics = algorithm.loss(with_statistics(algorithm, config, random_batch(algorithm.batch, seed=0)), config).metrics
    return algorithm.logged({name: float(total / count) for name, (total, count) in metrics.items()})
