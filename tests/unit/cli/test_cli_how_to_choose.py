"""docs/how-to-choose.md says what the rule table says, and its measured block is what the tool writes."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from fairlead.cli.choosing import RULES, learning_rate
from fairlead.core.errors import DataError
from fairlead.core.io import read_json

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "how-to-choose.md").read_text()


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fill_measured", ROOT / "tools" / "fill_measured.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_rules_is_the_code() -> None:
    rows = [f"| `{rule.name}` | {rule.method.upper()} | {rule.says} |" for rule in RULES]
    found = PAGE.partition("<!-- rules:start -->\n")[2].partition("\n<!-- rules:end -->")[0]
    assert found.splitlines()[2:] == rows


@pytest.mark.parametrize(
    ("title", "stage"), [("SFT", "sft"), ("reward model", "rewards"), ("DPO", "dpo"), ("PPO", "ppo")]
)
def test_the_table_of_rates_is_the_code(title: str, stage: str) -> None:
    match = re.search(rf"^\| {title} \| (\S+) \| (\S+) \| (\S+) \|", PAGE, re.MULTILINE)
    assert match is not None
    rates = [learning_rate(stage, num_parameters=size, is_lora=False).value for size in (7e9, 5e8, 1.6e6)]
    assert [float(text) for text in match.groups()] == rates


def test_the_measured_block_is_what_the_tool_writes(tool: ModuleType) -> None:
    results = read_json(tool.RESULTS) if tool.RESULTS.is_file() else None
    assert tool.fill(PAGE, tool.block(results)) == PAGE


def test_the_block_shows_median_range_and_missing_methods(tool: ModuleType) -> None:
    """Seconds 50, 70, 60: median 60, from 50 to 70; two of three seeds could be released; PPO was not measured."""
    rows = [
        {
            "method": "dpo",
            "seed": seed,
            "seconds": seconds,
            "peak_memory_mb": 640,
            "win_rate": 0.7,
            "is_releasable": seed > 0,
        }
        for seed, seconds in enumerate((50.0, 70.0, 60.0))
    ]
    text = tool.block({"machine": "2 cores", "date": "2026-11-21", "rows": rows})
    assert "| DPO | 60 (50 to 70) | 640 (640 to 640) | 0.700 (0.700 to 0.700) | 2 of 3 |" in text
    assert "| reward model + PPO | not measured |" in text
    assert "3 seeds, 2 cores, 2026-11-21" in text


def test_unknown_methods_and_lost_markers_are_refused(tool: ModuleType) -> None:
    with pytest.raises(DataError, match="not a method of the table"):
        tool.block({"machine": "m", "date": "d", "rows": [{"method": "kto", "seed": 0}]})
    with pytest.raises(DataError, match="markers once"):
        tool.fill("no markers", "x")
