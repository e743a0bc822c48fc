"""Which policy is released, what the gate says about it, and what the folder holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.core.errors import DataError
from fairlead.core.services import Services
from fairlead.core.summary import StageSummary
from fairlead.releases.stage import ReleasesConfig, run


def _row(policy: str, *, is_releasable: bool) -> dict[str, Any]:
    result = {
        "behaviour": "kindness",
        "before": 0.1,
        "after": 0.4,
        "effect": 0.3,
        "low": 0.1,
        "high": 0.5,
        "verdict": "improved",
        "unit": "share",
    }
    return {"policy": policy, "headline": f"{policy} is kinder.", "is_releasable": is_releasable, "results": [result]}


def _inputs(tmp_path: Path, rows: list[dict[str, Any]], trained: tuple[str, ...]) -> dict[str, Path]:
    evals = tmp_path / "evaluation-1"
    evals.mkdir()
    summary = StageSummary(stage="evals", headline="").to_dict()
    (evals / "evaluation.json").write_text(
        json.dumps({"num_prompts": 12, "ranking": rows, "summary": summary}), encoding="utf-8"
    )
    inputs = {"evals": evals}
    for name in trained:
        inputs[f"policy.{name}"] = folder = tmp_path / f"policy-{name}"
        folder.mkdir()
        for file in ("model.safetensors", "config.json", "manifest.json", "summary.json", "metrics.jsonl"):
            (folder / file).write_text(name, encoding="utf-8")
    return inputs


def _release(
    tmp_path: Path, rows: list[dict[str, Any]], trained: tuple[str, ...], policy: str = "best"
) -> tuple[StageSummary, Path]:
    out = tmp_path / "out"
    out.mkdir()
    inputs = _inputs(tmp_path, rows, trained)
    return run(ReleasesConfig(policy=policy), inputs=inputs, out=out, services=Services(work=tmp_path)), out


@pytest.mark.parametrize(
    ("flags", "policy", "chosen", "outcome"),
    [
        ((True, True), "best", "a", "PASS"),
        ((False, True), "best", "b", "PASS"),
        ((False, False), "best", "a", "STOP"),
        ((True, True), "b", "b", "PASS"),
        ((True, False), "b", "b", "STOP"),  # a fit neighbour does not make it fit
    ],
)
def test_choice_and_verdict(tmp_path: Path, flags: tuple[bool, bool], policy: str, chosen: str, outcome: str) -> None:
    rows = [_row(name, is_releasable=flag) for name, flag in zip(("a", "b"), flags, strict=True)]
    summary, out = _release(tmp_path, rows, ("a", "b"), policy)
    assert summary.facts["policy"] == chosen
    assert [v.outcome for v in summary.verdicts] == [outcome]
    assert (out / "model.safetensors").read_text(encoding="utf-8") == chosen


def test_folder_holds_the_model_and_its_card_only(tmp_path: Path) -> None:
    _, out = _release(tmp_path, [_row("a", is_releasable=True)], ("a",))
    assert sorted(p.name for p in out.iterdir()) == ["RELEASE.md", "config.json", "model.safetensors", "release.json"]
    assert json.loads((out / "release.json").read_text(encoding="utf-8")) == {
        "policy": "a", "artifact": "policy-a", "evaluation": "evaluation-1"}  # fmt: skip
    assert "| kindness | 10.0 % | 40.0 % | 30.0 % | 10.0 % to 50.0 % | improved |" in (out / "RELEASE.md").read_text(
        encoding="utf-8"
    )


def test_policy_that_was_not_evaluated_is_never_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"releases\.policy=b was not evaluated"):
        _release(tmp_path, [_row("a", is_releasable=True)], ("a",), "b")


def test_policy_that_was_not_handed_in_is_passed_over(tmp_path: Path) -> None:
    summary, _ = _release(tmp_path, [_row("a", is_releasable=True), _row("b", is_releasable=True)], ("b",))
    assert summary.facts["policy"] == "b"
