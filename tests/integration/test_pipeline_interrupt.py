"""Ctrl-C is heeded in every long loop, and wherever it comes, the run goes on to the same bytes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from micro import MicroRun

from fairlead.core.errors import Interrupted
from fairlead.core.services import silent_progress
from fairlead.pipeline.recipe import load
from fairlead.pipeline.run import Interface, Pipeline

CHANGES = {
    "sft": ("sft.training.learning_rate=2e-3", "sft.patience=1", "sft.training.num_epochs=2"),
    "rewards": ("rewards.training.learning_rate=4e-4",),
    "policies.dpo": ("policies.dpo.beta=0.2",),
    "policies.dpo with a moving reference": (
        "policies.dpo.refresh_every_steps=3",
        "policies.dpo.refresh_alpha=0.6",
        "policies.dpo.training.learning_rate=2e-3",
    ),
    "policies.ppo": ("policies.ppo.kl.kl_coef=0.1",),
    "policies.ppo with composed rewards": (
        "policies.ppo.rewards={combine: normalise_then_sum, normalise_by: running, components: {kind: {type: model}, "
        "won: {type: judge}, short: {type: rule, rule: {kind: length, max_words: 6}}}}",
        "policies.ppo.group_size=2",
    ),
    "policies.ppo with adapters": (
        "policies.ppo.training.lora={rank: 4, alpha: 8}",
        "policies.ppo.training.learning_rate=2e-3",
    ),
}
"""What makes a stage run anew on the artifacts of the micro run."""


def _run(micro: MicroRun, home: Path, name: str, should_stop: Callable[[], bool], said: list[str]) -> str:
    """Artifact of the stage."""
    sets, stage = (*CHANGES[name], "evals=null", "releases=null"), name.partition(" ")[0]
    interface = Interface(progress=silent_progress, say=said.append, should_stop=should_stop)
    pipeline = Pipeline(load(micro.recipe, sets=sets), home, micro.recipe.parent, interface)
    record = pipeline.run(stage)[stage]
    assert record.artifact is not None
    return record.artifact.id


class _Button:
    """Ctrl-C at the n-th time that somebody looks; n = 0 is never."""

    def __init__(self, at: int) -> None:
        self.at, self.num_looks = at, 0

    def __call__(self) -> bool:
        self.num_looks += 1
        return 0 < self.at <= self.num_looks


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_stage_that_is_interrupted_anywhere_ends_with_the_same_bytes(
    micro: MicroRun, tmp_path: Path, name: str
) -> None:
    home, again = (shutil.copytree(micro.home, tmp_path / name) for name in ("a", "b"))
    never, said = _Button(0), list[str]()
    expected = _run(micro, home, name, never, said)
    shares = (
        (0.3, 0.8) if " with " in name else (0.0, 0.3, 0.6, 1.0)
    )  # a way of training begins and ends as the stage does
    stops = sorted({round(1 + share * (never.num_looks - 1)) for share in shares})
    for at in stops:
        home = shutil.copytree(again, tmp_path / f"at-{at}")
        with pytest.raises(Interrupted, match="same command"):
            _run(micro, home, name, _Button(at), said)
        assert _run(micro, home, name, _Button(0), said) == expected, (at, never.num_looks)


def test_the_reference_pass_of_dpo_is_interrupted(micro: MicroRun, tmp_path: Path) -> None:
    home, said = shutil.copytree(micro.home, tmp_path / "home"), list[str]()
    with pytest.raises(Interrupted, match="dpo: reference was interrupted and starts again"):
        _run(micro, home, "policies.dpo", lambda: bool(said), said)
    assert said == ["dpo: computing reference logprobs once"]
