"""The simulated panel through both stages: what was built into the raters is found again, and aggregation pays."""

import numpy as np
import pytest

from fairlead.core.config import parse_config
from fairlead.core.io import write_jsonl
from fairlead.core.records import Completion, Message, Prompt
from fairlead.core.services import Services
from fairlead.feedback import stage as feedback
from fairlead.feedback.simulated import simulated_panel
from fairlead.preferences import stage as preferences


class NumberScorer:
    """The text is the gold score."""

    name = "number"

    def score(self, prompts, completions):
        return np.array([float(c.text) for c in completions])


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    rng = np.random.default_rng(0)
    prompts = [Prompt(messages=(Message(role="user", content=f"q{i}"),)) for i in range(1200)]
    completions = [
        Completion(prompt_id=p.id, text=f"{rng.normal():.4f}", model="m", sample_index=i)
        for p in prompts
        for i in range(2)
    ]
    write_jsonl(folder / "prompts.jsonl", prompts)
    write_jsonl(folder / "completions.jsonl", completions)
    inputs = {"prompts": folder, "completions": folder, "feedback": folder / "feedback"}
    services = Services(work=folder, seed=0, extras={"gold_scorer": NumberScorer(), "scope": "toy"})
    feedback.run(parse_config(feedback.FeedbackConfig, {}), inputs=inputs, out=inputs["feedback"], services=services)
    config = parse_config(preferences.PreferencesConfig, {"num_resamples": 200})
    return preferences.run(config, inputs=inputs, out=folder / "preferences", services=services)


def test_default_raters_agree_as_people_do(summary):
    """The guides' target band is 70 to 75 %."""
    assert 0.68 < summary.facts["agreement"] < 0.77
    assert {v.gate: v.outcome for v in summary.verdicts} == {
        "preferences.agreement": "PASS", "preferences.alpha": "WARN", "preferences.count": "PASS",
    }  # fmt: skip


def test_aggregation_beats_single_votes(summary):
    found = {f.name: f for f in summary.figures}
    assert found["gain of aggregation"].low > 0.05
    assert found["aggregated accuracy against gold"].low > found["single-vote accuracy against gold"].high


def test_the_weak_members_are_found_and_the_able_left_alone(summary):
    panel = {t.name: t for t in simulated_panel(20, seed=0)}
    flagged = summary.facts["flagged_raters"]
    clicker = next(t.name for t in panel.values() if t.lapse == 1)
    drifter = next(t.name for t in panel.values() if t.half_life is not None)
    assert "near chance" in flagged[clicker]
    assert flagged[drifter]
    biased = {t.name for t in panel.values() if t.side_bias != 0}
    assert {name for name, flags in flagged.items() if any(f.startswith("favours") for f in flags)} <= biased
    assert set(flagged) <= biased | {clicker, drifter}
