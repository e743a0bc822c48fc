"""A rule that stops a training: the report holds what it logged with its alerts, and the same command goes on when a person allows it."""

import shutil
from pathlib import Path

import micro as micro_run
from micro import MicroRun, fairlead

RULE = {"id": "mine", "when": [{"metric": "rl/kl_k1", "side": "above", "limit": -1.0, "window": 1}], "actions": [{"kind": "stop"}],
        "remedy": "Look at the samples"}  # fmt: skip


def test_a_run_that_a_rule_stopped_has_a_report_with_its_alerts(micro: MicroRun, tmp_path: Path) -> None:
    home = Path(shutil.copytree(micro.home, tmp_path / "home"))
    changes = {
        "policies": {"dpo": None, "ppo": {"training": {"learning_rate": 2e-4, "alerts": {"more": [RULE]}}}},
        "evals": None,
        "releases": None,
    }
    recipe = micro_run.write_recipe(tmp_path / "project", changes)
    page = home / "micro" / "report.html"
    page.unlink()
    stopped = fairlead("run", recipe, home=home)
    assert "was stopped at step 1 by rule mine" in stopped.error
    for _ in range(2):  # as the run left it, and drawn again
        html = page.read_text(encoding="utf-8")
        assert "ppo was stopped at step 1 of 2" in html and "Policy ppo (PPO), not finished" in html
        assert "what came of it" in html and "stopped here" in html and "Look at the samples" in html
        assert fairlead("report", "micro", home=home).code == 0
    allowed = fairlead("run", recipe, "--allow", "alert.mine=it is meant", home=home)
    assert allowed.code == 0, allowed.err
    html = page.read_text(encoding="utf-8")
    assert "not finished" not in html and "Alerts" in html and "stopped here; out of range to the end" in html
