"""`fairlead lineage`: an artifact, and below it everything that it was made from, each with what it was for."""

from pathlib import Path

from fairlead.cli import terminal
from fairlead.cli.registry import resolve
from fairlead.cli.running import as_data
from fairlead.store.artifacts import ArtifactStore
from fairlead.store.manifest import Artifact

_ROLES = {
    "rewards": "reward model", "process": "process-reward model", "gold": "gold reward", "feedback": "votes", "evals": "evaluation",
    "before": "reference", "base": "untrained model", "start": "earlier reward model", "replay": "replayed preferences",
}  # fmt: skip
"""Roles of inputs whose names say less than their words; of `policy.NAME` and `rewards.NAME` the first part."""
WITHOUT_REFERENCE = frozenset({"orpo", "simpo", "cpo"})
"""Algorithms for which the policy that they start from is not their reference too."""


def show_lineage(home: Path, name: str, *, as_json: bool) -> None:
    """From the artifact down to what it was made from, each with its role and figure, ending at votes and files."""
    store = ArtifactStore(home)
    artifact = resolve(home, store, name)
    chain = store.lineage(artifact.id)
    if as_json:
        terminal.say(
            as_data(
                [
                    {"id": a.id, "stage": a.stage, "inputs": a.inputs, "headline": a.summary.get("headline", "")}
                    for a in chain
                ]
            )
        )
        return
    _print_tree(artifact, {a.id: a for a in chain}, role="", depth=0, seen=set())


def _print_tree(artifact: Artifact, by_id: dict[str, Artifact], *, role: str, depth: int, seen: set[str]) -> None:
    again = " (above)" if artifact.id in seen else ""
    terminal.say(f"{'  ' * depth}{f'{role}: ' if role else ''}{artifact.stage}  {artifact.id}{again}")
    if again:
        return
    seen.add(artifact.id)
    terminal.say(f"{'  ' * depth}  {artifact.summary.get('headline', '')}")
    for parent in dict.fromkeys(artifact.inputs.values()):
        roles = [role_words(artifact, name) for name, id in artifact.inputs.items() if id == parent]
        _print_tree(by_id[parent], by_id, role=", ".join(roles), depth=depth + 1, seen=seen)


def role_words(artifact: Artifact, role: str) -> str:
    """What an input was to the artifact: `reward model`, `start and reference`, `replayed preferences`."""
    if role == "policy" and artifact.kind == "policy":
        return "start" if artifact.config.get("algorithm") in WITHOUT_REFERENCE else "start and reference"
    if role == "policy" and artifact.kind == "reward_model":
        return "template and tokenizer" if "start" in artifact.inputs else "start"
    first, _, name = role.partition(".")
    return f"{_ROLES.get(first, first)} {name}".rstrip()
