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
    """PPO pays for its reward model: 30 + 10, 50 + 10, 40 + 10 seconds, median 50; two of three intervals are above 0."""
    run = {
        "work": "quickstart", "setting": "seeds 0, 1, 2; 2 cores", "date": "2026-11-21", "commit": "abc", "memory_mb": {"ours": 640},
        "stages": [{"rewards": 10.0, "policies.ppo": s, "policies.dpo": 2.0} for s in (30.0, 50.0, 40.0)],
    }  # fmt: skip
    effect = {
        "work": "quickstart: ppo against SFT, gold rule", "ours": {"median": 0.4, "min": -0.1, "max": 0.6},
        "intervals": [[0.2, 0.5], [-0.3, 0.1], [0.4, 0.8]],
    }  # fmt: skip
    text = tool.block([run, effect])
    assert "| reward model + PPO | 50 (40 to 60) | 640 | 0.400 (-0.100 to 0.600) | 2 of 3 |" in text
    assert "| DPO | not measured |" in text
    assert "seeds 0, 1, 2; 2 cores, 2026-11-21, commit abc" in text


def test_lost_markers_are_refused(tool: ModuleType) -> None:
    with pytest.raises(DataError, match="markers once"):
        tool.fill("no markers", "x")
