"""Stage: the released model folder, chosen by the evaluation, with a model card that tells what it stands on.

Reads the evaluation and the trained policies; copies one policy's folder and adds RELEASE.md (the card) and release.json.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead.core.config import Config
from fairlead.core.errors import DataError, explain
from fairlead.core.gates import Gate, amount
from fairlead.core.io import read_json, write_json, write_text
from fairlead.core.services import Services
from fairlead.core.summary import Figure, StageSummary, summary_from_dict

RELEASE_READY = Gate(
    name="releases.ready", question="Is there a policy whose evaluation allows a release?", unit="policies", direction="at_least", stop=1.0,
    warn=None, remedy="Look at the evaluation: no policy improved what was declared without breaking a guard",
)  # fmt: skip
GATES: tuple[Gate, ...] = (RELEASE_READY,)
_SKIPPED = ("manifest.json", "summary.json", "metrics.jsonl", "rejects.jsonl")


class ReleasesConfig(Config):
    """Which policy is released."""

    policy: str = "best"
    """Name of a policy, or best: the one that the evaluation ranks first among those whose gates do not stop."""


def run(config: ReleasesConfig, *, inputs: Mapping[str, Path], out: Path, services: Services) -> StageSummary:
    """Choose, copy, describe."""
    evaluation = read_json(inputs["evals"] / "evaluation.json")
    ranking = [row for row in evaluation["ranking"] if f"policy.{row['policy']}" in inputs]
    candidates = ranking if config.policy == "best" else [row for row in ranking if row["policy"] == config.policy]
    if not candidates:
        raise DataError(
            explain(
                "releases.policy",
                config.policy,
                "was not evaluated",
                expected="a policy that was trained",
                remedy="Train it",
            )
        )
    ready = [row for row in candidates if row["is_releasable"]]
    chosen = (ready or candidates)[0]
    verdict = RELEASE_READY.judge(
        float(len(ready)), n=len(candidates), note="Policies whose evaluation does not stop a release"
    )
    folder = inputs[f"policy.{chosen['policy']}"]
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name not in _SKIPPED:
            shutil.copyfile(file, out / file.name)
    write_json(
        out / "release.json", {"policy": chosen["policy"], "artifact": folder.name, "evaluation": inputs["evals"].name}
    )
    write_text(out / "RELEASE.md", _card(chosen, evaluation, folder.name))
    services.say(f"release: {chosen['policy']}")
    return StageSummary(
        stage="releases", headline=f"Released policy {chosen['policy']} ({chosen['headline']}).",
        figures=(Figure(name="releasable policies", value=len(ready), n=len(candidates)),), verdicts=(verdict,),
        facts={"policy": chosen["policy"], "artifact": folder.name},
    )  # fmt: skip


def _card(chosen: Mapping[str, Any], evaluation: Mapping[str, Any], artifact: str) -> str:
    summary = summary_from_dict(evaluation["summary"])
    lines = [f"# {chosen['policy']}", "", chosen["headline"], "", f"Policy artifact `{artifact}`; evaluation on {evaluation['num_prompts']} prompts "
             "against criteria that were frozen before training.", "", "| behaviour | before | after | effect | 95 % interval | verdict |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for row in chosen["results"]:
        before, after, effect, low, high = (
            amount(row[name], row["unit"]) for name in ("before", "after", "effect", "low", "high")
        )
        lines.append(f"| {row['behaviour']} | {before} | {after} | {effect} | {low} to {high} | {row['verdict']} |")
    lines += [
        "",
        "## Gates",
        "",
        *[f"- {v.line()}" for v in summary.verdicts],
        "",
        "`fairlead lineage` on this release walks back to the single votes.",
    ]
    return "\n".join(lines) + "\n"
