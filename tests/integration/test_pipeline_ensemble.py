"""An ensemble of reward models through the whole loop: PPO keeps away from where it disagrees, the evaluation reads its mean."""

import shutil
from pathlib import Path

import micro as micro_run
from micro import MICRO, MicroRun, fairlead, folder_of, merge

from fairlead.models.heads import load_head
from fairlead.models.load import load_policy
from fairlead.telemetry.sinks import read_metrics

CHANGES = {"rewards": {"ensemble": {"kind": "bootstrap", "size": 2}}, "policies": {"ppo": {"uncertainty_coef": 0.5}}}


def test_an_ensemble_goes_through_the_loop(micro: MicroRun, tmp_path: Path) -> None:
    home = shutil.copytree(micro.home, tmp_path / "home")
    recipe = micro_run.write_recipe(tmp_path / "project", CHANGES)
    outcome = fairlead("run", recipe, home=home)
    assert outcome.code == 0, outcome.err
    folder = folder_of(home, micro_run.artifacts(home)["rewards"])
    model = load_head(load_policy(str(folder)), folder)
    assert len(model.members) == 1 and (folder / "scores.jsonl").is_file()
    policy = folder_of(home, micro_run.artifacts(home)["policies.ppo"])
    disagreement = read_metrics(policy / "metrics.jsonl")["rl/disagreement"]
    assert len(disagreement) == 2 and all(value > 0 for _, value in disagreement)
    assert micro_run.states(home)["sft"] == "reused" and micro_run.states(home)["evals"] == "made"


def test_caution_without_an_ensemble_is_refused(tmp_path: Path) -> None:
    changes = merge({"policies": MICRO["policies"]}, {"policies": {"ppo": {"uncertainty_coef": 0.5}}})
    recipe = micro_run.write_recipe(tmp_path / "project", changes)
    error = fairlead("plan", recipe, home=tmp_path / "home").error
    assert "policies.ppo.uncertainty_coef=0.5 has no ensemble" in error
