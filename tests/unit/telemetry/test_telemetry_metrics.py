"""The catalogue: names, units, ranges, the page in docs."""

import math
import pickle
import re
from pathlib import Path

import pytest

from fairlead.core.errors import ConfigError
from fairlead.telemetry import METRICS, Metric, describe, metrics_page

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "metrics.md"
ASKED = {
    "loss", "learning_rate", "grad_norm", "tokens_per_s", "sft/perplexity", "reward/accuracy", "reward/margin",
    "dpo/chosen_logprobs", "dpo/rejected_logprobs", "dpo/margin", "dpo/accuracy", "rl/kl_k1", "rl/kl_k1_sequence",
    "rl/kl_coef", "rl/reward", "rl/score", "rl/entropy", "rl/clip_fraction", "rl/approx_kl", "rl/ratio_mean",
    "rl/value_loss", "rl/explained_variance", "rl/length_tokens", "rl/missing_eos_share",
}  # fmt: skip


def test_names_are_declared_once():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    assert set(names) >= ASKED


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_says_unit_and_meaning(metric: Metric):
    assert metric.unit and metric.meaning and not metric.meaning.endswith(".")
    assert metric.name == metric.name.lower() and metric.name.count("/") <= 1
    if metric.healthy is not None:
        assert metric.healthy[0] < metric.healthy[1]


def test_an_unknown_name_raises_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"metric=dpo/margins is not declared \(did you mean dpo/margin\?\)"
    ) as caught:
        describe("dpo/margins")
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), ConfigError)


def test_healthy_includes_both_ends_and_refuses_nan():
    kl = describe("rl/kl_k1")
    assert [kl.is_healthy(v) for v in (0.0, 0.5, 0.51, -0.01, math.nan)] == [True, True, False, False, False]
    assert describe("loss").is_healthy(-3.0) and not describe("loss").is_healthy(math.inf)


def test_the_page_in_docs_is_the_catalogue():
    assert PAGE.read_text(encoding="utf-8") == metrics_page()


def test_a_bar_in_a_meaning_does_not_break_the_page_table():
    row = next(line for line in metrics_page().splitlines() if line.startswith("| `rl/kl_k1` "))
    assert row.replace("\\|", "").count("|") == 5


def test_no_metric_is_declared_that_nothing_logs():
    sources = [
        p for p in (ROOT / "src" / "fairlead").rglob("*.py") if p.parts[-2] != "telemetry" or p.name == "pace.py"
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    assert [metric.name for metric in METRICS if f'"{metric.name}"' not in text] == []


def test_every_metric_that_the_code_names_is_declared():
    """Names that end in _squared are sums from which a standard deviation is made; they are never logged."""
    areas = "|".join({metric.area for metric in METRICS})
    names = {
        name
        for path in (ROOT / "src" / "fairlead").rglob("*.py")
        for name in re.findall(rf"[\"']((?:{areas})/[a-z0-9_]+)[\"']", path.read_text(encoding="utf-8"))
    }
    declared = {metric.name for metric in METRICS}
    assert declared & names, "no metric is named anywhere: the pattern is wrong"
    assert sorted(name for name in names - declared if not name.endswith("_squared")) == []
